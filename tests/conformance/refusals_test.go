//go:build e2e

package conformance

import (
	"errors"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// wantError checks a refusal as the library sees it. An array's param may end in [].
func wantError(t *testing.T, err error, status int, param, code string) {
	t.Helper()
	var e *openai.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want status %d", err, status)
	}
	if e.StatusCode != status || e.Message == "" || e.Type == "" {
		t.Errorf("%d %s, want status %d with message and type", e.StatusCode, e.RawJSON(), status)
	}
	if param != "" && strings.TrimSuffix(e.Param, "[]") != param {
		t.Errorf("param %q, want %q: %s", e.Param, param, e.Message)
	}
	if code != "" && e.Code != code {
		t.Errorf("code %q, want %q: %s", e.Code, code, e.Message)
	}
}

// refused is a request for a transcription that must fail.
func refused(t *testing.T, p openai.AudioTranscriptionNewParams, status int, param, code string, opts ...option.RequestOption) {
	t.Helper()
	c := client(t, opts...)
	_, err := c.Audio.Transcriptions.New(t.Context(), p)
	wantError(t, err, status, param, code)
}

func TestUnknownLanguage(t *testing.T) {
	p := params(reference(t), openai.AudioResponseFormatJSON)
	p.Language = openai.String("xx")
	refused(t, p, 400, "language", "")
}

func TestStreamingRefusal(t *testing.T) {
	p := params(clip{name: "speech.mp3", data: []byte("this is no sound")}, openai.AudioResponseFormatJSON)
	c := client(t)
	stream := c.Audio.Transcriptions.NewStreaming(t.Context(), p)
	defer stream.Close()
	for stream.Next() {
		t.Errorf("event %s", stream.Current().RawJSON())
	}
	wantError(t, stream.Err(), 400, "file", "")
}

func TestUnknownModel(t *testing.T) {
	c := client(t)
	_, err := c.Models.Get(t.Context(), "no-such-model")
	wantError(t, err, 404, "model", "model_not_found")
	p := params(reference(t), openai.AudioResponseFormatJSON)
	p.Model = "no-such-model"
	refused(t, p, 404, "model", "model_not_found")
}

func TestWrongKey(t *testing.T) {
	wrong := option.WithAPIKey("sk-this-is-not-a-key")
	refused(t, params(reference(t), openai.AudioResponseFormatJSON), 401, "", "invalid_api_key", wrong)
	c := client(t, wrong)
	_, err := c.Models.List(t.Context())
	wantError(t, err, 401, "", "invalid_api_key")
}

func TestWrongFormat(t *testing.T) {
	for _, format := range []openai.AudioResponseFormat{"yaml", "JSON ", openai.AudioResponseFormatDiarizedJSON} {
		refused(t, params(reference(t), format), 400, "response_format", "")
	}
}

func TestUndecodableFiles(t *testing.T) {
	for _, c := range []clip{
		{name: "speech.mp3", data: []byte(strings.Repeat("this is a text and no sound\n", 200))},
		{name: "empty.wav"},
		{name: "head.wav", data: reference(t).data[:20]},
	} {
		refused(t, params(c, openai.AudioResponseFormatJSON), 400, "file", "")
	}
}

func TestMissingFile(t *testing.T) {
	refused(t, openai.AudioTranscriptionNewParams{Model: whisper1}, 400, "file", "")
}

// What cannot be honoured is refused by name, never ignored.
func TestFieldsThatCannotBeHonoured(t *testing.T) {
	for name, set := range map[string]func(*openai.AudioTranscriptionNewParams){
		"keywords":            func(p *openai.AudioTranscriptionNewParams) { p.Keywords = []string{"a"} },
		"languages":           func(p *openai.AudioTranscriptionNewParams) { p.Languages = []string{"en", "de"} },
		"known_speaker_names": func(p *openai.AudioTranscriptionNewParams) { p.KnownSpeakerNames = []string{"a"} },
		"include":             func(p *openai.AudioTranscriptionNewParams) { p.Include = []openai.TranscriptionInclude{"waveform"} },
	} {
		p := params(reference(t), openai.AudioResponseFormatJSON)
		set(&p)
		refused(t, p, 400, name, "")
	}
}
