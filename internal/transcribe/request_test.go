package transcribe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/transcript"
)

// installed is a store in which the models of names are there, by their names alone.
func installed(t *testing.T, names ...string) *model.Store {
	t.Helper()
	s := &model.Store{Dir: t.TempDir()}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(s.Dir, "ggml-"+name+".bin"), []byte("not looked at"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func settings(model string) *config.Config {
	c := config.Default()
	c.Models.Default = model
	return c
}

func TestRequestJob(t *testing.T) {
	store := installed(t, "tiny", "base.en", "large-v3")
	for name, c := range map[string]struct {
		q        Request
		settings func(*config.Config)
		want     Job
	}{
		"nothing asked": {want: Job{Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Transcribe, BestOf: 5}},
		"everything asked": {
			q: Request{Model: "large-v3", Language: "de", Prompt: "names", Temperature: "0.4", Task: transcript.Translate, Words: true},
			want: Job{Model: "large-v3", ModelFile: "ggml-large-v3.bin", Language: "de", Prompt: "names", Temperature: 0.4,
				Task: transcript.Translate, Words: true, BestOf: 5},
		},
		"alias":               {q: Request{Model: "large"}, want: Job{Model: "large-v3", ModelFile: "ggml-large-v3.bin", Task: transcript.Transcribe, BestOf: 5}},
		"file name":           {q: Request{Model: "ggml-tiny.bin"}, want: Job{Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Transcribe, BestOf: 5}},
		"language's name":     {q: Request{Language: "German"}, want: Job{Language: "de", Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Transcribe, BestOf: 5}},
		"auto":                {q: Request{Language: "auto"}, want: Job{Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Transcribe, BestOf: 5}},
		"temperature 0":       {q: Request{Temperature: "0"}, want: Job{Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Transcribe, BestOf: 5}},
		"temperature 1":       {q: Request{Temperature: "1.0"}, want: Job{Temperature: 1, Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Transcribe, BestOf: 5}},
		".en detects nothing": {q: Request{Model: "base.en"}, want: Job{Model: "base.en", ModelFile: "ggml-base.en.bin", Language: "en", Task: transcript.Transcribe, BestOf: 5}},
		".en with English":    {q: Request{Model: "base.en", Language: "english"}, want: Job{Model: "base.en", ModelFile: "ggml-base.en.bin", Language: "en", Task: transcript.Transcribe, BestOf: 5}},
		"Cantonese":           {q: Request{Model: "large-v3", Language: "yue"}, want: Job{Model: "large-v3", ModelFile: "ggml-large-v3.bin", Language: "yue", Task: transcript.Transcribe, BestOf: 5}},
		"the settings' wishes": {
			settings: func(c *config.Config) {
				c.Transcription.Language, c.Transcription.BeamSize, c.Transcription.BestOf, c.Engine.Threads = "fr", 4, 2, 3
			},
			want: Job{Model: "tiny", ModelFile: "ggml-tiny.bin", Language: "fr", Task: transcript.Transcribe, BeamSize: 4, BestOf: 2, Threads: 3},
		},
		"the settings' ways": {
			settings: func(c *config.Config) {
				c.VAD.Detector, c.VAD.Threshold = "loudness", 30
				c.Transcription.Detect, c.Transcription.CarryText = "window", true
				c.Transcription.ShortPass, c.Transcription.SecondLook = false, false
			},
			want: Job{Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Transcribe, BestOf: 5, ByLoudness: true, Threshold: 0.3,
				FullContext: true, OneLook: true, PreviousText: true, EachLanguage: true},
		},
		"auto against the settings": {
			q:        Request{Language: "auto"},
			settings: func(c *config.Config) { c.Transcription.Language = "fr" },
			want:     Job{Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Transcribe, BestOf: 5},
		},
	} {
		t.Run(name, func(t *testing.T) {
			conf := settings("tiny")
			if c.settings != nil {
				c.settings(conf)
			}
			if c.want.Threshold == 0 {
				c.want.Threshold = 0.5
			}
			got, err := c.q.Job(store, conf)
			if got.Asked == "" {
				t.Error("what was asked is not kept")
			}
			got.Asked = ""
			if err != nil || got != c.want {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

func TestRequestJobRefused(t *testing.T) {
	store := installed(t, "tiny", "base.en", "mine")
	long := strings.Repeat("9", 500)
	for name, c := range map[string]struct {
		q     Request
		kind  fault.Kind
		field string
		says  string
	}{
		"unknown model":       {Request{Model: "huge"}, fault.NotFound, "model", "huge"},
		"model that is a way": {Request{Model: "../../etc/passwd"}, fault.NotFound, "model", "passwd"},
		"not installed":       {Request{Model: "small"}, fault.NotFound, "model", "small"},
		"no speech model":     {Request{Model: "silero-v6.2.0"}, fault.BadInput, "model", "silero"},
		"no model at all":     {Request{Model: "mine"}, fault.Unavailable, "", "mine"},
		"unknown language":    {Request{Language: "klingon"}, fault.BadInput, "language", "klingon"},
		"regional language":   {Request{Language: "pt-BR"}, fault.BadInput, "language", "pt-BR"},
		"language too new":    {Request{Language: "yue"}, fault.BadInput, "language", "cantonese"},
		".en, German":         {Request{Model: "base.en", Language: "de"}, fault.BadInput, "language", "english only"},
		".en, translation":    {Request{Model: "base.en", Task: transcript.Translate}, fault.BadInput, "model", "cannot translate"},
		"temperature abc":     {Request{Temperature: "abc"}, fault.BadInput, "temperature", "0 to 1"},
		"temperature 1.5":     {Request{Temperature: "1.5"}, fault.BadInput, "temperature", "0 to 1"},
		"temperature -0.1":    {Request{Temperature: "-0.1"}, fault.BadInput, "temperature", "0 to 1"},
		"temperature NaN":     {Request{Temperature: "NaN"}, fault.BadInput, "temperature", "0 to 1"},
		"temperature Inf":     {Request{Temperature: "Inf"}, fault.BadInput, "temperature", "0 to 1"},
		"temperature 1e999":   {Request{Temperature: "1e999"}, fault.BadInput, "temperature", "0 to 1"},
		"temperature, long":   {Request{Temperature: long}, fault.BadInput, "temperature", "…"},
		"temperature, space":  {Request{Temperature: " "}, fault.BadInput, "temperature", "0 to 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.q.Job(store, settings("tiny"))
			f, ok := err.(*fault.Error)
			if !ok || f.Kind != c.kind || f.Field != c.field {
				t.Fatalf("got %#v, want a fault of status %d on %q", err, c.kind.Status(), c.field)
			}
			if !strings.Contains(strings.ToLower(f.Message), strings.ToLower(c.says)) || len(f.Message) > 200 {
				t.Errorf("message %q does not say %q, or is too long", f.Message, c.says)
			}
		})
	}
}
