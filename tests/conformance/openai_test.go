//go:build e2e

package conformance

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared/constant"
)

// Names that programs have built in, whatever the library says of their future.
const (
	whisper1  = "whisper-1"
	gpt4o     = "gpt-4o-transcribe"
	gpt4oMini = "gpt-4o-mini-transcribe"
)

// params is a request for c in format.
func params(c clip, format openai.AudioResponseFormat) openai.AudioTranscriptionNewParams {
	return openai.AudioTranscriptionNewParams{File: c.reader(), Model: whisper1, ResponseFormat: format}
}

// transcribe is one request that must succeed.
func transcribe(t *testing.T, p openai.AudioTranscriptionNewParams) *openai.AudioTranscriptionNewResponseUnion {
	t.Helper()
	c := client(t)
	r, err := c.Audio.Transcriptions.New(t.Context(), p)
	if err != nil {
		t.Fatal(explain(err))
	}
	return r
}

// text is a request for a format that is no JSON.
func text(t *testing.T, c clip, format openai.AudioResponseFormat) string {
	t.Helper()
	var answer string
	cl := client(t)
	if err := cl.Post(t.Context(), "audio/transcriptions", params(c, format), &answer); err != nil {
		t.Fatal(explain(err))
	}
	return answer
}

// explain gives the library's error with the server's words.
func explain(err error) string {
	var e *openai.Error
	if errors.As(err, &e) {
		return e.Error() + " " + e.RawJSON()
	}
	return err.Error()
}

func TestJSON(t *testing.T) {
	ref := reference(t)
	r := transcribe(t, params(ref, openai.AudioResponseFormatJSON)).AsTranscription()
	wantSaid(t, r.Text, ref)
	if strings.TrimSpace(r.Text) != r.Text {
		t.Errorf("space around %q", r.Text)
	}
	if r.JSON.Usage.Valid() && (r.Usage.Type != "duration" || r.Usage.Seconds <= 0) {
		t.Errorf("usage %s", r.Usage.RawJSON())
	}
}

func TestDefaultFormatIsJSON(t *testing.T) {
	ref := reference(t)
	wantSaid(t, transcribe(t, params(ref, "")).Text, ref)
}

// The text is the same through every format.
func TestTextIsTheJSONsText(t *testing.T) {
	ref := reference(t)
	want := transcribe(t, params(ref, openai.AudioResponseFormatJSON)).Text
	if got := text(t, ref, openai.AudioResponseFormatText); got != want+"\n" {
		t.Errorf("text %q, want %q and a line feed", got, want)
	}
}

var (
	srtTime = regexp.MustCompile(`^(\d{2}:\d{2}:\d{2},\d{3}) --> (\d{2}:\d{2}:\d{2},\d{3})$`)
	vttTime = regexp.MustCompile(`^((?:\d{2,}:)?\d{2}:\d{2}\.\d{3}) --> ((?:\d{2,}:)?\d{2}:\d{2}\.\d{3})$`)
)

// cues checks the blocks of a subtitle file and gives their text.
func cues(t *testing.T, blocks []string, timing *regexp.Regexp, numbered bool) string {
	t.Helper()
	var all []string
	for _, b := range blocks {
		lines := strings.Split(strings.TrimSpace(b), "\n")
		if numbered {
			lines = lines[1:]
		}
		if len(lines) < 2 {
			t.Fatalf("cue %q has no text", b)
		}
		m := timing.FindStringSubmatch(lines[0])
		if m == nil || m[1] > m[2] {
			t.Errorf("cue times %q", lines[0])
		}
		all = append(all, lines[1:]...)
	}
	return strings.Join(all, " ")
}

func TestSRT(t *testing.T) {
	ref := reference(t)
	answer := text(t, ref, openai.AudioResponseFormatSRT)
	blocks := strings.Split(strings.TrimSpace(answer), "\n\n")
	if !strings.HasPrefix(blocks[0], "1\n") {
		t.Errorf("begins with %q, want cue 1", blocks[0])
	}
	wantSaid(t, cues(t, blocks, srtTime, true), ref)
}

