package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/schedule"
)

// The three windows of talks, as each output has them.
const (
	asrTxt = "Part 0, äöü.\nPart 1, äöü.\nPart 2, äöü.\n"
	asrVTT = "WEBVTT\n\n00:00.000 --> 00:02.000\nPart 0, äöü.\n\n00:17.490 --> 00:19.490\nPart 1, äöü.\n\n00:35.490 --> 00:37.490\nPart 2, äöü.\n\n"
	asrSRT = "1\n00:00:00,000 --> 00:00:02,000\nPart 0, äöü.\n\n2\n00:00:17,490 --> 00:00:19,490\nPart 1, äöü.\n\n3\n00:00:35,490 --> 00:00:37,490\nPart 2, äöü.\n\n"
	asrTSV = "start\tend\ttext\n0\t2000\tPart 0, äöü.\n17490\t19490\tPart 1, äöü.\n35490\t37490\tPart 2, äöü.\n"
)

// TestASROutputs: every byte of the formats, and the service's headers.
func TestASROutputs(t *testing.T) {
	for output, want := range map[string]string{"": asrTxt, "txt": asrTxt, "vtt": asrVTT, "srt": asrSRT, "tsv": asrTSV} {
		t.Run(output, func(t *testing.T) {
			r := newRig(t, talks)
			a := post(t, r.start(t).URL+"/asr?output="+output, part{"audio_file", "a talk ä.mp3", "a recording"})
			a.want(t, 200)
			if a.body != want {
				t.Errorf("%q\nwant %q", a.body, want)
			}
			if output == "" {
				output = "txt"
			}
			for name, want := range map[string]string{
				"Content-Type": "text/plain; charset=utf-8", "Asr-Engine": "whisper_cpp",
				"Content-Disposition": `attachment; filename="a%20talk%20%C3%A4.mp3.` + output + `"`,
			} {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestASRJSON(t *testing.T) {
	r := newRig(t, talks)
	url := r.start(t).URL + "/asr?output=json"
	a := post(t, url, recording("audio_file"))
	a.want(t, 200, `{"text":" `+whole+`","segments":[{"id":0,"seek":0,"start":0,"end":2,"text":" Part 0, äöü.","tokens":[1],"temperature":0,"avg_logprob":-0.25,"compression_ratio":`)
	if !strings.HasSuffix(a.body, `}],"language":"de"}`) || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("ends in %q, is %q", a.body[len(a.body)-40:], a.header.Get("Content-Type"))
	}
	if strings.Contains(a.body, `"words"`) {
		t.Error("words that nobody asked for")
	}
	post(t, url+"&word_timestamps=True", recording("audio_file")).
		want(t, 200, `"words":[{"word":" Part 1, äöü.","start":17.49,"end":18.49,"probability":0.5}]`)
	r.engine.answer = func(context.Context, int, engine.WindowRequest, func(engine.Event)) (engine.Done, error) {
		return engine.Done{Language: "en"}, nil
	}
	if a := post(t, url, recording("audio_file")); a.body != `{"text":"","segments":[],"language":""}` {
		t.Errorf("of silence: %s", a.body)
	}
	if a := post(t, url+"&output=txt", recording("audio_file")); a.status != 200 || a.body != "" {
		t.Errorf("of silence: %d %q", a.status, a.body)
	}
}

func TestASRParametersReachTheEngine(t *testing.T) {
	r := newRig(t, talks)
	url := r.start(t).URL
	post(t, url+"/asr?task=translate&language=German&initial_prompt=%C3%96l&vad_filter=false&word_timestamps=on&output=json&encode=1", recording("audio_file")).want(t, 200)
	want := engine.WindowRequest{Model: "ggml-tiny.bin", Language: "de", Translate: true, Prompt: "Öl", Words: true, BestOf: 5, AudioCtx: 512, OnePass: true, TemperatureInc: -1}
	if got := r.engine.request(); got != want {
		t.Errorf("the engine got %+v, want %+v", got, want)
	}
}

// TestASRQuery: left out or empty, the language is detected; of two the last
// counts; and what the service does not know is no error to it.
func TestASRQuery(t *testing.T) {
	var first engine.WindowRequest
	r := newRig(t, func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		if n%3 == 0 {
			first = req
		}
		return talks(ctx, n, req, observe)
	})
	url := r.start(t).URL + "/asr"
	for query, want := range map[string]string{
		"": "", "?language=": "", "?language=auto": "", "?language=de&language=": "", "?language=&language=fr": "fr", "?language=ITALIAN&task=": "it",
		"?diarize=true&min_speakers=2&max_speakers=4&language=en": "en", "?video_file=%2Ffilms%2Fa.mkv&language=jw": "jw",
	} {
		post(t, url+query, recording("audio_file")).want(t, 200, "Part 2")
		if first.Language != want {
			t.Errorf("%s: language %q, want %q", query, first.Language, want)
		}
	}
}

// TestMistakesInTheAddressAreToldFirst: before anybody sends a film.
func TestMistakesInTheAddressAreToldFirst(t *testing.T) {
	h := newRig(t, talks).Handler()
	for _, path := range []string{"/asr?language=xx", "/asr?output=docx", "/asr?encode=x", "/detect-language?encode=x"} {
		req := httptest.NewRequest("POST", path, unreadable{t})
		req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		req.RemoteAddr = here
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, req); w.Code != 422 || w.Header().Get("Connection") != "close" {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
}

// bareSamples is n samples as Bazarr sends them.
func bareSamples(n int) []byte {
	var b []byte
	for i := range n {
		b = binary.LittleEndian.AppendUint16(b, uint16(int16(i%200*100-10000)))
	}
	return b
}

// listener is the real decoder, without a program for what is no WAV; it keeps
// what came out.
type listener struct {
	decode.Decoder
	pcm bytes.Buffer
}

func (l *listener) Decode(ctx context.Context, f *os.File, limits decode.Limits, sink io.Writer) (decode.Info, error) {
	l.pcm.Reset()
	return l.Decoder.Decode(ctx, f, limits, io.MultiWriter(&l.pcm, sink))
}

// TestASRBareSamples: samples without a header are taken as they are, whatever
// they look like, and nothing tries to guess. A WAV says itself what it is.
func TestASRBareSamples(t *testing.T) {
	talk := bareSamples(3 * audio.SampleRate)
	looksLikeMP3 := append([]byte{0xff, 0xfb, 0x90, 0x64}, talk...)
	for name, c := range map[string]struct {
		body []byte
		want []byte // of which these are the samples; nil = body
	}{
		"as Bazarr sends":            {talk, nil},
		"that look like an MP3":      {looksLikeMP3, nil},
		"few":                        {talk[:2], nil},
		"in a WAV":                   {append(audio.PCMHeader(int64(len(talk))), talk...), talk},
		"RIFF, but no WAV":           {append([]byte("RIFFabcdWAVX"), talk...), nil},
		"fewer than a header's name": {[]byte("RIFF"), nil},
	} {
		for _, path := range []string{"/asr?encode=false&output=txt", "/detect-language?encode=false"} {
			t.Run(name+path, func(t *testing.T) {
				r := newRig(t, talks)
				l := &listener{}
				r.Service.Decoder = l
				a := post(t, r.start(t).URL+path, part{"audio_file", "audio_file", string(c.body)})
				if a.status != 200 && !strings.Contains(a.body, "no_speech") {
					t.Errorf("status %d: %s", a.status, a.body)
				}
				want := c.want
				if want == nil {
					want = c.body
				}
				if got := narrow(l.pcm.Bytes()); !bytes.Equal(got, want) {
					t.Errorf("%d bytes of samples arrived, want the %d that were sent", len(got), len(want))
				}
			})
		}
	}
}

// narrow turns f32le into s16le.
func narrow(pcm []byte) []byte {
	out := make([]byte, 0, len(pcm)/2)
	for i := 0; i+4 <= len(pcm); i += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(pcm[i:]))
		out = binary.LittleEndian.AppendUint16(out, uint16(int16(v*32768)))
	}
	return out
}

// TestASRTooLarge: the limit is of what is sent, not of what is made of it.
func TestASRTooLarge(t *testing.T) {
	r := newRig(t, talks)
	r.conf.Server.MaxUpload = 1000
	url := r.start(t).URL + "/asr?encode=false"
	post(t, url, part{"audio_file", "a", strings.Repeat("x", 1000)}).want(t, 200)
	a := post(t, url, part{"audio_file", "a", strings.Repeat("x", 1001)})
	a.want(t, 413, `{"detail":"the recording is larger`, `"code":"upload_too_large"`)
}

// TestASRRefusals: each mistake in FastAPI's shape, with our words.
func TestASRRefusals(t *testing.T) {
	r := newRig(t, func(context.Context, int, engine.WindowRequest, func(engine.Event)) (engine.Done, error) {
		t.Error("the engine was asked")
		return engine.Done{}, nil
	})
	writeModel(t, filepath.Join(r.Models.Dir, "ggml-tiny.en.bin"))
	srv := r.start(t)
	good := []part{recording("audio_file")}
	field := func(name, value string) []part { return append([]part{{name: name, value: value}}, good...) }
	for name, c := range map[string]struct {
		path  string
		parts []part
		loc   string
		code  string
		says  string
	}{
		"language":                 {"/asr?language=xx", good, "query language", "unknown_language", "xx"},
		"language of a region":     {"/asr?language=pt-BR", good, "query language", "unknown_language", `leave out the region: \"pt\"`},
		"output":                   {"/asr?output=docx", good, "query output", "unknown_format", "txt, vtt, srt, tsv, json"},
		"output in capitals":       {"/asr?output=SRT", good, "query output", "unknown_format", "SRT"},
		"task":                     {"/asr?task=sing", good, "query task", "invalid_value", "sing"},
		"encode":                   {"/asr?encode=perhaps", good, "query encode", "invalid_value", "true or false"},
		"encode without a value":   {"/asr?encode=", good, "query encode", "invalid_value", "true or false"},
		"vad_filter":               {"/asr?vad_filter=2", good, "query vad_filter", "invalid_value", "2"},
		"word_timestamps":          {"/asr?word_timestamps=maybe", good, "query word_timestamps", "invalid_value", "maybe"},
		"prompt that is no text":   {"/asr?initial_prompt=%ff", good, "query initial_prompt", "invalid_value", "UTF-8"},
		"long prompt":              {"/asr?initial_prompt=" + strings.Repeat("x", maxField+1), good, "query initial_prompt", "field_too_long", "longer"},
		"query that is none":       {"/asr?language=%zz", good, "body", "bad_query", "cannot be read"},
		"no recording":             {"/asr", []part{{name: "nothing"}}, "body nothing", "unknown_field", "audio_file"},
		"an empty form":            {"/asr", nil, "body audio_file", "missing_file", "-F audio_file=@"},
		"OpenAI's name of it":      {"/asr", []part{recording("file")}, "body file", "unknown_field", "audio_file"},
		"empty recording":          {"/asr", []part{{"audio_file", "a.wav", ""}}, "body audio_file", "empty_file", "is empty"},
		"no samples":               {"/asr?encode=false", []part{{"audio_file", "a", ""}}, "body audio_file", "empty_file", "is empty"},
		"two recordings":           {"/asr", append(good, good...), "body audio_file", "repeated_field", "two"},
		"no sound":                 {"/asr", []part{{"audio_file", "a.mp3", "bad"}}, "body audio_file", "undecodable", "not sound"},
		"a parameter in the form":  {"/asr", field("language", "de"), "query language", "unknown_field", "?language="},
		"an unknown field":         {"/asr", field("colour", "blue"), "body colour", "unknown_field", "audio_file"},
		"samples of an odd length": {"/asr?encode=false", []part{{"audio_file", "a", "abc"}}, "body audio_file", "not_pcm", "3 bytes"},
		"FLAC as samples":          {"/asr?encode=false", []part{{"audio_file", "a", "fLaC    "}}, "body audio_file", "not_pcm", "FLAC"},
		"Matroska as samples":      {"/asr?encode=0", []part{{"audio_file", "a", "\x1aE\xdf\xa3    "}}, "body audio_file", "not_pcm", "Matroska"},
		"MP4 as samples":           {"/asr?encode=no", []part{{"audio_file", "a", "\x00\x00\x00\x18ftypisom"}}, "body audio_file", "not_pcm", "MP4"},
		"MP3 as samples":           {"/detect-language?encode=false", []part{{"audio_file", "a", "ID3\x04\x00    "}}, "body audio_file", "not_pcm", "MP3"},
		"detection: encode":        {"/detect-language?encode=x", good, "query encode", "invalid_value", "true or false"},
		"detection: no sound":      {"/detect-language", []part{{"audio_file", "a.mp3", "bad"}}, "body audio_file", "undecodable", "not sound"},
		"detection: no recording":  {"/detect-language", nil, "body audio_file", "missing_file", "audio_file"},
		"detection: a field":       {"/detect-language", field("language", "de"), "query language", "unknown_field", "?language="},
	} {
		t.Run(name, func(t *testing.T) {
			a := post(t, srv.URL+c.path, c.parts...)
			a.want(t, 422, c.says)
			var e struct {
				Detail            []asrDetail
				Error, Code, Hint string
			}
			if err := json.Unmarshal([]byte(a.body), &e); err != nil || len(e.Detail) != 1 || e.Error == "" {
				t.Fatalf("%v in %s", err, a.body)
			}
			d := e.Detail[0]
			if strings.Join(d.Loc, " ") != c.loc || d.Type != c.code || e.Code != c.code || !strings.HasPrefix(d.Msg, e.Error) {
				t.Errorf("%s, want %s at %s", a.body, c.code, c.loc)
			}
		})
	}
}

// TestASROtherErrors: what is not about the request's content has a sentence
// as its detail, and its own status.
func TestASROtherErrors(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	for _, path := range []string{"/asr", "/detect-language"} {
		do(t, "GET", srv.URL+path, nil).want(t, 405, `{"detail":"GET is not possible`, `"code":"method_not_allowed"`)
		do(t, "POST", srv.URL+path, nil, "Authorization", "Bearer wa_wrong").want(t, 401, `{"detail":"`, "invalid_api_key")
		do(t, "POST", srv.URL+path, strings.NewReader("{}"), "Content-Type", "application/json").want(t, 422, `"detail":[{"type":"not_multipart","loc":["body"]`)
	}
	r.conf.Models.Default = "base"
	post(t, srv.URL+"/asr", recording("audio_file")).want(t, 503, `{"detail":"`, `"code":"model_not_installed"`)
	r.conf.Models.Default = "tiny.en"
	writeFile(t, filepath.Join(r.Models.Dir, "ggml-tiny.en.bin"), "x")
	post(t, srv.URL+"/asr?language=de", recording("audio_file")).want(t, 422, `"loc":["query","language"]`, "English only")
	post(t, srv.URL+"/asr?task=translate", recording("audio_file")).want(t, 422, "cannot translate")
	post(t, srv.URL+"/detect-language", recording("audio_file")).want(t, 409, `{"detail":"`, "model_english_only", "without .en")
	r.conf.Models.Default = "tiny"
	r.engine.answer = func(context.Context, int, engine.WindowRequest, func(engine.Event)) (engine.Done, error) {
		return engine.Done{}, &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
	}
	for _, path := range []string{"/asr?output=json", "/asr?output=srt", "/detect-language"} {
		a := post(t, srv.URL+path, recording("audio_file"))
		a.want(t, 503, `{"detail":"`, `"code":"no_memory"`)
		if a.header.Get("Content-Disposition") != "" || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("an error is sent as a file: %v", a.header)
		}
	}
}

// speaks says a text, and is sure of the language that it detects.
func speaks(language string, sure float64) engineFunc {
	return func(_ context.Context, _ int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		say(observe, " Text.")
		if req.Language != "" {
			return engine.Done{Language: req.Language}, nil
		}
		return engine.Done{Language: language, LanguageProb: sure}, nil
	}
}

func TestDetectLanguage(t *testing.T) {
	r := newRig(t, speaks("ht", 0.96875))
	r.conf.Transcription.Language = "de" // is not what is asked
	srv := r.start(t)
	for _, query := range []string{"", "?encode=true", "?video_file=a.mkv&encode=1"} {
		a := post(t, srv.URL+"/detect-language"+query, recording("audio_file"))
		a.want(t, 200)
		if want := `{"detected_language":"haitian creole","language_code":"ht","confidence":0.96875}`; a.body != want || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s, want %s", a.body, want)
		}
	}
	if r.engine.n != 3 {
		t.Errorf("%d windows were decoded for three answers", r.engine.n)
	}
	do(t, "GET", srv.URL+"/health", nil).want(t, 200, `"total_transcriptions":0`)
	r.Service.Decoder = toneDecoder{sound(-5)}
	post(t, srv.URL+"/detect-language", recording("audio_file")).want(t, 422, `"type":"no_speech"`, `"loc":["body","audio_file"]`)
}

