//go:build e2e

package conformance

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The doors of other servers.
const (
	asr       = "/asr"
	detection = "/detect-language"
	inference = "/inference"
)

// asked is a request that must succeed.
func asked(t *testing.T, path string, parts ...part) answer {
	t.Helper()
	u, err := url.Parse(base(t))
	if err != nil {
		t.Fatal(err)
	}
	a, err := bad{path: path, parts: parts}.send(u.Host, setting(t, "WA_KEY"))
	if err != nil || a.status != 200 {
		t.Fatalf("%s: %v, status %d: %.300s", path, err, a.status, a.body)
	}
	return a
}

// as16k is the clip as 16 kHz mono WAV, and its bare samples, made as Bazarr
// makes them (custom_libs/subliminal_patch/providers/whisperai.py).
func (c clip) as16k(t *testing.T) (wav, bare clip) {
	t.Helper()
	in := filepath.Join(t.TempDir(), c.name)
	if err := os.WriteFile(in, c.data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "ffmpeg", "-nostdin", "-v", "error", "-i", in,
		"-f", "s16le", "-acodec", "pcm_s16le", "-ac", "1", "-ar", "16000", "-af", "aresample=async=1", "-").Output()
	if err != nil || len(out) == 0 {
		t.Fatalf("ffmpeg: %v, %d bytes", err, len(out))
	}
	return clip{name: "speech.wav", text: c.text, data: asWAV(out)}, clip{name: "audio_file", text: c.text, data: out}
}

// asWAV puts a header in front of samples.
func asWAV(samples []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32([]byte("RIFF"), uint32(36+len(samples)))
	b = append(b, "WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00\x00\x7d\x00\x00\x02\x00\x10\x00data"...)
	return append(le.AppendUint32(b, uint32(len(samples))), samples...)
}

// under is the clip as the file of a form.
func (c clip) under(field string) part { return part{field, c.name, string(c.data)} }

// speeches are recordings in languages with spaces and without, and one of
// several windows; the project's own alone where there are no others.
func speeches(t *testing.T) []clip {
	t.Helper()
	ref := reference(t)
	list := []clip{ref}
	_, joined := ref.as16k(t)
	for _, name := range []string{"de_thorsten_03.wav", "ja_leopard.wav", "en_jfk.wav"} {
		c, here := shared(t, name)
		switch {
		case !here:
			t.Logf("without %s: ../shared/speech is not beside this checkout", name)
		case strings.HasPrefix(name, "en_"):
			const pause = 8 * 2 * 16000 // bytes of 8 s: what follows is a window of its own
			_, bare := c.as16k(t)
			list = append(list, clip{name: "joined.wav", data: asWAV(append(append(joined.data, make([]byte, pause)...), bare.data...))})
		default:
			list = append(list, c)
		}
	}
	return list
}

// verbose is what verbose_json says, of it what all doors have.
type verbose struct {
	Text     string
	Language string
	Segments []struct {
		Text       string
		Start, End float64
	}
}

func decoded[T any](t *testing.T, body []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %.300s", err, body)
	}
	return v
}

// TestOneTextThroughEveryDoor: the same bytes, but for the white space that a
// dialect puts around segments.
func TestOneTextThroughEveryDoor(t *testing.T) {
	for _, c := range speeches(t) {
		t.Run(c.name, func(t *testing.T) {
			told := map[string]string{}
			openai := func(format string) string {
				if told[format] == "" {
					told[format] = string(asked(t, transcriptions, c.under("file"), field("response_format", format)).body)
				}
				return told[format]
			}
			text := strings.TrimSuffix(openai("text"), "\n")
			v := decoded[verbose](t, []byte(openai("verbose_json")))
			if v.Text != text || len(v.Segments) == 0 {
				t.Fatalf("text %q, verbose_json %q in %d segments", text, v.Text, len(v.Segments))
			}
			var trimmed, lines string
			for _, s := range v.Segments {
				trimmed += strings.TrimSpace(s.Text) + "\n"
				lines += s.Text + "\n"
			}
			c.wantASR(t, openai, text, trimmed)
			c.wantInference(t, openai, text, lines)
			for _, path := range []string{original, live} {
				if got := decoded[verbose](t, asked(t, path, c.under("audio")).body).Text; got != text {
					t.Errorf("%s: %q, want %q", path, got, text)
				}
			}
		})
	}
}

// wantASR: txt has a line for each segment, json's text the space that Whisper
// begins with, vtt no hours; srt and tsv are the same.
func (c clip) wantASR(t *testing.T, openai func(string) string, text, trimmed string) {
	t.Helper()
	ask := func(output string) string { return string(asked(t, asr+"?output="+output, c.under("audio_file")).body) }
	if got := ask("txt"); got != trimmed {
		t.Errorf("/asr txt: %q, want %q", got, trimmed)
	}
	for _, format := range []string{"srt", "tsv"} {
		if got, want := ask(format), openai(format); got != want {
			t.Errorf("/asr %s: %q, want %q", format, got, want)
		}
	}
	want := strings.ReplaceAll(strings.ReplaceAll(openai("vtt"), "\n00:", "\n"), "> 00:", "> ")
	if got := ask("vtt"); got != want {
		t.Errorf("/asr vtt: %q, want %q", got, want)
	}
	type raw struct {
		Text     string
		Segments json.RawMessage
	}
	whole, v := decoded[raw](t, []byte(ask("json"))), decoded[raw](t, []byte(openai("verbose_json")))
	if strings.TrimPrefix(whole.Text, " ") != text || !bytes.Equal(whole.Segments, v.Segments) {
		t.Errorf("/asr json: %q with %s, want %q with %s", whole.Text, whole.Segments, text, v.Segments)
	}
}