func TestVTT(t *testing.T) {
	ref := reference(t)
	answer := text(t, ref, openai.AudioResponseFormatVTT)
	head, rest, _ := strings.Cut(strings.TrimSpace(answer), "\n\n")
	if head != "WEBVTT" {
		t.Errorf("begins with %q, want WEBVTT", head)
	}
	wantSaid(t, cues(t, strings.Split(rest, "\n\n"), vttTime, false), ref)
}

func TestVerboseWithSegments(t *testing.T) {
	ref := reference(t)
	r := transcribe(t, params(ref, openai.AudioResponseFormatVerboseJSON)).AsTranscriptionVerbose()
	wantSaid(t, r.Text, ref)
	if r.Language != "english" || r.Duration < 0.5 || len(r.Segments) == 0 || len(r.Words) != 0 {
		t.Errorf("language %q, duration %v, %d segments, %d words; want english, the clip's length, segments and no words",
			r.Language, r.Duration, len(r.Segments), len(r.Words))
	}
	joined, last := "", 0.0
	for i, s := range r.Segments {
		if s.ID != int64(i) || s.Start < last-0.01 || s.End < s.Start || s.End > r.Duration+0.5 {
			t.Errorf("segment %d: id %d from %v to %v of %v", i, s.ID, s.Start, s.End, r.Duration)
		}
		if s.AvgLogprob > 0 || s.NoSpeechProb < 0 || s.NoSpeechProb > 1 || s.CompressionRatio <= 0 || len(s.Tokens) == 0 {
			t.Errorf("segment %d: %s", i, s.RawJSON())
		}
		for name, field := range map[string]bool{"seek": s.JSON.Seek.Valid(), "temperature": s.JSON.Temperature.Valid(),
			"avg_logprob": s.JSON.AvgLogprob.Valid(), "no_speech_prob": s.JSON.NoSpeechProb.Valid()} {
			if !field {
				t.Errorf("segment %d lacks %s", i, name)
			}
		}
		last = s.Start
		joined += s.Text
	}
	if strings.TrimSpace(joined) != r.Text {
		t.Errorf("the segments say %q, the text %q", joined, r.Text)
	}
}

func TestVerboseWithWords(t *testing.T) {
	ref := reference(t)
	for _, c := range []struct {
		ask      []string
		segments bool
	}{{[]string{"word"}, false}, {[]string{"word", "segment"}, true}} {
		p := params(ref, openai.AudioResponseFormatVerboseJSON)
		p.TimestampGranularities = c.ask
		r := transcribe(t, p).AsTranscriptionVerbose()
		var said []string
		last := 0.0
		for _, w := range r.Words {
			if w.Start < last-0.01 || w.End < w.Start || w.End > r.Duration+0.5 {
				t.Errorf("word %s from %v to %v of %v", w.Word, w.Start, w.End, r.Duration)
			}
			last = w.Start
			said = append(said, w.Word)
		}
		wantSaid(t, strings.Join(said, " "), ref)
		if got := len(r.Segments) > 0; got != c.segments {
			t.Errorf("%v: segments %t, want %t", c.ask, got, c.segments)
		}
	}
}

func TestLanguage(t *testing.T) {
	ref := reference(t)
	p := params(ref, openai.AudioResponseFormatVerboseJSON)
	p.Language = openai.String("en")
	r := transcribe(t, p).AsTranscriptionVerbose()
	wantSaid(t, r.Text, ref)
	if r.Language != "english" {
		t.Errorf("language %q, want english", r.Language)
	}
}

func TestGermanIsDetected(t *testing.T) {
	c, here := shared(t, "de_thorsten_03.wav")
	if !here {
		t.Skip("no German recording: ../shared/speech is not beside this checkout")
	}
	c.text = "europa und asien zusammengenommen wird auch als eurasien bezeichnet"
	r := transcribe(t, params(c, openai.AudioResponseFormatVerboseJSON)).AsTranscriptionVerbose()
	wantMostly(t, r.Text, c)
	if r.Language != "german" {
		t.Errorf("language %q, want german", r.Language)
	}
}

