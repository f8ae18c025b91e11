package server

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/inbox"
	"whisper-appliance/internal/work"
)

// uploadsPath is where recordings arrive in pieces, by the tus protocol.
const uploadsPath = "/api/v1/uploads"

// What is not bounded by bytes: how many uploads may be under way.
const (
	mostUploads        = 1000
	mostUploadsOfOwner = 100
)

// The headers in which an answer tells what became of an upload, beside tus' own.
const (
	jobHeader         = "Job-ID"
	jobLocationHeader = "Job-Location"
	expiresHeader     = "Upload-Expires"
)

// metadataFields are what Upload-Metadata may hold: the recording's name, its
// media type, which is not asked for but which clients send, and the job's form
// but what stands in place of a recording.
func metadataFields() []string {
	fields := slices.DeleteFunc(slices.Clone(jobForm.fields), func(name string) bool { return name == jobForm.instead })
	return append([]string{"filename", "filetype"}, fields...)
}

// inbox is the desk with a place for uploads, or the fault that there is none.
func (s *Server) inboxDesk() (*work.Desk, error) {
	desk, err := s.jobsDesk()
	if err == nil && desk.Inbox == nil {
		err = fault.New(fault.Unavailable, "no_uploads", "recordings cannot be taken in pieces here").Try("send it whole to /api/v1/jobs")
	}
	return desk, err
}

// uploadOptions tells what of the protocol is spoken.
func (s *Server) uploadOptions(w http.ResponseWriter, r *http.Request) error {
	allow := "OPTIONS, POST"
	if r.PathValue("id") != "" {
		allow = "DELETE, GET, OPTIONS, PATCH"
	}
	w.Header().Set("Allow", allow)
	return s.tus(w, r, &tusExchange{server: s})
}

// createUpload begins an upload: all but the recording is looked at now, not
// after gigabytes of it.
func (s *Server) createUpload(w http.ResponseWriter, r *http.Request) error {
	desk, err := s.inboxDesk()
	if err != nil {
		return unreadBody{err}
	}
	x := &tusExchange{server: s, desk: desk}
	x.begin = func(size int64) (inbox.Upload, error) { return s.newUpload(r, desk, size) }
	return s.tus(w, r, x)
}

// newUpload is the upload that a request asks for.
func (s *Server) newUpload(r *http.Request, desk *work.Desk, size int64) (u inbox.Upload, err error) {
	if limit := int64(s.Config().Server.MaxUpload); size > limit {
		return u, s.tooLarge("Upload-Length")
	}
	if size == 0 {
		return u, fault.New(fault.BadInput, "empty_file", "the recording is empty").On("Upload-Length").Try("send a file that holds sound")
	}
	fields, err := metadata(r.Header.Get("Upload-Metadata"))
	if err != nil {
		return u, err
	}
	form := &upload{name: filepath.Base(fields["filename"]), access: accessOf(r.Context()), fields: map[string][]string{}}
	for name, value := range fields {
		form.fields[name] = []string{value}
	}
	if fields["filename"] == "" {
		form.name = ""
	}
	wish, err := s.wish(form)
	if err != nil {
		return u, err
	}
	wish.Key = keyOf(r.Context())
	if err := s.needs(always()...); err != nil {
		return u, err
	}
	if err := fewUploads(desk.Inbox, form.access.Owner()); err != nil {
		return u, err
	}
	if err := desk.Inbox.Room(size); err != nil {
		return u, err
	}
	u, err = desk.Await(wish, size)
	u.Fields = fields
	return u, err
}

