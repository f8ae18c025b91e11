package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
)

// openAIError is OpenAI's error object.
type openAIError struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

// writeError answers with err in the dialect of the request's path.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	f := s.asFault(r.Context(), err)
	code := statusAt(r.URL.Path, f)
	unread := f.Kind == fault.TooLarge || f.Kind == fault.NoSpace || errors.As(err, new(unreadBody)) // the rest of the body is not worth reading
	switch f.Kind {
	case fault.Unauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="whisper-appliance"`)
	case fault.Busy:
		w.Header().Set("Retry-After", retryAfter(f))
	}
	if unread {
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, code, s.errorBody(r.URL.Path, code, f))
	if unread {
		s.linger(w, r, lingerTime)
	}
}

// defaultAfter is when to try again what was refused for its number, where that
// does not say.
const defaultAfter = 10 * time.Second

// retryAfter is the header of that name, "" where f may never pass.
func retryAfter(f *fault.Error) string {
	if f.Kind != fault.Busy {
		return ""
	}
	return strconv.Itoa(int(math.Ceil(cmp.Or(f.After, defaultAfter).Seconds())))
}

// How much of a refused body linger takes, and for how long.
const (
	lingerBytes = 64 << 20
	lingerTime  = 10 * time.Second
)

// linger reads on after a refusal over HTTP/2: net/http resets such a stream
// when its body was not read, and clients then drop the answer that says why.
// (Over HTTP/1 net/http lingers by itself.)
func (s *Server) linger(w http.ResponseWriter, r *http.Request, most time.Duration) {
	if r.ProtoMajor < 2 {
		return
	}
	rc := http.NewResponseController(w)
	rc.Flush()                                //nolint:errcheck // the client has left
	rc.SetReadDeadline(time.Now().Add(most))  //nolint:errcheck // then for as long as it takes
	io.CopyN(io.Discard, r.Body, lingerBytes) //nolint:errcheck // it is not wanted
}

// statusOf is the status of a fault. A recording that nothing can read is a bad
// field, as OpenAI's API has it: 415 would speak of the request's own media
// type, which was right.
func statusOf(f *fault.Error) int {
	if f.Kind == fault.Unsupported {
		return http.StatusBadRequest
	}
	return f.Kind.Status()
}

// statusAt is statusOf, where the door at path has no other status for it.
func statusAt(path string, f *fault.Error) int {
	if bad := f.Kind == fault.BadInput || f.Kind == fault.Unsupported; bad && asrPath(path) {
		return http.StatusUnprocessableEntity // FastAPI's, whatever is wrong with a request
	}
	return statusOf(f)
}

// errorBody is f as the door at path words it.
func (s *Server) errorBody(path string, code int, f *fault.Error) any {
	switch {
	case strings.HasPrefix(path, "/v1/"):
		return openAIBody(code, f)
	case asrPath(path):
		return asrBody(code, f)
	case originalUpdatePath(path):
		return s.originalError(f)
	}
	return plainBody(f)
}

func plainBody(f *fault.Error) api.Error {
	return api.Error{Error: f.Message, Code: f.Code, Field: f.Field, Hint: f.Hint}
}

func openAIBody(code int, f *fault.Error) openAIError {
	var e openAIError
	e.Error.Message = f.Message
	if f.Hint != "" {
		e.Error.Message += ". Try: " + f.Hint
	}
	e.Error.Type = "invalid_request_error"
	switch {
	case code == http.StatusTooManyRequests:
		e.Error.Type = "rate_limit_error"
	case code >= 500:
		e.Error.Type = "server_error"
	}
	if f.Field != "" {
		e.Error.Param = &f.Field
	}
	if f.Code != "" {
		e.Error.Code = &f.Code
	}
	return e
}

// asFault finds the words for people in err. What has none is our mistake: it
// goes to the log in full and to the client without its insides.
func (s *Server) asFault(ctx context.Context, err error) *fault.Error {
	f := wordsOf(err)
	s.mistakes.note(time.Now(), f.Code, statusOf(f), routeOf(ctx))
	if f.Kind.Status() >= 500 {
		s.logOf(ctx).ErrorContext(ctx, "request failed", "code", f.Code, "error", err)
	} else {
		s.logOf(ctx).DebugContext(ctx, "request refused", "code", f.Code, "error", err)
	}
	return f
}

// wordsOf is err as people get it.
func wordsOf(err error) *fault.Error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return fault.New(fault.Internal, "internal_error", "something went wrong inside the appliance").
			Try("see its log: journalctl -u whisper-appliance")
	}
	outer := *f
	outer.Hint = fault.Hint(err)
	return &outer
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // only our own types come here
		http.Error(w, "encoding the answer failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(code)
	w.Write(append(body, '\n')) //nolint:errcheck // the client has left
}

// bodyError carries an error through huma, which marshals it as the answer's body.
type bodyError struct {
	code  int
	body  any
	after string // Retry-After; "" = none
}

func (e *bodyError) GetStatus() int               { return e.code }
func (e *bodyError) Error() string                { return http.StatusText(e.code) }
func (e *bodyError) MarshalJSON() ([]byte, error) { return json.Marshal(e.body) }

// GetHeaders is huma.HeadersError's.
func (e *bodyError) GetHeaders() http.Header {
	h := http.Header{}
	if e.after != "" {
		h.Set("Retry-After", e.after)
	}
	return h
}

// humaError replaces huma's error model by ours, for what huma itself refuses.
func humaError(code int, message string, details ...error) huma.StatusError {
	for _, d := range details {
		message += ": " + d.Error()
	}
	return &bodyError{code: code, body: api.Error{Error: message, Code: "bad_request"}}
}