func TestJFK(t *testing.T) {
	c, here := shared(t, "en_jfk.wav")
	if !here {
		t.Skip("../shared/speech is not beside this checkout")
	}
	c.text = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
	wantSaid(t, transcribe(t, params(c, openai.AudioResponseFormatJSON)).Text, c)
}

func TestPrompt(t *testing.T) {
	ref := reference(t)
	p := params(ref, openai.AudioResponseFormatJSON)
	p.Prompt = openai.String("A clear sentence in English, with punctuation.")
	wantMostly(t, transcribe(t, p).Text, ref)
}

func TestTemperature(t *testing.T) {
	ref := reference(t)
	for _, v := range []float64{0, 0.4} {
		p := params(ref, openai.AudioResponseFormatJSON)
		p.Temperature = openai.Float(v)
		wantMostly(t, transcribe(t, p).Text, ref)
	}
	for _, v := range []float64{1.5, -0.1} {
		p := params(ref, openai.AudioResponseFormatJSON)
		p.Temperature = openai.Float(v)
		refused(t, p, 400, "temperature", "")
	}
}

// foreign is a clip that needs translating, the reference where there is none.
func foreign(t *testing.T) (c clip, want *regexp.Regexp) {
	t.Helper()
	if c, here := shared(t, "de_thorsten_03.wav"); here {
		return c, regexp.MustCompile(`(?i)euro|asia|eurasi`)
	}
	return reference(t), regexp.MustCompile(`\w`)
}

func TestTranslation(t *testing.T) {
	c, want := foreign(t)
	cl := client(t)
	//lint:ignore SA1019 the appliance goes on translating
	r, err := cl.Audio.Translations.New(t.Context(), openai.AudioTranslationNewParams{File: c.reader(), Model: whisper1})
	if err != nil {
		t.Fatal(explain(err))
	}
	if !want.MatchString(r.Text) || regexp.MustCompile(`(?i)\bund\b`).MatchString(r.Text) {
		t.Errorf("translated %q", r.Text)
	}
}

func TestTranslationAsText(t *testing.T) {
	c, want := foreign(t)
	var answer string
	cl := client(t)
	err := cl.Post(t.Context(), "audio/translations", openai.AudioTranslationNewParams{File: c.reader(), Model: whisper1,
		ResponseFormat: openai.AudioTranslationNewParamsResponseFormatText}, &answer)
	if err != nil {
		t.Fatal(explain(err))
	}
	if !want.MatchString(answer) || strings.HasPrefix(answer, "{") {
		t.Errorf("translated %q", answer)
	}
}

func TestTranslationVerbose(t *testing.T) {
	c, want := foreign(t)
	var answer openai.TranscriptionVerbose
	cl := client(t)
	err := cl.Post(t.Context(), "audio/translations", openai.AudioTranslationNewParams{File: c.reader(), Model: whisper1,
		ResponseFormat: openai.AudioTranslationNewParamsResponseFormatVerboseJSON}, &answer)
	if err != nil {
		t.Fatal(explain(err))
	}
	if !want.MatchString(answer.Text) || len(answer.Segments) == 0 || answer.Language == "" || answer.Duration <= 0 {
		t.Errorf("translated %s", answer.RawJSON())
	}
}

