package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/transcript"
)

// TestInferenceFormats: every byte of what whisper.cpp's server would write.
func TestInferenceFormats(t *testing.T) {
	cues := strings.NewReplacer("\nPart", "\n Part")
	for format, c := range map[string]struct{ kind, body string }{
		"":     {"application/json", `{"text":" Part 0, äöü.\n Part 1, äöü.\n Part 2, äöü.\n"}`},
		"json": {"application/json", `{"text":" Part 0, äöü.\n Part 1, äöü.\n Part 2, äöü.\n"}`},
		"text": {"text/plain; charset=utf-8", " Part 0, äöü.\n Part 1, äöü.\n Part 2, äöü.\n"},
		"srt":  {"application/x-subrip", cues.Replace(asrSRT)},
		"vtt": {"text/vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n Part 0, äöü.\n\n00:00:17.490 --> 00:00:19.490\n Part 1, äöü.\n\n" +
			"00:00:35.490 --> 00:00:37.490\n Part 2, äöü.\n\n"},
	} {
		t.Run(format, func(t *testing.T) {
			r := newRig(t, talks)
			a := post(t, r.start(t).URL+"/inference", recording("file"), part{name: "response_format", value: format})
			if a.status != 200 || a.body != c.body || a.header.Get("Content-Type") != c.kind {
				t.Errorf("%d %s %q\nwant %q", a.status, a.header.Get("Content-Type"), a.body, c.body)
			}
		})
	}
}

func TestInferenceVerbose(t *testing.T) {
	const words = `"words":[{"word":" Text.","start":0,"end":1,"t_dtw":-1,"probability":0.5}],"temperature":0,"avg_logprob":-0.25,"no_speech_prob":0}`
	segment := func(start string) string {
		return `{"id":0,"text":" Text.",` + start + `"tokens":[1],`
	}
	head := `{"task":"transcribe","language":"german","duration":3,"text":" Text.\n","segments":[`
	languages := `,"detected_language":"german","detected_language_probability":0.75,"language_probabilities":{"de":0.75}`
	for name, c := range map[string]struct {
		parts []part
		want  string
	}{
		"as it is":       {nil, head + segment(`"start":0,"end":2,`) + words + `]` + languages + `}`},
		"all by default": {[]part{{name: "token_timestamps", value: "true"}, {name: "no_timestamps", value: "0"}}, head + segment(`"start":0,"end":2,`) + words + `]` + languages + `}`},
		"no times":       {[]part{{name: "no_timestamps", value: "true"}}, head + segment("") + strings.Replace(words, `"start":0,"end":1,"t_dtw":-1,`, "", 1) + `]` + languages + `}`},
		"no word times":  {[]part{{name: "token_timestamps", value: "no"}}, head + segment(`"start":0,"end":2,`) + strings.Replace(words, `"start":0,"end":1,"t_dtw":-1,`, "", 1) + `]` + languages + `}`},
		"no languages":   {[]part{{name: "no_language_probabilities", value: "yes"}}, head + segment(`"start":0,"end":2,`) + words + `]}`},
		"language given": {[]part{{name: "language", value: "de"}}, head + segment(`"start":0,"end":2,`) + words + `]}`},
		"translated":     {[]part{{name: "translate", value: "true"}}, strings.Replace(head, "transcribe", "translate", 1) + segment(`"start":0,"end":2,`) + words + `]` + languages + `}`},
		"language alone": {[]part{{name: "detect_language", value: "true"}, {name: "language", value: "en"}},
			`{"task":"transcribe","language":"german","duration":3,"text":"","segments":[]` + languages + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, speaks("de", 0.75))
			r.Service.Decoder = toneDecoder{sound(3)}
			a := post(t, r.start(t).URL+"/inference", append(c.parts, recording("file"), part{name: "response_format", value: "verbose_json"})...)
			if a.status != 200 || a.body != c.want {
				t.Errorf("%d %s\nwant %s", a.status, a.body, c.want)
			}
		})
	}
}

