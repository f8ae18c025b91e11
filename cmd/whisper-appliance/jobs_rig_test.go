package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/database"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/inbox"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/server"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/work"
)

// parrot is an engine that says the same of each window, when it is let.
type parrot struct{ hold func(context.Context) error }

func (p parrot) Transcribe(ctx context.Context, _ engine.WindowRequest, _ []float32, observe func(engine.Event)) (engine.Done, error) {
	if p.hold != nil {
		if err := p.hold(ctx); err != nil {
			return engine.Done{}, err
		}
	}
	observe(engine.Event{Segment: &engine.Segment{End: 2 * time.Second, Text: " Hello there.", AvgLogProb: -0.2,
		Words: []engine.Word{{End: 2 * time.Second, Text: " Hello there.", Prob: 0.9}}, Tokens: []engine.Token{{ID: 1}}}})
	return engine.Done{Language: "en"}, nil
}

// tones decodes everything to two seconds of tone, but what begins with "bad".
type tones struct{}

func (tones) Decode(_ context.Context, f *os.File, _ decode.Limits, sink io.Writer) (decode.Info, error) {
	head := make([]byte, 3)
	f.ReadAt(head, 0) //nolint:errcheck // a shorter file is good enough
	if string(head) == "bad" {
		return decode.Info{}, fault.New(fault.Unsupported, decode.CodeUndecodable, "the file is not sound").On("file").Try("send sound")
	}
	var pcm []byte
	for i := range 2 * engine.SampleRate {
		v := float32(0.3 * math.Sin(2*math.Pi*440*float64(i)/engine.SampleRate))
		pcm = binary.LittleEndian.AppendUint32(pcm, math.Float32bits(v))
	}
	_, err := sink.Write(pcm)
	return decode.Info{}, err
}

type noKeys struct{}

func (noKeys) Find(string) (auth.Key, bool) { return auth.Key{}, false }

// rig is a real server over fakes that the commands talk to by its address,
// and that can be taken away and brought back.
type rig struct {
	desk    *work.Desk
	handler http.Handler
	address string
	between func(http.Handler) http.Handler // seen by every request, from the next up on

	srv *http.Server
	l   net.Listener
}

func newJobsRig(t *testing.T, hold func(context.Context) error, set ...func(*work.Desk)) *rig {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	t.Setenv("STATE_DIRECTORY", filepath.Join(dir, "state"))
	t.Setenv("CONFIGURATION_DIRECTORY", filepath.Join(dir, "config"))
	t.Setenv("CACHE_DIRECTORY", filepath.Join(dir, "cache"))
	for _, d := range []string{"spool", "jobs", "uploads", "models"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(dir, "models", "ggml-base.bin"), "x", 0o600)
	db, err := database.Open(t.Context(), database.Options{File: filepath.Join(dir, "jobs.db")})
	if err != nil {
		t.Fatal(err)
	}
	service := &transcribe.Service{Engine: parrot{hold}, Decoder: tones{}, Queue: &schedule.Queue{}, Spool: filepath.Join(dir, "spool"), Log: log}
	r := &rig{desk: &work.Desk{
		Store: job.NewStore(db, job.Options{}), Service: service, Self: job.NewWorker("test"), Dir: filepath.Join(dir, "jobs"),
		Proc: string(filepath.Separator) + "proc", Log: log, Inbox: &inbox.Inbox{Dir: filepath.Join(dir, "uploads"), Log: log},
	}}
	for _, f := range set {
		f(r.desk)
	}
	s := &server.Server{
		Config: config.Default, Service: service, Engine: &engine.Client{Socket: filepath.Join(dir, "none")}, Models: &model.Store{Dir: filepath.Join(dir, "models")},
		Keys: noKeys{}, Spool: filepath.Join(dir, "spool"), Log: log, EngineRunning: func() bool { return false }, Desk: func() *work.Desk { return r.desk },
	}
	r.handler = s.Handler()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.desk.Run(ctx) }()
	r.up(t)
	t.Setenv(urlVariable, "http://"+r.address)
	t.Cleanup(func() {
		r.down()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		db.Close()
	})
	return r
}

// up serves, at the same address as before.
func (r *rig) up(t *testing.T) {
	t.Helper()
	if r.address == "" {
		r.address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	h := r.handler
	if r.between != nil {
		h = r.between(h)
	}
	r.srv = &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	r.l = l
	go r.srv.Serve(l) //nolint:errcheck // it ends when it is closed
}

// down breaks all connections off, and takes no more.
func (r *rig) down() {
	r.srv.Close()
	r.l.Close() // where it had not begun to serve
}

// said is what a command has printed. It may be read while that runs.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// command runs a command line.
func command(ctx context.Context, args ...string) (code int, out, errOut string) {
	var stdout, stderr said
	code = run(ctx, args, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s never came", what)
		}
	}
}
