package server

import (
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// inferenceDoor is whisper.cpp's, as its examples/server/server.cpp has it
// (get_req_parameters names the fields). Without a language that server takes
// English for spoken, unless it was started otherwise; here the settings say,
// and by themselves that it is detected. The server's other door, /load, is not
// offered: models are changed by administrators.
const inferenceDoor = "/inference"

// inferenceField is a field of whisper.cpp's form. Clients send all of them,
// most with the value that they have by themselves.
type inferenceField struct {
	name string
	doc  string
	// only tells the values that can be honoured; nil = it is read elsewhere.
	only func(string) bool
	why  string // what else is refused for
}

var (
	inferenceFields = []inferenceField{
		{name: "model", doc: "Name of an installed model; left out: the model in use. Not whisper.cpp's."},
		{name: "language", doc: "Language spoken, ISO 639-1, or auto; left out: as the settings say."},
		{name: "prompt", doc: "Text that names words and spellings to expect."},
		{name: "temperature", doc: "0 (default) to 1: where decoding starts."},
		{name: "temperature_inc", doc: "0.2 (default): the temperature rises where the text looks wrong; 0: it does not."},
		{name: "response_format", doc: "json (default), text, srt, vtt or verbose_json."},
		{name: "detect_language", doc: "true: the language alone, for verbose_json."},
		{name: "translate", doc: "true: into English."},
		{name: "offset_t", doc: "Milliseconds of the recording to leave out."},
		{name: "duration", doc: "Milliseconds to transcribe from there; 0 (default): all."},
		{name: "offset_n", doc: "Added to the numbers of srt."},
		{name: "best_of", doc: "1 to 8 candidates at temperatures above 0."},
		{name: "beam_size", doc: "2 to 8: beam search; 1: greedy; -1 (default): as the settings say."},
		{name: "no_timestamps", doc: "true: verbose_json without times."},
		{name: "token_timestamps", doc: "false: verbose_json without the times of words."},
		{name: "no_language_probabilities", doc: "true: verbose_json without detected_language and what belongs to it."},
		{name: "split_on_word", doc: "As it may be: no word is ever cut.", only: anyBool},
		{name: "carry_initial_prompt", doc: "As it may be: every window gets the prompt.", only: anyBool},
		{name: "vad", doc: "As it may be: only speech is ever decoded.", only: anyBool},
		{name: "diarize", doc: "false.", only: never, why: "speakers are not told apart"},
		{name: "tinydiarize", doc: "false.", only: never, why: "speakers are not told apart"},
		{name: "suppress_nst", doc: "false.", only: never, why: "no tokens are suppressed"},
		{name: "suppress_non_speech", doc: "false.", only: never, why: "no tokens are suppressed"},
		{name: "debug_mode", doc: "false.", only: never, why: "nothing is written for debugging"},
		{name: "max_context", doc: "-1 or 0.", only: anyOf(-1, 0), why: "[transcription] carry_text says whether text is carried on"},
		{name: "max_len", doc: "0.", only: anyOf(0), why: "segments are Whisper's own"},
		{name: "audio_ctx", doc: "0.", only: anyOf(0), why: "each window has the context that it needs"},
		{name: "word_thold", doc: "0.01.", only: anyOf(0.01), why: "Whisper's own bounds hold"},
		{name: "entropy_thold", doc: "2.4.", only: anyOf(2.4), why: "Whisper's own bounds hold"},
		{name: "logprob_thold", doc: "-1.", only: anyOf(-1), why: "Whisper's own bounds hold"},
		{name: "no_speech_thold", doc: "0.6.", only: anyOf(0.6), why: "Whisper's own bounds hold"},
		{name: "vad_threshold", doc: "0.5.", only: anyOf(0.5), why: "[vad] threshold says it"},
		{name: "vad_min_speech_duration_ms", doc: "250.", only: anyOf(250), why: "[vad] has the settings there are"},
		{name: "vad_min_silence_duration_ms", doc: "100.", only: anyOf(100), why: "[vad] has the settings there are"},
		{name: "vad_max_speech_duration_s", doc: "30 or more.", only: windowOrMore, why: "windows are as long as their pauses allow"},
		{name: "vad_speech_pad_ms", doc: "30.", only: anyOf(30), why: "[vad] has the settings there are"},
		{name: "vad_samples_overlap", doc: "0.1.", only: anyOf(0.1), why: "[vad] has the settings there are"},
	}
	inferenceForm = form{file: "file", fields: namesOf(inferenceFields)}
)

func namesOf(fields []inferenceField) (names []string) {
	for _, f := range fields {
		names = append(names, f.name)
	}
	return names
}

func anyBool(v string) bool {
	_, err := boolOf("", v)
	return err == nil
}

func never(v string) bool {
	on, err := boolOf("", v)
	return err == nil && !on
}

// anyOf tells whether a value is one of those, however it is written; floats
// of 32 bits are a little off.
func anyOf(these ...float64) func(string) bool {
	return func(v string) bool {
		got, err := strconv.ParseFloat(v, 64)
		for _, n := range these {
			if err == nil && math.Abs(got-n) < 1e-6 {
				return true
			}
		}
		return false
	}
}

func windowOrMore(v string) bool {
	got, err := strconv.ParseFloat(v, 64)
	return err == nil && got >= 30 // it is the largest float there is by itself
}

// inferenceRequest is a request, checked.
type inferenceRequest struct {
	job    transcribe.Job
	format transcript.Format
	number int // of the cue before the first

	onlyLanguage bool
	noTimes      bool // of verbose_json, in all
	noWordTimes  bool
	noLanguages  bool
	sure         float64 // of the language, once it is detected
}

func (s *Server) inference(w http.ResponseWriter, r *http.Request) error {
	u, err := s.receive(w, r, inferenceForm)
	if err != nil {
		return err
	}
	defer u.Close()
	q, err := s.parseInference(u)
	if err != nil {
		return err
	}
	return s.answer(w, r, q.job, q.renderer())
}

// parseInference checks every field. An empty one counts as not sent: the form
// on whisper.cpp's own page sends such.
func (s *Server) parseInference(u *upload) (*inferenceRequest, error) {
	for name, values := range u.fields {
		if values[0] == "" {
			delete(u.fields, name)
		}
	}
	for _, f := range inferenceFields {
		if v := u.get(f.name); v != "" && f.only != nil && !f.only(v) {
			e := fault.New(fault.BadInput, "invalid_value", "%s is %s; here it can be %s", f.name, quoted(v), strings.TrimSuffix(f.doc, ".")).On(f.name)
			if f.why == "" {
				e.Message = f.name + " is " + quoted(v) + "; it must be true or false"
				return nil, e
			}
			return nil, e.Try("leave it out: %s", f.why)
		}
	}
	q := &inferenceRequest{}
	task, err := q.flags(u)
	if err != nil {
		return nil, err
	}
	if err := q.formatOf(u.get("response_format")); err != nil {
		return nil, err
	}
	asked := u.request(task, q.format == transcript.VerboseJSON)
	if q.onlyLanguage {
		asked.Language = "auto"
	}
	if q.job, err = s.job(asked); err != nil {
		return nil, err
	}
	u.give(&q.job)
	q.job.OnlyLanguage = q.onlyLanguage
	return q, q.numbers(u)
}

// flags reads what is true or false.
func (q *inferenceRequest) flags(u *upload) (transcript.Task, error) {
	on := map[string]bool{"translate": false, "detect_language": false, "no_timestamps": false, "token_timestamps": true, "no_language_probabilities": false}
	for name := range on {
		if v := u.get(name); v != "" {
			var err error
			if on[name], err = boolOf(name, v); err != nil {
				return "", err
			}
		}
	}
	q.onlyLanguage = on["detect_language"]
	q.noTimes, q.noWordTimes, q.noLanguages = on["no_timestamps"], !on["token_timestamps"], on["no_language_probabilities"]
	if on["translate"] {
		return transcript.Translate, nil
	}
	return transcript.Transcribe, nil
}

// formatOf refuses what whisper.cpp would answer with json.
func (q *inferenceRequest) formatOf(name string) error {
	switch name {
	case "", "json":
		q.format = transcript.JSON
	case "text":
		q.format = transcript.Txt
	case "srt", "vtt", "verbose_json":
		q.format = transcript.Format(name)
	default:
		return fault.New(fault.BadInput, "unknown_format", "response_format is %s; it must be json, text, srt, vtt or verbose_json", quoted(name)).On("response_format")
	}
	if q.noTimes && (q.format == transcript.SRT || q.format == transcript.VTT) {
		return fault.New(fault.BadInput, "invalid_value", "no_timestamps leaves nothing of %s", q.format).On("no_timestamps").Try("ask for text")
	}
	return nil
}

// numbers reads what counts something. The settings hold where a number is 0
// or less, as whisper.cpp has it by itself.
func (q *inferenceRequest) numbers(u *upload) error {
	var offset, length, beams, candidates int
	for _, n := range []struct {
		name        string
		to          *int
		least, most int
	}{
		{"offset_t", &offset, 0, math.MaxInt32}, {"duration", &length, 0, math.MaxInt32}, {"offset_n", &q.number, 0, math.MaxInt32},
		{"beam_size", &beams, -1, 8}, {"best_of", &candidates, -1, 8},
	} {
		v := u.get(n.name)
		if v == "" {
			continue
		}
		got, err := strconv.Atoi(v)
		if err != nil || got < n.least || got > n.most {
			return fault.New(fault.BadInput, "invalid_value", "%s is %s; it must be a whole number from %d to %d", n.name, quoted(v), n.least, n.most).On(n.name)
		}
		*n.to = got
	}
	q.job.From = time.Duration(offset) * time.Millisecond
	if length > 0 {
		q.job.Until = q.job.From + time.Duration(length)*time.Millisecond
	}
	if beams > 0 {
		q.job.BeamSize = beams
	}
	if candidates > 0 {
		q.job.BestOf = candidates
	}
	return q.rise(u.get("temperature_inc"))
}

// rise reads by how much the temperature rises.
func (q *inferenceRequest) rise(v string) error {
	switch {
	case v == "", anyOf(0.2)(v):
	case anyOf(0)(v):
		q.job.Steady = true
	default:
		return fault.New(fault.BadInput, "invalid_value", "temperature_inc is %s; it must be 0.2, or 0 for a temperature that does not rise", quoted(v)).On("temperature_inc")
	}
	return nil
}

// renderer writes what whisper.cpp's server does: each segment with the space
// that it begins with, and in the texts a line for each. Text has another media
// type: that server calls it HTML, which it is not. As there, nothing ends the
// JSON formats.
func (q *inferenceRequest) renderer() renderer {
	cues := func(w io.Writer) (lineWriter, error) {
		return newCueLines(q.format, &cueWriter{w: w, offset: q.number}, true)
	}
	switch q.format {
	case transcript.SRT:
		return inLines("application/x-subrip", cues)
	case transcript.VTT:
		return inLines("text/vtt", cues)
	case transcript.Txt:
		return inLines(transcript.ContentType(transcript.Txt), func(w io.Writer) (lineWriter, error) { return &textLines{w: w, lead: true}, nil })
	case transcript.VerboseJSON:
		return renderer{contentType: transcript.ContentType(transcript.VerboseJSON), whole: q.writeVerbose,
			see: func(u transcribe.Update) { q.sure = max(q.sure, u.LanguageProb) }}
	}
	return renderer{contentType: transcript.ContentType(transcript.JSON), whole: func(w io.Writer, t *transcript.Transcript) error {
		return writeBare(w, struct {
			Text string `json:"text"`
		}{inferenceText(t)})
	}}
}

// inferenceText is whisper.cpp's text: a line for each segment.
func inferenceText(t *transcript.Transcript) string {
	var b strings.Builder
	lines := textLines{w: &b, lead: true}
	for _, s := range t.Segments {
		lines.Segment(s) //nolint:errcheck // a builder takes all
	}
	lines.Close() //nolint:errcheck // the same
	return b.String()
}
