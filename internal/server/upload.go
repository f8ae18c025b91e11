package server

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

const (
	maxField = 64 << 10 // bytes of a form field that is no file
	maxParts = 64       // of one request
	// maxSlack is what a body may hold beside the file: fields and part headers.
	maxSlack = maxField*4 + 64<<10
	// longestName is what is kept of a recording's name, in bytes: what file systems do.
	longestName = 255
)

// codeStalled is of a client that sends no more.
const codeStalled = "upload_stalled"

// upload is a form that was received. The recording lies in a file without a
// name: it is gone when it is closed, and after a crash.
type upload struct {
	file   *os.File
	name   string // as the client called it, without directories, of longestName at most; for messages
	size   int64
	fields map[string][]string // in the order sent
	access auth.Access         // of who sent it
	leave  func()              // gives its place in the queue back
}

// Close gives its place and the spool's space back.
func (u *upload) Close() {
	u.leave()
	if u.file != nil {
		u.file.Close()
	}
}

// get is a field's value, "" where it was not sent.
func (u *upload) get(name string) string {
	if v := u.fields[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// flag is a field that is true or false, false where it was not sent.
func (u *upload) flag(name string) (bool, error) {
	if len(u.fields[name]) == 0 {
		return false, nil
	}
	return boolOf(name, u.get(name))
}

// request is what the fields that doors share ask for.
func (u *upload) request(task transcript.Task, words bool) transcribe.Request {
	return transcribe.Request{
		Model: u.get("model"), Language: u.get("language"), Prompt: u.get("prompt"), Temperature: u.get("temperature"),
		Task: task, Words: words,
	}
}

// give gives a job its recording, and says whose both are.
func (u *upload) give(job *transcribe.Job) {
	job.Audio, job.Name, job.Owner, job.Share = u.file, u.name, u.access.Owner(), u.access.Share()
}

// form says what a door takes.
type form struct {
	file   string   // the field of the recording
	fields []string // the others
	many   []string // of those, the ones that may come more than once
	bare   bool     // the recording is samples without a header, 16 kHz, mono, s16le
	kept   bool     // the recording is kept for a job; else only where it comes with a key

	// instead is a field that may stand in place of the recording; "" = none.
	instead string
}

// receive reads a multipart form: the recording to the spool, streamed and
// bounded, never into memory; the fields into the upload. Every name that the
// door does not know is refused.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, f form) (u *upload, err error) {
	limit := int64(s.Config().Server.MaxUpload)
	if r.ContentLength > limit+maxSlack {
		return nil, s.tooLarge(f.file)
	}
	if err := s.hasRoom(r.ContentLength); err != nil {
		return nil, err
	}
	keep, err := s.keepingOf(r.Context(), f)
	if err == nil {
		err = keep.room(r.ContentLength)
	}
	if err != nil {
		return nil, unreadBody{err}
	}
	if err := s.needs(always()...); err != nil {
		return nil, err
	}
	// A copy of the request has the bounded body: net/http looks at its own to
	// see whether some of it was left, and then gives the client time to read
	// why before it resets the connection.
	bounded := *r
	bounded.Body = &patientBody{http.MaxBytesReader(w, r.Body, limit+maxSlack), func() { s.allowRead(w) }}
	parts, err := multipartReader(&bounded)
	if err != nil {
		return nil, err
	}
	access := accessOf(r.Context())
	leave, err := s.Service.Queue.Enter(access.Share())
	if err != nil {
		return nil, unreadBody{err}
	}
	u = &upload{fields: map[string][]string{}, access: access, leave: leave}
	defer func() {
		if err != nil {
			u.Close()
			u = nil
		}
	}()
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if err == io.EOF { // wrapped, it means a form that was cut off
			break
		}
		if err != nil {
			return u, s.readFault(err, f.file)
		}
		if n == maxParts {
			return u, fault.New(fault.BadInput, "too_many_fields", "the form has more than %d fields", maxParts)
		}
		if err := s.part(u, f, part, limit); err != nil {
			return u, err
		}
	}
	if err := f.complete(u); err != nil {
		return u, err
	}
	if err := keep.fits(u.size); err != nil {
		return u, err
	}
	// Only when the body has been read to its end does net/http notice that
	// the client hangs up.
	if _, err := io.Copy(io.Discard, bounded.Body); err != nil {
		return u, s.readFault(err, f.file)
	}
	bodyIsIn(w)
	s.meter().uploaded.Add(float64(u.size))
	return u, nil
}

