package transcript

import (
	"errors"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func TestChooseLayout(t *testing.T) {
	type fields map[string]string
	settings := *broadcasters()
	narrow := settings
	narrow.Width, narrow.FullWidth = 30, 15
	all := settings
	all.Width, all.FullWidth, all.Lines, all.Words, all.Speed = 40, 20, 1, 3, 20
	for name, tt := range map[string]struct {
		format Format
		usual  Style
		sent   fields
		want   *Layout
		field  string // of the fault
		says   string
	}{
		"usual segments":     {SRT, PerSegment, nil, nil, "", ""},
		"usual broadcast":    {VTT, Broadcast, nil, &settings, "", ""},
		"asked for":          {SRT, PerSegment, fields{"subtitle_style": "broadcast"}, &settings, "", ""},
		"asked not to":       {SRT, Broadcast, fields{"subtitle_style": "segments"}, nil, "", ""},
		"by a number":        {SRT, PerSegment, fields{"max_line_width": "30"}, &narrow, "", ""},
		"all":                {VTT, PerSegment, fields{"max_line_width": "40", "max_line_count": "1", "max_words_per_line": "3", "max_cps": "20"}, &all, "", ""},
		"no cues":            {JSON, Broadcast, nil, nil, "", ""},
		"no cues, but sent":  {JSON, PerSegment, fields{"max_cps": "20"}, nil, "max_cps", "json"},
		"no cues, style":     {Txt, PerSegment, fields{"subtitle_style": "broadcast"}, nil, "subtitle_style", "srt and vtt"},
		"no such style":      {SRT, PerSegment, fields{"subtitle_style": "karaoke"}, nil, "subtitle_style", `"karaoke"; it must be broadcast or segments`},
		"both":               {SRT, PerSegment, fields{"subtitle_style": "segments", "max_line_count": "2"}, nil, "max_line_count", "segments"},
		"too narrow":         {SRT, PerSegment, fields{"max_line_width": "9"}, nil, "max_line_width", "from 10 to 100"},
		"too wide":           {SRT, PerSegment, fields{"max_line_width": "101"}, nil, "max_line_width", "from 10 to 100"},
		"no line":            {SRT, PerSegment, fields{"max_line_count": "0"}, nil, "max_line_count", "from 1 to 4"},
		"no number":          {SRT, PerSegment, fields{"max_words_per_line": "many"}, nil, "max_words_per_line", "whole number"},
		"not whole":          {SRT, PerSegment, fields{"max_cps": "17.5"}, nil, "max_cps", "whole number"},
		"style and a number": {SRT, PerSegment, fields{"subtitle_style": "broadcast", "max_line_width": "30"}, &narrow, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ChooseLayout(tt.format, tt.usual, settings, func(name string) string { return tt.sent[name] })
			var f *fault.Error
			if tt.field != "" {
				if !errors.As(err, &f) || f.Kind != fault.BadInput || f.Field != tt.field || !strings.Contains(f.Message, tt.says) {
					t.Fatalf("%+v", err)
				}
				return
			}
			if err != nil || (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	if settings != *broadcasters() {
		t.Error("the settings were changed")
	}
}