func TestStreaming(t *testing.T) {
	ref := reference(t)
	c := client(t)
	stream := c.Audio.Transcriptions.NewStreaming(t.Context(), params(ref, openai.AudioResponseFormatJSON))
	defer stream.Close()
	joined, done, deltas := "", "", 0
	for stream.Next() {
		switch e := stream.Current(); e.Type {
		case "transcript.text.delta":
			if done != "" {
				t.Error("a delta after done")
			}
			joined += e.Delta
			deltas++
		case "transcript.text.done":
			done = e.AsTranscriptTextDone().Text
		default:
			t.Errorf("event %q", e.Type)
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(explain(err))
	}
	wantSaid(t, done, ref)
	if joined != done || deltas == 0 {
		t.Errorf("%d deltas add up to %q, done says %q", deltas, joined, done)
	}
}

func TestModels(t *testing.T) {
	c := client(t)
	page, err := c.Models.List(t.Context())
	if err != nil {
		t.Fatal(explain(err))
	}
	for _, m := range page.Data {
		if m.ID == "" || m.OwnedBy == "" || string(m.Object) != "model" || !m.JSON.Created.Valid() {
			t.Errorf("model %s", m.RawJSON())
		}
	}
	for _, id := range []string{"tiny", whisper1, gpt4o} {
		if !slices.ContainsFunc(page.Data, func(m openai.Model) bool { return m.ID == id }) {
			t.Errorf("the list lacks %s", id)
		}
		m, err := c.Models.Get(t.Context(), id)
		if err != nil {
			t.Fatal(explain(err))
		}
		if m.ID != id || m.OwnedBy == "" {
			t.Errorf("asked for %s, got %s", id, m.RawJSON())
		}
	}
}

func TestModelNames(t *testing.T) {
	ref := reference(t)
	for _, name := range []openai.AudioModel{"tiny", openai.AudioModelGPTTranscribe, gpt4o, gpt4oMini} {
		p := params(ref, openai.AudioResponseFormatJSON)
		p.Model = name
		wantSaid(t, transcribe(t, p).Text, ref)
	}
}

func TestLogprobs(t *testing.T) {
	ref := reference(t)
	p := params(ref, openai.AudioResponseFormatJSON)
	p.Model = gpt4o
	p.Include = []openai.TranscriptionInclude{openai.TranscriptionIncludeLogprobs}
	r := transcribe(t, p).AsTranscription()
	var said []byte
	for _, l := range r.Logprobs {
		if l.Logprob > 0 || math.IsNaN(l.Logprob) || l.Token == "" {
			t.Errorf("token %s", l.RawJSON())
		}
		for _, b := range l.Bytes {
			said = append(said, byte(b))
		}
	}
	if strings.TrimSpace(string(said)) != r.Text {
		t.Errorf("the tokens say %q, the text %q", said, r.Text)
	}
}

func TestChunking(t *testing.T) {
	ref := reference(t)
	p := params(ref, openai.AudioResponseFormatJSON)
	p.ChunkingStrategy.OfAuto = constant.ValueOf[constant.Auto]()
	wantSaid(t, transcribe(t, p).Text, ref)
}

func TestContainers(t *testing.T) {
	ref := reference(t)
	for _, extension := range []string{"mp3", "m4a", "webm", "flac", "ogg"} {
		t.Run(extension, func(t *testing.T) {
			c := ref.as(t, extension)
			wantMostly(t, transcribe(t, params(c, openai.AudioResponseFormatJSON)).Text, c)
		})
	}
}

func TestSeveralAtOnce(t *testing.T) {
	ref := reference(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c := client(t)
			r, err := c.Audio.Transcriptions.New(t.Context(), params(ref, openai.AudioResponseFormatJSON))
			if err != nil {
				t.Error(explain(err))
				return
			}
			wantSaid(t, r.Text, ref)
		})
	}
	wg.Wait()
}

// A client that leaves costs nothing to the next one.
func TestHangUp(t *testing.T) {
	ref := reference(t)
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	c := client(t)
	c.Audio.Transcriptions.New(ctx, params(ref, openai.AudioResponseFormatJSON)) //nolint:errcheck // either outcome is fine
	wantSaid(t, transcribe(t, params(ref, openai.AudioResponseFormatJSON)).Text, ref)
}

// The same port speaks HTTPS, and HTTP/2 there.
func TestHTTPSOnTheSamePort(t *testing.T) {
	u, err := url.Parse(base(t))
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme = "https"
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(u.String() + "/health")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("%s %s, want HTTP/2.0 200", resp.Proto, resp.Status)
	}
	c := client(t, option.WithBaseURL(u.String()+"/v1"), option.WithHTTPClient(&http.Client{Transport: transport}))
	ref := reference(t)
	r, err := c.Audio.Transcriptions.New(t.Context(), params(ref, openai.AudioResponseFormatJSON))
	if err != nil {
		t.Fatal(explain(err))
	}
	wantSaid(t, r.Text, ref)
}
