package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// TestSubtitleFlags: subtitles are laid out as the settings and the flags say,
// other formats are not, and a wrong flag is told by its name.
func TestSubtitleFlags(t *testing.T) {
	for _, tt := range []struct {
		args   string
		format transcript.Format
		want   string // width, lines and speed; "" = no layout
		field  string
	}{
		{"", transcript.SRT, "42 2 20", ""},
		{"", transcript.JSON, "", ""},
		{"--subtitle_style segments", transcript.VTT, "", ""},
		{"--max_line_width 32 --max_line_count 1", transcript.VTT, "32 1 20", ""},
		{"--max_cps 12", transcript.SRT, "42 2 12", ""},
		{"--max_cps 1", transcript.SRT, "", "--max_cps"},
		{"--max_line_width 32", transcript.Txt, "", "--max_line_width"},
	} {
		var o order
		c := &cobra.Command{}
		o.subtitleFlags(c)
		if err := c.ParseFlags(strings.Fields(tt.args)); err != nil {
			t.Fatal(err)
		}
		a := &app{environ: []string{"WHISPER_APPLIANCE_SUBTITLES_READING_SPEED=20"}}
		l, err := a.layout(o, tt.format)
		var f *fault.Error
		if errors.As(err, &f) != (tt.field != "") || f != nil && f.Field != tt.field {
			t.Errorf("%s %s: %+v", tt.format, tt.args, err)
		}
		got := ""
		if l != nil {
			got = fmt.Sprint(l.Width, l.Lines, l.Speed)
		}
		if got != tt.want || l != nil && l.Longest != 7*time.Second {
			t.Errorf("%s %s: %q, want %q", tt.format, tt.args, got, tt.want)
		}
	}
}
