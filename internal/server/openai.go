package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// OpenAI's fields of a transcription, and those of a translation, and behind
// them those of transcript.LayoutFields, which are this server's.
var (
	transcriptionForm = form{
		file: "file",
		fields: []string{"model", "language", "prompt", "response_format", "temperature",
			"timestamp_granularities[]", "timestamp_granularities", "stream", "include[]", "include", "chunking_strategy",
			"subtitle_style", "max_line_width", "max_line_count", "max_words_per_line", "max_cps"},
		many: []string{"timestamp_granularities[]", "timestamp_granularities", "include[]", "include"},
	}
	translationForm = form{file: "file", fields: []string{"model", "prompt", "response_format", "temperature",
		"subtitle_style", "max_line_width", "max_line_count", "max_words_per_line", "max_cps"}}
)

// openAIRequest is OpenAI's request, checked.
type openAIRequest struct {
	job      transcribe.Job
	format   transcript.Format
	words    bool // asked for in verbose_json
	segments bool
	logprobs bool
	stream   bool
	layout   *transcript.Layout // nil unless asked for: subtitles are Whisper's segments, as OpenAI's
}

func (s *Server) transcriptions(w http.ResponseWriter, r *http.Request) error {
	return s.openAI(w, r, transcriptionForm, transcript.Transcribe)
}

func (s *Server) translations(w http.ResponseWriter, r *http.Request) error {
	return s.openAI(w, r, translationForm, transcript.Translate)
}

func (s *Server) openAI(w http.ResponseWriter, r *http.Request, f form, task transcript.Task) error {
	u, err := s.receive(w, r, f)
	if err != nil {
		return err
	}
	defer u.Close()
	req, err := s.parseOpenAI(u, task)
	if err != nil {
		return err
	}
	if req.stream {
		return s.streamOpenAI(w, r, req)
	}
	return s.answer(w, r, req.job, req.renderer())
}

// renderer writes the format asked for. OpenAI offers no tsv or lrc; this
// server does, under the same field.
func (q *openAIRequest) renderer() renderer {
	var tokens []engine.Token
	out := renderer{contentType: transcript.ContentType(q.format), see: func(u transcribe.Update) {
		if q.logprobs {
			tokens = append(tokens, u.Tokens...)
		}
	}}
	out.whole = func(w io.Writer, t *transcript.Transcript) error {
		return transcript.Render(w, q.format, t, transcript.Options{Words: q.words, Segments: q.segments, Layout: q.layout})
	}
	switch {
	case q.format == transcript.JSON:
		out.whole = func(w io.Writer, t *transcript.Transcript) error {
			return transcript.Encode(w, jsonAnswer{Text: t.Text(), Usage: usage(t), Logprobs: q.logprobsOf(tokens)})
		}
	case q.format.Streams():
		out.lines = laidOut(q.format, q.layout)
	}
	return out
}

// jsonAnswer is OpenAI's json format.
type jsonAnswer struct {
	Text     string    `json:"text"`
	Usage    *duration `json:"usage,omitempty"`
	Logprobs []logprob `json:"logprobs,omitempty"`
}

// duration is OpenAI's usage for what is counted by time.
type duration struct {
	Type    string  `json:"type"`
	Seconds float64 `json:"seconds"`
}

func usage(t *transcript.Transcript) *duration {
	return &duration{Type: "duration", Seconds: t.Duration.Seconds()}
}

// logprob is one token as include[]=logprobs gives it.
type logprob struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

func (q *openAIRequest) logprobsOf(tokens []engine.Token) []logprob {
	if !q.logprobs {
		return nil
	}
	list := make([]logprob, len(tokens))
	for i, t := range tokens {
		list[i] = logprob{Token: strings.ToValidUTF8(string(t.Bytes), "\uFFFD"), Logprob: t.LogProb, Bytes: make([]int, len(t.Bytes))}
		for j, b := range t.Bytes {
			list[i].Bytes[j] = int(b)
		}
	}
	return list
}

// parseOpenAI checks every field; each that cannot be honoured is refused by name.
func (s *Server) parseOpenAI(u *upload, task transcript.Task) (*openAIRequest, error) {
	q := &openAIRequest{format: transcript.JSON}
	var err error
	if v, sent := u.fields["response_format"]; sent {
		if q.format, err = transcript.ParseFormat(v[0]); err != nil {
			return nil, err
		}
	}
	for _, check := range []func(*upload) error{q.granularities, q.include, q.streaming, q.chunking} {
		if err := check(u); err != nil {
			return nil, err
		}
	}
	if q.layout, err = transcript.ChooseLayout(q.format, transcript.PerSegment, s.Config().Subtitles.Layout(), u.get); err != nil {
		return nil, err
	}
	q.job, err = s.job(u.request(task, q.words || q.format.NeedsWords() || q.layout != nil))
	u.give(&q.job)
	q.job.Logprobs = q.logprobs
	return q, err
}

