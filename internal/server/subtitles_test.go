package server

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/engine"
)

// tells says the same long sentence in each window, with its words when they
// are asked for.
func tells(_ context.Context, _ int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
	text := " And so, my fellow people, ask not what the box can do for you, ask what you can do for the box."
	seg := engine.Segment{End: 6 * time.Second, Text: text}
	if req.Words {
		for i, word := range strings.SplitAfter(strings.TrimSpace(text), " ") {
			at := time.Duration(i) * 250 * time.Millisecond
			seg.Words = append(seg.Words, engine.Word{Start: at, End: at + 200*time.Millisecond, Text: " " + strings.TrimSpace(word), Prob: 1})
		}
	}
	observe(engine.Event{Segment: &seg})
	return engine.Done{Language: "en"}, nil
}

func broadcast() part { return part{name: "subtitle_style", value: "broadcast"} }

// TestSubtitleDoors: each door has its own default, and with the same options
// all of them give the same bytes.
func TestSubtitleDoors(t *testing.T) {
	r := newRig(t, tells).withDesk(t)
	url := r.start(t).URL
	for _, format := range []string{"srt", "vtt"} {
		form := []part{recording("file"), {name: "response_format", value: format}}
		plain := post(t, url+"/v1/audio/transcriptions", form...)
		plain.want(t, 200, "people, ask not what the box can do for you, ask")
		laid := post(t, url+"/v1/audio/transcriptions", append(form, broadcast())...)
		laid.want(t, 200, "And so, my fellow people,\n\n", "ask not what the box can do for you,\nask what you can do for the box.\n\n")
		if !r.engine.request().Words {
			t.Error("cues are timed without words")
		}
		narrow := post(t, url+"/v1/audio/transcriptions", append(form, part{name: "max_line_width", value: "28"})...)
		narrow.want(t, 200, "the box can do for you, ask\nwhat you can do for the box.\n\n")

		a := post(t, url+"/api/v1/jobs", recording("file"), part{name: "words", value: "true"})
		a.want(t, http.StatusAccepted)
		at := url + a.header.Get("Location")
		jobState(t, at, "done")
		for query, want := range map[string]answered{"": laid, "&subtitle_style=segments": plain, "&max_line_width=28": narrow} {
			if got := do(t, "GET", at+"/transcript?format="+format+query, nil); got.status != 200 || got.body != want.body {
				t.Errorf("%s%s:\ngot  %q\nwant %q", format, query, got.body, want.body)
			}
		}
	}
	want := post(t, url+"/v1/audio/translations", recording("file"), part{name: "response_format", value: "srt"})
	if got := post(t, url+"/asr?task=translate&output=srt", recording("audio_file")); got.body != want.body || strings.Contains(got.body, "people,\n") {
		t.Errorf("/asr gives %q, want %q", got.body, want.body)
	}
	post(t, url+"/v1/audio/translations", recording("file"), part{name: "response_format", value: "vtt"}, broadcast()).want(t, 200, "for you,\nask")
}

// TestLongSubtitles: an answer that begins before its end is known is the same
// as a whole one.
func TestLongSubtitles(t *testing.T) {
	form := []part{recording("file"), {name: "response_format", value: "srt"}, broadcast()}
	whole := post(t, newRig(t, tells).start(t).URL+"/v1/audio/transcriptions", form...)
	gate := make(chan struct{})
	r := newRig(t, func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		select {
		case <-gate:
		case <-ctx.Done():
			return engine.Done{}, ctx.Err()
		}
		return tells(ctx, n, req, observe)
	})
	r.conf.Transcription.HeaderWait = 10 * time.Millisecond
	resp := open(t, r.start(t).URL+"/v1/audio/transcriptions", form...) // with the header
	close(gate)
	if a := read(resp); a.err != nil || a.body != whole.body || resp.ContentLength >= 0 {
		t.Errorf("%v\ngot  %q\nwant %q", a.err, a.body, whole.body)
	}
}

func TestSubtitleFieldsAreChecked(t *testing.T) {
	r := newRig(t, tells).withDesk(t)
	url := r.start(t).URL
	a := post(t, url+"/api/v1/jobs", recording("file"))
	at := url + a.header.Get("Location")
	jobState(t, at, "done")
	for _, tt := range []struct{ format, field, value, says string }{
		{"srt", "subtitle_style", "teletext", "broadcast or segments"},
		{"vtt", "max_line_width", "2", "from 10 to 100"},
		{"srt", "max_line_count", "five", "from 1 to 4"},
		{"srt", "max_words_per_line", "0", "from 1 to 50"},
		{"srt", "max_cps", "-1", "from 5 to 100"},
		{"json", "max_cps", "17", "srt and vtt"},
	} {
		post(t, url+"/v1/audio/transcriptions", recording("file"), part{name: "response_format", value: tt.format}, part{name: tt.field, value: tt.value}).
			want(t, 400, `"param":"`+tt.field+`"`, tt.says)
		do(t, "GET", at+"/transcript?format="+tt.format+"&"+tt.field+"="+tt.value, nil).want(t, 400, tt.field, tt.says)
	}
	post(t, url+"/v1/audio/transcriptions", recording("file"), part{name: "highlight_words", value: "true"}).want(t, 400, "unknown_field", "highlight_words")
}