func TestInferenceOfSilence(t *testing.T) {
	r := newRig(t, talks)
	r.Service.Decoder = toneDecoder{sound(-3)}
	url := r.start(t).URL + "/inference"
	for format, want := range map[string]string{"json": `{"text":""}`, "text": "", "srt": "", "vtt": "WEBVTT\n\n",
		"verbose_json": `{"task":"transcribe","language":"","duration":3,"text":"","segments":[]}`} {
		if a := post(t, url, recording("file"), part{name: "response_format", value: format}); a.status != 200 || a.body != want {
			t.Errorf("%s: %d %q, want %q", format, a.status, a.body, want)
		}
	}
}

// TestInferenceFieldsReachTheEngine: what can be honoured is.
func TestInferenceFieldsReachTheEngine(t *testing.T) {
	r := newRig(t, talks)
	r.conf.Transcription.BeamSize = 3
	url := r.start(t).URL + "/inference"
	base := engine.WindowRequest{Model: "ggml-tiny.bin", BeamSize: 3, BestOf: 5, AudioCtx: 512, OnePass: true, TemperatureInc: -1}
	for name, c := range map[string]struct {
		fields [][2]string
		change func(*engine.WindowRequest)
	}{
		"none":     {nil, func(*engine.WindowRequest) {}},
		"defaults": {defaults(), func(*engine.WindowRequest) {}},
		"empty":    {[][2]string{{"temperature", ""}, {"language", ""}, {"max_len", ""}, {"translate", ""}, {"offset_t", ""}}, func(*engine.WindowRequest) {}},
		"all": {[][2]string{{"language", "de"}, {"prompt", "Öl"}, {"temperature", "0.40"}, {"temperature_inc", "0.0"}, {"translate", "1"}, {"beam_size", "5"}, {"best_of", "2"}, {"model", "whisper-1"}},
			func(w *engine.WindowRequest) {
				w.Language, w.Prompt, w.Temperature, w.Translate, w.BeamSize, w.BestOf = "de", "Öl", 0.4, true, 5, 2
			}},
		"greedy": {[][2]string{{"beam_size", "1"}}, func(w *engine.WindowRequest) { w.BeamSize = 1 }},
	} {
		parts := []part{recording("file")}
		for _, f := range c.fields {
			parts = append(parts, part{name: f[0], value: f[1]})
		}
		post(t, url, parts...).want(t, 200)
		want := base
		c.change(&want)
		got := r.engine.request()
		if got.Language == "de" && want.Language == "" {
			got.Language = "" // as the first window had it
		}
		if got != want {
			t.Errorf("%s: the engine got %+v, want %+v", name, got, want)
		}
	}
}

// defaults are the fields of whisper.cpp's form as its server has them by itself.
func defaults() [][2]string {
	return [][2]string{{"offset_t", "0"}, {"offset_n", "0"}, {"duration", "0"}, {"max_context", "-1"}, {"max_len", "0"}, {"best_of", "-1"}, {"beam_size", "-1"},
		{"audio_ctx", "0"}, {"word_thold", "0.01"}, {"entropy_thold", "2.40"}, {"logprob_thold", "-1.00"}, {"no_speech_thold", "0.6000000238418579"},
		{"debug_mode", "false"}, {"translate", "false"}, {"diarize", "false"}, {"tinydiarize", "0"}, {"split_on_word", "false"}, {"no_timestamps", "false"},
		{"token_timestamps", "true"}, {"language", "auto"}, {"detect_language", "false"}, {"prompt", ""}, {"carry_initial_prompt", "false"},
		{"response_format", "json"}, {"temperature", "0.00"}, {"temperature_inc", "0.20"}, {"suppress_non_speech", "false"}, {"suppress_nst", "false"},
		{"vad", "false"}, {"vad_threshold", "0.50"}, {"vad_min_speech_duration_ms", "250"}, {"vad_min_silence_duration_ms", "100"},
		{"vad_max_speech_duration_s", "340282346638528859811704183484516925440"}, {"vad_speech_pad_ms", "30"}, {"vad_samples_overlap", "0.10"}, {"no_language_probabilities", "false"}}
}