// metadata reads Upload-Metadata, strictly: what cannot be read is refused, and
// so is every name that a job's form does not have.
func metadata(header string) (map[string]string, error) {
	fields := map[string]string{}
	if strings.TrimSpace(header) == "" {
		return fields, nil
	}
	for _, pair := range strings.Split(header, ",") {
		name, encoded, _ := strings.Cut(strings.TrimSpace(pair), " ")
		value, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		if name == "" || err != nil {
			return nil, fault.New(fault.BadInput, "bad_metadata", "Upload-Metadata has %s, which cannot be read", quoted(pair)).On("Upload-Metadata").
				Because(err).Try("send names with values in base64, separated by commas: filename dGFsay53YXY=,language ZGU=")
		}
		if !slices.Contains(metadataFields(), name) {
			return nil, unknownField(name, metadataFields())
		}
		if _, twice := fields[name]; twice {
			return nil, fault.New(fault.BadInput, "repeated_field", "the field %s was sent twice", name).On(name).Try("send it once")
		}
		fields[name] = string(value)
	}
	return fields, nil
}

// fewUploads refuses one more of what nobody goes on with.
func fewUploads(in *inbox.Inbox, owner string) error {
	all, err := in.List()
	if err != nil {
		return err
	}
	under, mine := 0, 0
	for _, u := range all {
		if u.Job != "" || time.Now().After(in.Expires(u)) {
			continue
		}
		if under++; u.Owner == owner {
			mine++
		}
	}
	if under >= mostUploads || mine >= mostUploadsOfOwner {
		return fault.New(fault.Busy, "too_many_uploads", "%d uploads are under way, %d of them yours", under, mine).
			Try("go on with those that were begun, or remove them with DELETE")
	}
	return nil
}

// oneUpload answers for an upload that is there: GET and HEAD tell where it is,
// PATCH adds to it, DELETE removes it. Those of others are not there.
func (s *Server) oneUpload(w http.ResponseWriter, r *http.Request) error {
	desk, err := s.inboxDesk()
	if err != nil {
		return unreadBody{err}
	}
	id := r.PathValue("id")
	u, err := desk.Inbox.Get(id)
	if access := accessOf(r.Context()); err == nil && u.Owner != access.Owner() && !access.Admin {
		err = fault.New(fault.NotFound, "unknown_upload", "there is no upload %s of yours", fault.Short(id)).On("id").
			Try("it belongs to the key or the address that began it")
	}
	if err != nil {
		w.Header().Set("Tus-Resumable", "1.0.0")
		return unreadBody{err}
	}
	return s.tus(w, r, &tusExchange{server: s, desk: desk, id: id})
}

// settled completes the answer of a door that went well: with what became of the
// upload where all of it is here, with the time that it is kept for else.
func (x *tusExchange) settled(ctx context.Context, w http.ResponseWriter) (u inbox.Upload, err error) {
	if u, err = x.desk.Inbox.Get(x.id); err != nil {
		return u, err
	}
	if u.Whole() && u.Job == "" {
		// Also where the client has left: it asks again, and then it is done.
		if u.Job, err = x.desk.Adopt(context.WithoutCancel(ctx), x.id); err != nil {
			return u, err
		}
	}
	w.Header().Set(expiresHeader, x.desk.Inbox.Expires(u).UTC().Format(http.TimeFormat))
	if u.Job != "" {
		w.Header().Set(jobHeader, u.Job)
		w.Header().Set(jobLocationHeader, "/api/v1/jobs/"+u.Job)
	}
	return u, nil
}

// shownUpload is an upload as its owner sees it.
func shownUpload(u inbox.Upload, expires time.Time) api.Upload {
	return api.Upload{ID: u.ID, Bytes: u.Size, Offset: u.Offset, Fields: u.Fields, Created: u.Created, Expires: expires.UTC(), Job: u.Job}
}

// metadataOf is what an upload was begun with, as the protocol writes it.
func metadataOf(fields map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		all = append(all, name+" "+base64.StdEncoding.EncodeToString([]byte(fields[name])))
	}
	return strings.Join(all, ",")
}

