package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// The doors of ahmetoner/whisper-asr-webservice, which Bazarr and others speak
// to. Parameters, headers and media types are those of its app/webservice.py
// (1.9): all is in the query but the recording, and a parameter that it does
// not know is ignored, as FastAPI does; diarize, min_speakers and max_speakers
// are such to its usual engines, video_file, by which Bazarr tells a name, to
// all.
const (
	asrDoor    = "/asr"
	detectDoor = "/detect-language"
)

var (
	asrForm   = form{file: "audio_file"}
	asrParams = []string{"encode", "task", "language", "initial_prompt", "vad_filter", "word_timestamps", "output"}
)

func asrPath(path string) bool { return path == asrDoor || path == detectDoor }

// asrError is FastAPI's error with ours beside it. Detail is a list of
// asrDetail for what a request has wrong, else a sentence.
type asrError struct {
	Detail any `json:"detail"`
	api.Error
}

// asrDetail is one mistake as FastAPI tells it.
type asrDetail struct {
	Type string   `json:"type"`
	Loc  []string `json:"loc"` // query or body, then the field
	Msg  string   `json:"msg"`
}

func asrBody(code int, f *fault.Error) asrError {
	says := f.Message
	if f.Hint != "" {
		says += ". Try: " + f.Hint
	}
	if code != http.StatusUnprocessableEntity {
		return asrError{Detail: says, Error: plainBody(f)}
	}
	loc := []string{"body"}
	if slices.Contains(asrParams, f.Field) {
		loc = []string{"query"}
	}
	if f.Field != "" {
		loc = append(loc, f.Field)
	}
	return asrError{Detail: []asrDetail{{Type: f.Code, Loc: loc, Msg: says}}, Error: plainBody(f)}
}

// asrWords gives what other parts of the appliance find wrong the names that
// it has here.
func asrWords(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	switch {
	case f.Code == "unknown_field" && slices.Contains(asrParams, f.Field):
		f.Hint = fmt.Sprintf("here it belongs into the address: ?%s=…", f.Field)
	case f.Code == "unknown_field":
	case f.Field == "prompt":
		f.Field = "initial_prompt"
	case f.Field == "file":
		f.Field = asrForm.file
	}
	return err
}

// query is a URL's, the last value of each name, as FastAPI takes it.
type query map[string]string

func queryOf(r *http.Request) (query, error) {
	all, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fault.New(fault.BadInput, "bad_query", "the query of the address cannot be read").Because(err).
			Try("let the HTTP library write it: curl -G --data-urlencode")
	}
	q := query{}
	for name, values := range all {
		q[name] = values[len(values)-1]
		if len(q[name]) > maxField {
			return nil, fault.New(fault.BadInput, "field_too_long", "the parameter %s is longer than %d bytes", fault.Short(name), maxField).On(fault.Short(name))
		}
	}
	return q, nil
}

// flag is a parameter that is true or false.
func (q query) flag(name string, unless bool) (bool, error) {
	v, sent := q[name]
	if !sent {
		return unless, nil
	}
	return boolOf(name, v)
}

// boolOf reads a flag by the words that pydantic takes, which reads FastAPI's
// queries; whisper.cpp's are among them.
func boolOf(name, value string) (bool, error) {
	switch strings.ToLower(value) {
	case "1", "true", "t", "yes", "y", "on":
		return true, nil
	case "0", "false", "f", "no", "n", "off":
		return false, nil
	}
	return false, fault.New(fault.BadInput, "invalid_value", "%s is %s; it must be true or false", name, quoted(value)).On(name)
}

// asrRequest is a request, checked before its body is read: nobody should send
// a film to learn of a typing error.
type asrRequest struct {
	job    transcribe.Job
	form   form
	output string
}

func (s *Server) parseASR(r *http.Request) (*asrRequest, error) {
	q, err := queryOf(r)
	if err != nil {
		return nil, err
	}
	// vad_filter is honoured either way: silence is never decoded here.
	on := map[string]bool{"encode": true, "vad_filter": true, "word_timestamps": false}
	for name, unless := range on {
		if on[name], err = q.flag(name, unless); err != nil {
			return nil, err
		}
	}
	a := &asrRequest{form: asrForm, output: q["output"]}
	a.form.bare = !on["encode"]
	if a.output == "" {
		a.output = "txt"
	}
	if outputs := []string{"txt", "vtt", "srt", "tsv", "json"}; !slices.Contains(outputs, a.output) {
		return nil, fault.New(fault.BadInput, "unknown_format", "output is %s; it must be one of %s", quoted(a.output), strings.Join(outputs, ", ")).On("output")
	}
	task, err := taskOf(q["task"])
	if err != nil {
		return nil, err
	}
	words := on["word_timestamps"] && a.output == "json"
	a.job, err = s.job(transcribe.Request{Language: q["language"], Prompt: q["initial_prompt"], Task: task, Words: words})
	return a, err
}

// receiveFor is receive for a job whose request is checked already.
func (s *Server) receiveFor(w http.ResponseWriter, r *http.Request, job *transcribe.Job, f form) (*upload, error) {
	u, err := s.receive(w, r, f)
	if err != nil {
		return nil, err
	}
	u.give(job)
	return u, nil
}

func (s *Server) asr(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() { err = asrWords(err) }()
	a, err := s.parseASR(r)
	if err != nil {
		return unreadBody{err}
	}
	u, err := s.receiveFor(w, r, &a.job, a.form)
	if err != nil {
		return err
	}
	defer u.Close()
	out := a.renderer()
	out.headers = map[string]string{
		"Asr-Engine":          "whisper_cpp", // its own are openai_whisper, faster_whisper and whisperx
		"Content-Disposition": attachment(u.name, a.output),
	}
	return s.answer(w, r, a.job, out)
}