// wantInference: each segment has the space that it begins with, in cues too,
// and in texts a line of its own.
func (c clip) wantInference(t *testing.T, openai func(string) string, text, lines string) {
	t.Helper()
	ask := func(format string) string {
		return string(asked(t, inference, c.under("file"), field("response_format", format)).body)
	}
	if got := ask("text"); got != lines {
		t.Errorf("/inference text: %q, want %q", got, lines)
	}
	for _, format := range []string{"json", "verbose_json"} {
		if got := decoded[verbose](t, []byte(ask(format))).Text; got != lines || strings.TrimSpace(strings.ReplaceAll(got, "\n", "")) != text {
			t.Errorf("/inference %s: %q, want %q", format, got, lines)
		}
	}
	for _, format := range []string{"srt", "vtt"} {
		got := strings.ReplaceAll(ask(format), "\n ", "\n")
		if want := openai(format); got != want {
			t.Errorf("/inference %s: %q, want %q", format, got, want)
		}
	}
}

// TestAsBazarrAsks: bare samples, under the names and parameters that it sends.
func TestAsBazarrAsks(t *testing.T) {
	languages := map[string]string{"en": "english", "de": "german", "ja": "japanese"}
	for _, c := range speeches(t) {
		language, _, _ := strings.Cut(c.name, "_")
		if languages[language] == "" {
			language = "en"
		}
		t.Run(c.name, func(t *testing.T) {
			wav, bare := c.as16k(t)
			type detected struct {
				Name       string  `json:"detected_language"`
				Code       string  `json:"language_code"`
				Confidence float64 `json:"confidence"`
			}
			a := asked(t, detection+"?encode=false&video_file=%2Ffilms%2Fa.mkv", bare.under("audio_file"))
			got := decoded[detected](t, a.body)
			if got.Code != language || got.Name != languages[language] || got.Confidence < 0.2 || got.Confidence > 1 {
				t.Errorf("detected %s, want %s", a.body, language)
			}
			if other := asked(t, detection, wav.under("audio_file")); !bytes.Equal(a.body, other.body) {
				t.Errorf("of the same sound in a WAV: %s and %s", a.body, other.body)
			}
			a = asked(t, asr+"?task=transcribe&language="+got.Code+"&output=srt&encode=false", bare.under("audio_file"))
			want := asked(t, transcriptions, wav.under("file"), field("language", got.Code), field("response_format", "srt"))
			if !bytes.Equal(a.body, want.body) || len(a.body) == 0 {
				t.Errorf("of samples %q, of a WAV %q", a.body, want.body)
			}
			if disposition := a.header.Get("Content-Disposition"); disposition != `attachment; filename="audio_file.srt"` {
				t.Errorf("Content-Disposition %s", disposition)
			}
		})
	}
}

func TestASRTranslates(t *testing.T) {
	c, want := foreign(t)
	if a := asked(t, asr+"?task=translate&output=txt", c.under("audio_file")); !want.Match(a.body) {
		t.Errorf("translated %q", a.body)
	}
	if a := asked(t, inference, c.under("file"), field("translate", "true"), field("response_format", "text")); !want.Match(a.body) {
		t.Errorf("translated %q", a.body)
	}
}

// TestDialectWords: the words of a segment are its text, in order and in time.
func TestDialectWords(t *testing.T) {
	type word struct {
		Word        string
		Start, End  float64
		Probability float64
		DTW         *int `json:"t_dtw"`
	}
	type result struct {
		Language string
		Detected string  `json:"detected_language"`
		Prob     float64 `json:"detected_language_probability"`
		Segments []struct {
			Text  string
			Words []word
		}
	}
	ref := reference(t)
	for path, body := range map[string][]byte{
		asr:       asked(t, asr+"?output=json&word_timestamps=true", ref.under("audio_file")).body,
		inference: asked(t, inference, ref.under("file"), field("response_format", "verbose_json")).body,
	} {
		r := decoded[result](t, body)
		last := 0.0
		for _, s := range r.Segments {
			joined := ""
			for _, w := range s.Words {
				joined += w.Word
				if w.Start < last || w.End < w.Start || w.Probability <= 0 || w.Probability > 1 || (w.DTW != nil) != (path == inference) {
					t.Errorf("%s: %+v after %v", path, w, last)
				}
				last = w.Start
			}
			if joined != s.Text {
				t.Errorf("%s: the words say %q, the segment %q", path, joined, s.Text)
			}
		}
		if want := map[string]string{asr: "en", inference: "english"}[path]; len(r.Segments) == 0 || r.Language != want {
			t.Errorf("%s: %d segments in %s, want %s", path, len(r.Segments), r.Language, want)
		}
		if path == inference && (r.Detected != "english" || r.Prob <= 0.5 || r.Prob > 1) {
			t.Errorf("%s: detected %s, %v sure", path, r.Detected, r.Prob)
		}
	}
}

// TestInferenceStretch: what is outside the stretch is not heard.
func TestInferenceStretch(t *testing.T) {
	c, here := shared(t, "en_jfk.wav")
	if !here {
		t.Skip("../shared/speech is not beside this checkout")
	}
	a := asked(t, inference, c.under("file"), field("response_format", "srt"), field("offset_t", "3000"), field("duration", "5000"), field("offset_n", "7"))
	said := strings.ToLower(string(a.body))
	if !strings.HasPrefix(said, "8\n00:00:0") || strings.Contains(said, "fellow") || !strings.Contains(said, "ask") {
		t.Errorf("from 3 to 8 s: %q", a.body)
	}
}
