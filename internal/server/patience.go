package server

import (
	"cmp"
	"io"
	"net/http"
	"time"
)

// defaultStall is how long a client may take for its next bytes, those it sends
// and those it takes alike.
const defaultStall = 60 * time.Second

func (s *Server) stall() time.Duration { return cmp.Or(s.Stall, defaultStall) }

// allowRead gives a slow client time for its next bytes, but not for ever.
func (s *Server) allowRead(w http.ResponseWriter) {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.stall())) //nolint:errcheck // a writer without deadlines has none to miss
}

// patientBody gives the client time for each piece of the body.
type patientBody struct {
	io.ReadCloser
	allow func()
}

func (p *patientBody) Read(b []byte) (int, error) {
	p.allow()
	return p.ReadCloser.Read(b)
}

// bodyIsIn lifts allowRead's limit. net/http goes on reading, to learn when
// the client hangs up, and takes a missed deadline for just that.
func bodyIsIn(w http.ResponseWriter) {
	http.NewResponseController(w).SetReadDeadline(time.Time{}) //nolint:errcheck // the same
}

// patientWriter gives the client stall to take each piece of the answer: one
// that stops reading loses its connection, not the server its memory. Between
// the pieces there is no limit, as HTTP/2 resets a stream whose deadline passes
// even while nothing is written.
type patientWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	stall time.Duration
	begun bool // the status is out
}

func (s *Server) patient(w http.ResponseWriter) *patientWriter {
	return &patientWriter{ResponseWriter: w, rc: http.NewResponseController(w), stall: s.stall()}
}

// limit begins a piece and returns what ends it.
func (p *patientWriter) limit() (end func()) {
	p.rc.SetWriteDeadline(time.Now().Add(p.stall)) //nolint:errcheck // a writer without deadlines has none to miss
	return p.unlimited
}

// limitRest leaves a limit for what is buffered when the request ends. Before
// net/http writes that, it may wait for the rest of the body, as long as
// allowRead allows. The connection's next request lifts the limit.
func (p *patientWriter) limitRest() {
	p.rc.SetWriteDeadline(time.Now().Add(2 * p.stall)) //nolint:errcheck // the same
}

func (p *patientWriter) unlimited() {
	p.rc.SetWriteDeadline(time.Time{}) //nolint:errcheck // the same
}

// Write is http.ResponseWriter's.
func (p *patientWriter) Write(b []byte) (int, error) {
	p.begun = true
	defer p.limit()()
	return p.ResponseWriter.Write(b)
}

// WriteHeader is http.ResponseWriter's.
func (p *patientWriter) WriteHeader(code int) {
	p.begun = true
	p.ResponseWriter.WriteHeader(code)
}

// FlushError is what http.ResponseController flushes by.
func (p *patientWriter) FlushError() error {
	p.begun = true
	defer p.limit()()
	return p.rc.Flush()
}

// Unwrap lets http.ResponseController reach the deadlines.
func (p *patientWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