// complete refuses a form without a recording.
func (f form) complete(u *upload) error {
	if instead := f.instead != "" && u.get(f.instead) != ""; instead && u.file == nil {
		return nil
	} else if instead {
		return fault.New(fault.BadInput, "two_recordings", "a recording was sent, and %s names another one", f.instead).On(f.instead).
			Try("send either %s or %s", f.file, f.instead)
	}
	if u.file == nil {
		return fault.New(fault.BadInput, "missing_file", "no recording was sent").On(f.file).
			Try("send the recording as the form's file field %q: curl -F %s=@recording.wav …", f.file, f.file)
	}
	if u.size == 0 {
		return fault.New(fault.BadInput, "empty_file", "the recording %s is empty", quoted(u.name)).On(f.file).
			Try("send a file that holds sound")
	}
	return nil
}

func multipartReader(r *http.Request) (*multipart.Reader, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		got := r.Header.Get("Content-Type")
		if got == "" {
			got = "nothing"
		}
		return nil, fault.New(fault.BadInput, "not_multipart", "the request's Content-Type is %s; it must be multipart/form-data", fault.Short(got)).
			Try("curl -F file=@recording.wav sends it so")
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, fault.New(fault.BadInput, "bad_multipart", "the form cannot be read").Because(err).
			Try("let the HTTP library write the Content-Type header: it knows the boundary")
	}
	return parts, nil
}

// part takes one field or file.
func (s *Server) part(u *upload, f form, part *multipart.Part, limit int64) error {
	name := part.FormName()
	if name == f.file {
		return s.spool(u, f, part, limit)
	}
	if !slices.Contains(f.fields, name) {
		return unknownField(name, append([]string{f.file}, f.fields...))
	}
	if part.FileName() != "" {
		return fault.New(fault.BadInput, "unexpected_file", "the field %s is a file; it must be text", name).On(name)
	}
	if len(u.fields[name]) > 0 && !slices.Contains(f.many, name) {
		return fault.New(fault.BadInput, "repeated_field", "the field %s was sent twice", name).On(name).Try("send it once")
	}
	value, err := io.ReadAll(io.LimitReader(part, maxField+1))
	if err != nil {
		return s.readFault(err, f.file)
	}
	if len(value) > maxField {
		return fault.New(fault.BadInput, "field_too_long", "the field %s is longer than %d bytes", name, maxField).On(name)
	}
	u.fields[name] = append(u.fields[name], string(value))
	return nil
}

// unknownField names the field and the nearest right one.
func unknownField(name string, known []string) error {
	e := fault.New(fault.BadInput, "unknown_field", "there is no field %s here", quoted(name)).On(fault.Short(name))
	if near := fault.Nearest(name, known); near != "" {
		return e.Try("did you mean %s?", near)
	}
	return e.Try("the fields are %s", strings.Join(known, ", "))
}

// spool streams a part to a file without a name. Its mode lets others read:
// the decoder, a user of its own, opens it again through its descriptor.
func (s *Server) spool(u *upload, f form, part *multipart.Part, limit int64) error {
	field := f.file
	if u.file != nil {
		return fault.New(fault.BadInput, "repeated_field", "two recordings were sent").On(field).Try("send one recording a request")
	}
	file, err := durable.Nameless(s.Spool, 0o444)
	if err != nil {
		return spoolFault(err)
	}
	u.file, u.name = file, shortName(filepath.Base(part.FileName()))
	src := &source{r: part}
	u.size, err = f.copy(file, src, limit+1)
	switch {
	case src.err != nil:
		return s.readFault(src.err, field)
	case err != nil:
		return spoolFault(err)
	case u.size > limit:
		return s.tooLarge(field)
	}
	return nil
}

// shortName is name, cut to longestName between two characters.
func shortName(name string) string {
	if len(name) <= longestName {
		return name
	}
	return strings.ToValidUTF8(name[:longestName], "")
}

// source tells an error of reading from one of writing.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *Server) tooLarge(field string) error {
	limit := s.Config().Server.MaxUpload
	return fault.New(fault.TooLarge, "upload_too_large", "the recording is larger than the limit of %s", limit).
		On(field).Try("compress it (opus or mp3), or raise [server] max_upload, now %d bytes", int64(limit))
}

// readFault words what can go wrong while a body is read.
func (s *Server) readFault(err error, field string) error {
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return s.tooLarge(field)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fault.New(fault.BadInput, codeStalled, "nothing more of the upload came for %v", s.stall()).Because(err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), strings.Contains(err.Error(), "EOF"):
		return fault.New(fault.BadInput, "upload_incomplete", "the upload ended before the form did").Because(err).
			Try("send it again; Content-Length and the form's last boundary must be right")
	}
	return fault.New(fault.BadInput, "bad_multipart", "the form cannot be read").Because(err)
}

// spoolFault gives a full disk its words.
func spoolFault(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return noRoom("there is no room left for the upload").Because(err)
	}
	return fmt.Errorf("spool the upload: %w", err)
}

// quoted is a value that a client sent, for a message.
func quoted(s string) string { return fmt.Sprintf("%q", fault.Short(s)) }