func TestDetectionEndsWithItsClient(t *testing.T) {
	begun := make(chan bool)
	ended := make(chan error, 1)
	r := newRig(t, func(ctx context.Context, _ int, _ engine.WindowRequest, _ func(engine.Event)) (engine.Done, error) {
		close(begun)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return engine.Done{}, context.Cause(ctx)
	})
	srv := r.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	body, kind := encode(recording("audio_file"))
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/detect-language", strings.NewReader(body))
	req.Header.Set("Content-Type", kind)
	go func() {
		<-begun
		cancel()
	}()
	if _, err := http.DefaultTransport.RoundTrip(req); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the request's end", err)
	}
	if err := <-ended; err == nil {
		t.Error("the window went on")
	}
}

func TestAttachment(t *testing.T) {
	for name, want := range map[string]string{
		"a.mp3": "a.mp3", ".": "audio_file", `a"b.wav`: "a%22b.wav", "a\r\nX: y.wav": "a%0D%0AX%3A%20y.wav", "a+b=c&d~e_f-g.x": "a%2Bb%3Dc%26d~e_f-g.x",
	} {
		if got := attachment(name, "srt"); got != fmt.Sprintf(`attachment; filename="%s.srt"`, want) {
			t.Errorf("%q is %s", name, got)
		}
	}
}

// TestASRIsDocumented: the parameters, in the document and in the code.
func TestASRIsDocumented(t *testing.T) {
	r := newRig(t, talks)
	var doc struct {
		Paths map[string]struct {
			Post struct {
				Parameters []struct{ Name, In, Description string }
			}
		}
	}
	if err := json.Unmarshal(ask(r.Handler(), here, "GET", "/openapi.json").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{"/asr": asrParams, "/detect-language": {"encode"}} {
		var got []string
		for _, p := range doc.Paths[path].Post.Parameters {
			if p.In == "header" {
				continue
			}
			if got = append(got, p.Name); p.In != "query" || p.Description == "" {
				t.Errorf("%s: %+v", path, p)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has the parameters %q, want %q", path, got, want)
		}
	}
}

// TestDetectionsJob: what is asked of the other packages.
func TestDetectionsJob(t *testing.T) {
	r := newRig(t, talks)
	req, _ := http.NewRequest(http.MethodPost, "/detect-language?encode=no", nil)
	job, f, err := r.parseDetection(req)
	if err != nil || !job.OnlyLanguage || job.Class != schedule.Short || !f.bare || asrForm.bare {
		t.Errorf("%+v, %+v, %v", job, f, err)
	}
}
