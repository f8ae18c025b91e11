package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/tus/tusd/v2/pkg/handler"
	experimental "golang.org/x/exp/slog"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/inbox"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/work"
)

// How long the protocol's handler waits: for who has an upload's lock, and with
// what it has left to do when its client has gone.
const (
	uploadLockWait = 10 * time.Second
	uploadRest     = 100 * time.Millisecond
)

// tusExchange is one request to the protocol's handler, and what that does with the
// inbox. It is the handler's store, its locks and its log.
type tusExchange struct {
	server *Server
	desk   *work.Desk
	id     string // of the upload; "" until it is created
	begin  func(size int64) (inbox.Upload, error)
	fresh  inbox.Upload
	failed error // in our words
	wrote  bool  // some of the body was read

	rc          *http.ResponseController
	interrupted atomic.Bool // another request goes on with the upload
}

// tus has the protocol's handler answer, and then completes the answer. A handler
// is made for each request: it is little, and settings may change in between.
func (s *Server) tus(w http.ResponseWriter, r *http.Request, x *tusExchange) error {
	composer := handler.NewStoreComposer()
	composer.UseCore(x)
	composer.UseTerminater(x)
	composer.UseLocker(x)
	h, err := handler.NewUnroutedHandler(handler.Config{
		StoreComposer: composer, BasePath: uploadsPath, Cors: &handler.CorsConfig{Disable: true},
		Logger:                  experimental.New(tusLog{s.Log.With(logging.Request, requestOf(r.Context()))}),
		PreUploadCreateCallback: x.created, NetworkTimeout: s.stall(),
		AcquireLockTimeout: uploadLockWait, GracefulRequestCompletionTimeout: uploadRest,
	})
	if err != nil {
		return err
	}
	// It takes the id for the whole path, and puts an override of the method
	// into effect that the routes do not know of.
	inner := r.Clone(r.Context())
	inner.URL.Path = x.id
	inner.Header.Del("X-HTTP-Method-Override")
	inner.Body = pieceBody{inner.Body}
	a := &tusAnswer{header: http.Header{}, rc: http.NewResponseController(w)}
	x.rc = a.rc
	serve := map[string]http.HandlerFunc{
		http.MethodPost: h.PostFile, http.MethodPatch: h.PatchFile, http.MethodDelete: h.DelFile, http.MethodGet: h.HeadFile,
	}[r.Method]
	h.Middleware(serve).ServeHTTP(a, inner)
	return x.answer(w, r, a)
}

// pieceBody tells the handler why a piece ends too soon in errors that it knows:
// nothing came for too long, or the client has left, however that showed.
type pieceBody struct{ io.ReadCloser }