// list joins a field's two spellings: SDKs send name[] and people send name.
func (u *upload) list(name string) []string {
	var all []string
	for _, v := range append(slices.Clone(u.fields[name+"[]"]), u.fields[name]...) {
		for item := range strings.SplitSeq(v, ",") {
			all = append(all, strings.TrimSpace(item))
		}
	}
	return all
}

func (q *openAIRequest) granularities(u *upload) error {
	asked := u.list("timestamp_granularities")
	if len(asked) > 0 && q.format != transcript.VerboseJSON {
		return fault.New(fault.BadInput, "invalid_value", "timestamp_granularities[] needs response_format verbose_json, not %s", q.format).
			On("timestamp_granularities[]").Try("set response_format to verbose_json")
	}
	q.segments = len(asked) == 0
	for _, g := range asked {
		switch g {
		case "word":
			q.words = true
		case "segment":
			q.segments = true
		default:
			return fault.New(fault.BadInput, "invalid_value", "timestamp_granularities[] is %s; it must be word or segment", quoted(g)).
				On("timestamp_granularities[]")
		}
	}
	return nil
}

func (q *openAIRequest) include(u *upload) error {
	for _, i := range u.list("include") {
		if i != "logprobs" {
			return fault.New(fault.BadInput, "invalid_value", "include[] is %s; it can be logprobs", quoted(i)).On("include[]")
		}
		if q.format != transcript.JSON {
			return fault.New(fault.BadInput, "invalid_value", "include[] logprobs needs response_format json, not %s", q.format).On("include[]")
		}
		q.logprobs = true
	}
	return nil
}

func (q *openAIRequest) streaming(u *upload) error {
	on, err := u.flag("stream")
	if err != nil {
		return err
	}
	if on && q.format != transcript.JSON {
		return fault.New(fault.BadInput, "invalid_value", "stream needs response_format json, not %s", q.format).On("response_format").
			Try("leave response_format out, or stream")
	}
	q.stream = on
	return nil
}

// chunking accepts what this server does anyway. Speech detection with
// parameters of the caller's cannot be honoured yet.
func (q *openAIRequest) chunking(u *upload) error {
	v, sent := u.fields["chunking_strategy"]
	if !sent || v[0] == "auto" || v[0] == `"auto"` {
		return nil
	}
	e := fault.New(fault.BadInput, "invalid_value", "chunking_strategy is %s; this server can do auto", quoted(v[0])).On("chunking_strategy")
	var object struct {
		Type string `json:"type"`
	}
	if json.Unmarshal([]byte(v[0]), &object) == nil && object.Type == "server_vad" {
		e.Message = "chunking_strategy server_vad takes parameters that this server cannot honour"
		return e.Try(`send chunking_strategy "auto": the recording is cut at its pauses`)
	}
	return e
}

// job checks what all doors share. The recording is yet to be given.
func (s *Server) job(q transcribe.Request) (job transcribe.Job, err error) {
	if q.Model, err = s.modelName(q.Model); err != nil {
		return transcribe.Job{}, err
	}
	job, err = q.Job(s.Models, s.Config())
	job.Class = schedule.Short
	return job, err
}

// streamOpenAI answers with OpenAI's events. The deltas joined are the text of
// the last event, byte for byte.
func (s *Server) streamOpenAI(w http.ResponseWriter, r *http.Request, q *openAIRequest) error {
	type delta struct {
		Type     string    `json:"type"`
		Delta    string    `json:"delta"`
		Logprobs []logprob `json:"logprobs,omitempty"`
	}
	type done struct {
		Type     string    `json:"type"`
		Text     string    `json:"text"`
		Usage    *duration `json:"usage,omitempty"`
		Logprobs []logprob `json:"logprobs,omitempty"`
	}
	var joiner transcript.Joiner
	var all []logprob
	emit := func(out *sse, u transcribe.Update) {
		lp := q.logprobsOf(u.Tokens)
		all = append(all, lp...)
		text := ""
		for _, seg := range u.Segments {
			text += joiner.Add(seg)
		}
		if text != "" {
			out.send("", delta{Type: "transcript.text.delta", Delta: text, Logprobs: lp})
		}
	}
	return s.stream(w, r, q.job, emit, func(out *sse, t *transcript.Transcript) {
		if rest := joiner.Close(); rest != "" {
			out.send("", delta{Type: "transcript.text.delta", Delta: rest})
		}
		out.send("", done{Type: "transcript.text.done", Text: t.Text(), Usage: usage(t), Logprobs: all})
		fmt.Fprint(out.w, "data: [DONE]\n\n")
	}, func(out *sse, f *fault.Error) {
		out.send("error", openAIBody(statusOf(f), f))
	})
}