// TestInferenceDefaultsAreAll: no field of the form is without a default here.
func TestInferenceDefaultsAreAll(t *testing.T) {
	for _, f := range inferenceFields {
		if f.name != "model" && !slices.ContainsFunc(defaults(), func(d [2]string) bool { return d[0] == f.name }) {
			t.Errorf("%s has no default", f.name)
		}
		if f.doc == "" || f.only == nil && f.why != "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestInferenceStretch(t *testing.T) {
	r := newRig(t, talks)
	url := r.start(t).URL + "/inference"
	ask := func(fields ...part) answered {
		return post(t, url, append(fields, recording("file"), part{name: "response_format", value: "srt"})...)
	}
	a := ask(part{name: "offset_t", value: "15000"}, part{name: "duration", value: "10000"}, part{name: "offset_n", value: "7"})
	if a.status != 200 || !strings.HasPrefix(a.body, "8\n00:00:17,490 --> ") || strings.Count(a.body, "-->") != 1 {
		t.Errorf("%d %q", a.status, a.body)
	}
	if a := ask(part{name: "offset_t", value: "3600000"}); a.status != 200 || a.body != "" {
		t.Errorf("behind the end: %d %q", a.status, a.body)
	}
}

// TestInferenceRefusals: what cannot be honoured is refused by its name.
func TestInferenceRefusals(t *testing.T) {
	r := newRig(t, func(context.Context, int, engine.WindowRequest, func(engine.Event)) (engine.Done, error) {
		t.Error("the engine was asked")
		return engine.Done{}, nil
	})
	url := r.start(t).URL + "/inference"
	type refusal struct {
		parts []part
		field string
		says  string
	}
	field := func(name, value, says string) refusal {
		return refusal{[]part{recording("file"), {name: name, value: value}}, name, says}
	}
	table := []refusal{
		field("response_format", "bogus", "json, text, srt, vtt or verbose_json"), field("response_format", "tsv", "verbose_json"),
		field("language", "xx", "xx"), field("temperature", "hot", "0 to 1"), field("temperature", "1.5", "0 to 1"),
		field("temperature_inc", "0.4", "0.2, or 0"), field("temperature_inc", "x", "0.2, or 0"),
		field("translate", "perhaps", "true or false"), field("no_timestamps", "2", "true or false"), field("split_on_word", "maybe", "true or false"),
		field("vad", "on off", "true or false"), field("detect_language", "en", "true or false"), field("token_timestamps", "x", "true or false"),
		field("diarize", "true", "speakers"), field("tinydiarize", "1", "speakers"), field("suppress_nst", "true", "tokens"), field("suppress_non_speech", "yes", "tokens"),
		field("debug_mode", "true", "debugging"), field("max_context", "64", "carry_text"), field("max_len", "42", "segments"), field("audio_ctx", "768", "context"),
		field("word_thold", "0.5", "bounds"), field("entropy_thold", "2.8", "bounds"), field("logprob_thold", "-2", "bounds"), field("no_speech_thold", "NaN", "bounds"),
		field("vad_threshold", "0.6", "[vad] threshold"), field("vad_min_speech_duration_ms", "1", "[vad]"), field("vad_min_silence_duration_ms", "x", "[vad]"),
		field("vad_max_speech_duration_s", "10", "windows"), field("vad_speech_pad_ms", "400", "[vad]"), field("vad_samples_overlap", "1", "[vad]"),
		field("offset_t", "-1", "whole number"), field("offset_t", "1.5", "whole number"), field("duration", "9999999999", "whole number"),
		field("offset_n", "one", "whole number"), field("beam_size", "9", "from -1 to 8"), field("best_of", "100", "from -1 to 8"),
		field("prompt", "\xff", "UTF-8"), field("colour", "blue", "no field"), field("langauge", "en", "did you mean language"),
		{[]part{recording("file"), {name: "response_format", value: "srt"}, {name: "no_timestamps", value: "true"}}, "no_timestamps", "leaves nothing"},
		{[]part{{name: "language", value: "en"}}, "file", "no recording"},
		{[]part{{"file", "a.wav", ""}}, "file", "empty"},
		{[]part{{"file", "a.mp3", "bad"}}, "file", "not sound"},
		{[]part{recording("file"), {name: "language", value: "en"}, {name: "language", value: "de"}}, "language", "twice"},
		{[]part{recording("audio_file")}, "audio_file", "no field"},
	}
	for _, c := range table {
		a := post(t, url, c.parts...)
		a.want(t, 400)
		var e struct{ Error, Code, Field, Hint string }
		if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Code == "" || e.Field != c.field || !strings.Contains(e.Error+" "+e.Hint, c.says) {
			t.Errorf("%s: %v, %s; want %q on it", c.field, err, a.body, c.says)
		}
	}
	post(t, url, recording("file"), part{name: "model", value: "nothing"}).want(t, 404, `{"error":"`, `"code":"model_not_found"`)
}

func TestInferenceNeighbours(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	post(t, srv.URL+"/load", part{name: "model", value: "a.bin"}).want(t, 404, `{"error":"`)
	do(t, "GET", srv.URL+"/inference", nil).want(t, 405, `{"error":"`)
	do(t, "GET", srv.URL+"/", nil).want(t, 200, "<form")
}

// TestTextLines: a character that was cut between segments is whole again, and
// lines without text are none.
func TestTextLines(t *testing.T) {
	for name, c := range map[string]struct {
		segments []string
		plain    string
		leading  string
	}{
		"usual":            {[]string{" One.", " Two."}, "One.\nTwo.\n", " One.\n Two.\n"},
		"without spaces":   {[]string{"你好。", "再见。"}, "你好。\n再见。\n", "你好。\n再见。\n"},
		"empty ones":       {[]string{"", " ", " One.", "\n"}, "One.\n", " One.\n"},
		"a cut character":  {[]string{" a\xe4", "\xbd\xa0b"}, "a\n你b\n", " a\n你b\n"},
		"cut at the end":   {[]string{" a\xe4\xbd"}, "a\n\ufffd\ufffd\n", " a\n\ufffd\ufffd\n"},
		"no text":          {nil, "", ""},
		"control in it":    {[]string{" a\x00b\rc"}, "ab c\n", " ab c\n"},
		"space at the end": {[]string{" a ", "b"}, "a\nb\n", " a\nb\n"},
	} {
		for lead, want := range map[bool]string{false: c.plain, true: c.leading} {
			var b strings.Builder
			l := &textLines{w: &b, lead: lead}
			for _, s := range c.segments {
				if err := l.Segment(transcript.Segment{Text: s}); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(l.Header(), l.Close()); err != nil || b.String() != want {
				t.Errorf("%s: %q, %v; want %q", name, b.String(), err, want)
			}
		}
	}
}

// TestCueLines: what a dialect has otherwise touches its own line alone.
func TestCueLines(t *testing.T) {
	segments := []transcript.Segment{
		{Start: time.Second, End: 2 * time.Second, Text: " 7"},
		{Start: time.Hour - time.Second, End: time.Hour + time.Second, Text: " a --> b\n\nc"},
	}
	for name, c := range map[string]struct {
		begin func(io.Writer) (lineWriter, error)
		want  string
	}{
		"Whisper's vtt": {func(w io.Writer) (lineWriter, error) {
			return newCueLines(transcript.VTT, &cueWriter{w: w, times: withoutHours}, false)
		}, "WEBVTT\n\n00:01.000 --> 00:02.000\n7\n\n59:59.000 --> 01:00:01.000\na --&gt; b c\n\n"},
		"whisper.cpp's srt": {func(w io.Writer) (lineWriter, error) {
			return newCueLines(transcript.SRT, &cueWriter{w: w, offset: 4}, true)
		}, "5\n00:00:01,000 --> 00:00:02,000\n 7\n\n6\n00:59:59,000 --> 01:00:01,000\n a -> b c\n\n"},
	} {
		var b strings.Builder
		if err := inLines("", c.begin).whole(&b, &transcript.Transcript{Segments: segments}); err != nil || b.String() != c.want {
			t.Errorf("%s: %q, %v\nwant %q", name, b.String(), err, c.want)
		}
		if err := inLines("", c.begin).whole(failingWriter{}, &transcript.Transcript{Segments: segments}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: %v, want the writer's error", name, err)
		}
	}
	if err := inLines("", streamed(transcript.JSON)).whole(io.Discard, &transcript.Transcript{}); err == nil {
		t.Error("JSON was written in lines")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