// answer writes what the protocol's answer comes to.
func (x *tusExchange) answer(w http.ResponseWriter, r *http.Request, a *tusAnswer) error {
	a.copyTo(w.Header())
	if a.code >= 300 {
		x.refuse(w, r, a)
		return nil
	}
	if x.id == "" || r.Method == http.MethodDelete {
		if r.Method == http.MethodOptions {
			w.Header().Set("Tus-Extension", w.Header().Get("Tus-Extension")+",expiration")
			w.Header().Set("Tus-Max-Size", strconv.FormatInt(int64(x.server.Config().Server.MaxUpload), 10))
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	bodyIsIn(w)
	u, err := x.settled(r.Context(), w)
	if err != nil {
		return err
	}
	if r.Method == http.MethodPatch {
		w.WriteHeader(a.code)
		return nil
	}
	if r.Method == http.MethodPost {
		w.Header().Set("Location", uploadsPath+"/"+x.id)
	}
	w.Header().Set("Upload-Metadata", metadataOf(u.Fields))
	writeJSON(w, a.code, shownUpload(u, x.desk.Inbox.Expires(u)))
	return nil
}

// pieceLinger is how long a piece that is refused is read on: its client asks where
// to go on, and has lost nothing when the answer does not reach it.
const pieceLinger = 500 * time.Millisecond

// refuse answers with the words for what the protocol's handler has refused, and
// with its status.
func (x *tusExchange) refuse(w http.ResponseWriter, r *http.Request, a *tusAnswer) {
	status, err := a.refusal()
	if x.failed != nil {
		err = x.failed
		status = statusOf(wordsOf(err))
	}
	if r.Method == http.MethodPatch || r.Method == http.MethodPost {
		w.Header().Set("Connection", "close") // or net/http waits for the rest of the piece
	}
	if f := wordsOf(err); f.Code == codeStalled || status == statusOf(f) {
		x.server.writeError(w, r, err)
	} else {
		f = x.server.asFault(r.Context(), err)
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, status, plainBody(f))
	}
	if x.wrote { // the client has stopped, or is told to by the answer
		return
	}
	x.server.linger(w, r, pieceLinger)
}

// refusal is what an answer of the protocol's handler that is no success says.
func (a *tusAnswer) refusal() (status int, err error) {
	code, said, _ := strings.Cut(strings.TrimSpace(a.body.String()), ": ")
	switch code {
	case "ERR_UNSUPPORTED_VERSION":
		return a.code, fault.New(fault.BadInput, "tus_version", "the request's Tus-Resumable must be 1.0.0").On("Tus-Resumable").
			Try("use a client of the tus protocol, or send the recording whole to /api/v1/jobs")
	case "ERR_INVALID_CONTENT_TYPE":
		return http.StatusUnsupportedMediaType, fault.New(fault.BadInput, "tus_content_type", "a piece's Content-Type must be application/offset+octet-stream").On("Content-Type")
	case "ERR_MISMATCHED_OFFSET":
		return a.code, fault.New(fault.Conflict, "wrong_offset", "the upload is not at this Upload-Offset").On("Upload-Offset").Try("HEAD tells where to go on")
	case "ERR_UPLOAD_LOCKED":
		return a.code, fault.New(fault.Conflict, "upload_busy", "the upload is being written to").On("id").Try("wait a moment, ask with HEAD where it is, and go on there")
	case "ERR_UPLOAD_NOT_FOUND":
		return a.code, fault.New(fault.NotFound, "unknown_upload", "there is no such upload").On("id").Try("begin a new one with POST")
	case "ERR_UPLOAD_SIZE_EXCEEDED":
		return a.code, fault.New(fault.TooLarge, "piece_too_large", "the piece is longer than what the upload lacks").On("Upload-Length")
	case "ERR_READ_TIMEOUT":
		return http.StatusConflict, fault.New(fault.Conflict, codeStalled, "nothing more of the upload came for a while").Try("ask with HEAD where it is, and go on there")
	case "ERR_UPLOAD_INTERRUPTED":
		return http.StatusConflict, fault.New(fault.Conflict, "upload_interrupted", "another request for the upload came meanwhile").Try("ask with HEAD where it is, and go on there")
	case "ERR_INTERNAL_SERVER_ERROR", "":
		return a.code, fmt.Errorf("tus: %s", said)
	}
	name := strings.ToLower(strings.TrimPrefix(code, "ERR_"))
	return a.code, fault.New(fault.OfStatus(a.code), name, "%s", said).Try("see https://tus.io/protocols/resumable-upload for what the protocol asks for")
}