// attachment is a name for the answer: the recording's, escaped as Python's
// urllib.parse.quote does, and what was asked for.
func attachment(name, output string) string {
	if name == "." { // it was sent without one
		name = asrForm.file
	}
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("_.-~/", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return fmt.Sprintf(`attachment; filename="%s.%s"`, b.String(), output)
}

// renderer writes what openai/whisper's whisper/utils.py writes, which the
// service hands out. Every output is plain text to it, JSON too.
//
// Two things are otherwise. In vtt "&", "<" and ">" are escaped, as players
// want it. With word_timestamps cues stay Whisper's segments: there they are
// joined, up to ten lines, until somebody is silent for three seconds.
func (a *asrRequest) renderer() renderer {
	const plain = "text/plain; charset=utf-8"
	switch a.output {
	case "json":
		return renderer{contentType: plain, whole: a.writeWhisper}
	case "srt":
		return inLines(plain, streamed(transcript.SRT))
	case "tsv":
		return inLines(plain, streamed(transcript.TSV))
	case "vtt":
		return inLines(plain, func(w io.Writer) (lineWriter, error) {
			return newCueLines(transcript.VTT, &cueWriter{w: w, times: withoutHours}, false)
		})
	}
	return inLines(plain, func(w io.Writer) (lineWriter, error) { return &textLines{w: w}, nil })
}

// withoutHours takes hours from a cue's times where there are none: Whisper
// writes 00:01.500.
func withoutHours(times string) string {
	from, to, _ := strings.Cut(times, " --> ")
	return strings.TrimPrefix(from, "00:") + " --> " + strings.TrimPrefix(to, "00:")
}

// whisperResult is what transcribe() of openai/whisper returns, keys in its
// order.
type whisperResult struct {
	Text     string           `json:"text"` // begins with a space where the language writes spaces
	Segments []whisperSegment `json:"segments"`
	Language string           `json:"language"` // code
}

type whisperSegment struct {
	transcript.VerboseSegment
	Words []whisperWord `json:"words,omitzero"` // with word_timestamps
}

type whisperWord struct {
	Word        string  `json:"word"`
	Start       float64 `json:"start"`
	End         float64 `json:"end"`
	Probability float64 `json:"probability"`
}

func (a *asrRequest) writeWhisper(w io.Writer, t *transcript.Transcript) error {
	result := whisperResult{Text: spacedText(t), Segments: []whisperSegment{}, Language: t.Language}
	for i, v := range transcript.VerboseSegments(t.Segments) {
		seg := whisperSegment{VerboseSegment: v}
		if a.job.Words {
			seg.Words = whisperWords(t.Segments[i].Words)
		}
		result.Segments = append(result.Segments, seg)
	}
	return writeBare(w, result)
}

func whisperWords(words []transcript.Word) []whisperWord {
	list := []whisperWord{}
	for _, w := range words {
		list = append(list, whisperWord{transcript.Clean(w.Text), secondsOf(w.Start), secondsOf(w.End), w.Prob})
	}
	return list
}

// languageAnswer is the service's. Its usual engine (language_detection in
// app/asr_models/openai_whisper_engine.py) gives as confidence that of whichever
// code is last in the alphabet; here it is that of the language.
type languageAnswer struct {
	DetectedLanguage string  `json:"detected_language" doc:"Its English name."`
	LanguageCode     string  `json:"language_code" doc:"Whisper's code: ISO 639-1 where that has one."`
	Confidence       float64 `json:"confidence" doc:"0 to 1."`
}

// detectLanguage goes by the first speech, not by the first half minute, which
// in a film is music.
func (s *Server) detectLanguage(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() { err = asrWords(err) }()
	job, f, err := s.parseDetection(r)
	if err != nil {
		return unreadBody{err}
	}
	u, err := s.receiveFor(w, r, &job, f)
	if err != nil {
		return err
	}
	defer u.Close()
	var a languageAnswer
	return s.answer(w, r, job, renderer{
		contentType: transcript.ContentType(transcript.JSON),
		see:         func(u transcribe.Update) { a.Confidence = max(a.Confidence, u.LanguageProb) },
		whole: func(w io.Writer, t *transcript.Transcript) error {
			if t.Language == "" {
				return fault.New(fault.BadInput, "no_speech", "nobody speaks in the recording, so it has no language").On(asrForm.file).
					Try("send one in which somebody does, or name its language to /asr")
			}
			a.DetectedLanguage, a.LanguageCode = transcript.LanguageName(t.Language), t.Language
			return writeBare(w, a)
		},
	})
}

func (s *Server) parseDetection(r *http.Request) (transcribe.Job, form, error) {
	f := asrForm
	q, err := queryOf(r)
	if err != nil {
		return transcribe.Job{}, f, err
	}
	encode, err := q.flag("encode", true)
	if err != nil {
		return transcribe.Job{}, f, err
	}
	f.bare = !encode
	job, err := s.job(transcribe.Request{Language: "auto"})
	if err == nil && job.Language != "" {
		err = fault.New(fault.Conflict, "model_english_only", "the model %s understands English only and tells no languages apart", job.Model).
			Try("use a model without .en: whisper-appliance models use base")
	}
	job.OnlyLanguage = true
	return job, f, err
}