func (p pieceBody) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	switch {
	case err == nil, err == io.EOF, err == http.ErrBodyReadAfterClose:
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = os.ErrDeadlineExceeded
	default:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// tusAnswer takes the protocol's answer in, which is headers and at most a line.
type tusAnswer struct {
	header http.Header
	code   int
	body   bytes.Buffer
	rc     *http.ResponseController
}

// Header is http.ResponseWriter's.
func (a *tusAnswer) Header() http.Header { return a.header }

// WriteHeader is http.ResponseWriter's.
func (a *tusAnswer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

// Write is http.ResponseWriter's.
func (a *tusAnswer) Write(b []byte) (int, error) { return a.body.Write(b) }

// SetReadDeadline is for http.ResponseController: the handler gives the client
// time for each piece, as patientBody does.
func (a *tusAnswer) SetReadDeadline(at time.Time) error { return a.rc.SetReadDeadline(at) }

// SetWriteDeadline does nothing: patientWriter limits what is written, and over
// HTTP/2 a limit that passes before anything is resets the stream.
func (a *tusAnswer) SetWriteDeadline(time.Time) error { return nil }

// copyTo copies what of the answer is the protocol's.
func (a *tusAnswer) copyTo(h http.Header) {
	for name, values := range a.header {
		if name != "Content-Length" && name != "Content-Type" && name != "Location" {
			h[name] = values
		}
	}
}

// fail notes an error in our words, which the handler would make its own of.
func (x *tusExchange) fail(err error) error {
	var words *fault.Error
	if err != nil && (errors.As(err, &words) || x.failed == nil) {
		x.failed = err
	}
	return err
}

// created looks at an upload before it is.
func (x *tusExchange) created(hook handler.HookEvent) (resp handler.HTTPResponse, changes handler.FileInfoChanges, err error) {
	if x.fresh, err = x.begin(hook.Upload.Size); err != nil {
		return resp, changes, x.fail(err)
	}
	x.id = x.fresh.ID
	changes.ID = x.id
	return resp, changes, nil
}

// NewUpload is handler.DataStore's.
func (x *tusExchange) NewUpload(context.Context, handler.FileInfo) (handler.Upload, error) {
	if err := x.desk.Inbox.Create(x.fresh); err != nil {
		return nil, x.fail(err)
	}
	return x, nil
}

// GetUpload is handler.DataStore's.
func (x *tusExchange) GetUpload(_ context.Context, id string) (handler.Upload, error) {
	_, err := x.desk.Inbox.Get(id)
	return x, x.fail(err)
}

// GetInfo is handler.Upload's.
func (x *tusExchange) GetInfo(context.Context) (handler.FileInfo, error) {
	u, err := x.desk.Inbox.Get(x.id)
	return handler.FileInfo{ID: u.ID, Size: u.Size, Offset: u.Offset}, x.fail(err)
}

// WriteChunk is handler.Upload's. The handler keeps what reading fails with, and
// ends the reading there.
func (x *tusExchange) WriteChunk(_ context.Context, offset int64, src io.Reader) (int64, error) {
	x.wrote = true
	n, err := x.desk.Inbox.Write(x.id, offset, &piece{src, x})
	x.server.meter().uploaded.Add(float64(n))
	if errors.Is(err, handler.ErrUploadInterrupted) {
		return n, err
	}
	return n, x.fail(err)
}

// interrupt ends a piece for another request that goes on with the upload. The
// handler's own way to do that looks at a body that it may be setting just then.
func (x *tusExchange) interrupt() {
	x.interrupted.Store(true)
	x.rc.SetReadDeadline(time.Now()) //nolint:errcheck // then its next bytes end it
}

// piece ends when another request takes over, or the server ends: its client goes
// on with the next one.
type piece struct {
	r io.Reader
	x *tusExchange
}

func (p *piece) Read(b []byte) (int, error) {
	switch {
	case p.x.interrupted.Load():
		return 0, handler.ErrUploadInterrupted
	case p.x.server.draining.Load():
		return 0, fault.New(fault.Unavailable, "stopping", "the server is being stopped or replaced").Try("ask with HEAD where the upload is, and go on there")
	}
	return p.r.Read(b)
}

// FinishUpload is handler.Upload's: the answer makes a job of it.
func (x *tusExchange) FinishUpload(context.Context) error { return nil }

// GetReader is handler.Upload's; nothing of an upload is given out.
func (x *tusExchange) GetReader(context.Context) (io.ReadCloser, error) {
	return nil, handler.ErrNotImplemented
}

// AsTerminatableUpload is handler.TerminaterDataStore's.
func (x *tusExchange) AsTerminatableUpload(handler.Upload) handler.TerminatableUpload { return x }

// Terminate is handler.TerminatableUpload's.
func (x *tusExchange) Terminate(context.Context) error { return x.fail(x.desk.Inbox.Remove(x.id)) }

// NewLock is handler.Locker's.
func (x *tusExchange) NewLock(id string) (handler.Lock, error) {
	return &uploadLock{x: x, id: id, unlock: func() {}}, nil
}

// uploadLock is an upload's lock as the handler takes it.
type uploadLock struct {
	x      *tusExchange
	id     string
	unlock func()
}

// Lock is handler.Lock's.
func (l *uploadLock) Lock(ctx context.Context, _ func()) error {
	unlock, err := l.x.desk.Inbox.Lock(ctx, l.id, l.x.interrupt)
	if fault.KindOf(err) == fault.Conflict {
		return handler.ErrFileLocked
	}
	if err == nil {
		l.unlock = unlock
	}
	return err
}

// Unlock is handler.Lock's.
func (l *uploadLock) Unlock() error {
	l.unlock()
	return nil
}

// tusLog takes the handler's log to ours, for those who look closely.
type tusLog struct{ to *slog.Logger }

// Enabled is experimental.Handler's.
func (l tusLog) Enabled(ctx context.Context, _ experimental.Level) bool {
	return l.to.Enabled(ctx, slog.LevelDebug)
}

// Handle is experimental.Handler's.
func (l tusLog) Handle(ctx context.Context, r experimental.Record) error {
	r.Attrs(func(a experimental.Attr) bool {
		l.to = l.to.With(a.Key, a.Value.String())
		return true
	})
	l.to.DebugContext(ctx, "tus: "+r.Message)
	return nil
}

// WithAttrs is experimental.Handler's.
func (l tusLog) WithAttrs(attrs []experimental.Attr) experimental.Handler {
	for _, a := range attrs {
		l.to = l.to.With("tus_"+a.Key, a.Value.String())
	}
	return l
}

// WithGroup is experimental.Handler's; the handler has no groups.
func (l tusLog) WithGroup(string) experimental.Handler { return l }
