package work

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/database"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
)

// fakeEngine says "part N." for the window N that a job begins at, and notes each
// window that it was given. hold is called for each, before it answers.
type fakeEngine struct {
	hold func(ctx context.Context, n int) error
	sure float64 // of the language

	mu sync.Mutex
	n  int
}

func (f *fakeEngine) Transcribe(ctx context.Context, req engine.WindowRequest, pcm []float32, observe func(engine.Event)) (engine.Done, error) {
	f.mu.Lock()
	n := f.n
	f.n++
	f.mu.Unlock()
	if f.hold != nil {
		if err := f.hold(ctx, n); err != nil {
			return engine.Done{}, err
		}
	}
	length := time.Duration(len(pcm)) * time.Second / engine.SampleRate
	observe(engine.Event{Segment: &engine.Segment{End: length, Text: fmt.Sprintf(" %d samples.", len(pcm)), Tokens: []engine.Token{{ID: 1}}}})
	return engine.Done{Language: "en", LanguageProb: f.sure}, nil
}

func (f *fakeEngine) windows() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// fakeDecoder takes each byte of a recording for a second of sound, and then
// silence that parts windows.
type fakeDecoder struct{}

func (fakeDecoder) Decode(_ context.Context, f *os.File, _ decode.Limits, sink io.Writer) (decode.Info, error) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		return decode.Info{}, err
	}
	for _, b := range data {
		if b == '!' {
			return decode.Info{}, fault.New(fault.Unsupported, "undecodable", "the file is not sound")
		}
		const silence = 12 * engine.SampleRate
		pcm := make([]byte, 0, 4*(int(b-'0')*engine.SampleRate+silence))
		for i := range int(b-'0') * engine.SampleRate {
			v := float32(0.3 * math.Sin(2*math.Pi*440*float64(i)/engine.SampleRate))
			pcm = binary.LittleEndian.AppendUint32(pcm, math.Float32bits(v))
		}
		if _, err := sink.Write(pcm[:cap(pcm)]); err != nil {
			return decode.Info{}, err
		}
	}
	return decode.Info{}, nil
}

// rig is a desk of fakes over a real store.
type rig struct {
	*Desk
	engine *fakeEngine
	db     *database.DB
	dir    string
	end    func() // of Run
}

// newRig is a desk on a database of its own.
func newRig(t *testing.T) *rig { return rigIn(t, t.TempDir()) }

// rigIn is another desk on the database and the recordings in dir, as another
// process would have.
func rigIn(t *testing.T, dir string) *rig {
	t.Helper()
	db, err := database.Open(t.Context(), database.Options{File: filepath.Join(dir, "jobs.db")})
	if err != nil {
		t.Fatal(err)
	}
	recordings := filepath.Join(dir, "recordings")
	if err := os.MkdirAll(recordings, 0o700); err != nil {
		t.Fatal(err)
	}
	e := &fakeEngine{}
	r := &rig{engine: e, db: db, dir: dir, end: func() {}, Desk: &Desk{
		Store: job.NewStore(db, job.Options{}), Self: job.NewWorker("test"), Dir: recordings,
		Proc: string(filepath.Separator) + "proc", Lock: filepath.Join(dir, "lock"), Log: slog.New(slog.DiscardHandler),
		Service: &transcribe.Service{Engine: e, Decoder: fakeDecoder{}, Queue: &schedule.Queue{}, Spool: dir, Log: slog.New(slog.DiscardHandler)},
	}}
	t.Cleanup(func() {
		r.end()
		db.Close()
	})
	return r
}

// start has jobs done until the test ends, or r.end is called.
func (r *rig) start(t *testing.T) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

// wish is one for a recording of windows that last so many seconds each.
func (r *rig) wish(t *testing.T, owner, windows string) Wish {
	t.Helper()
	f, err := durable.Nameless(r.dir, 0o444)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(windows); err != nil {
		t.Fatal(err)
	}
	return Wish{Job: transcribe.Job{
		Audio: f, Name: "test.wav", Owner: owner, Class: schedule.Long, Model: "tiny", ModelFile: "ggml-tiny.bin", ByLoudness: true,
	}}
}

func (r *rig) submit(t *testing.T, w Wish) job.Job {
	t.Helper()
	j, joined, err := r.Submit(t.Context(), w)
	if err != nil || joined {
		t.Fatalf("submit: joined %v, %v", joined, err)
	}
	return j
}

// await waits until a job is in a state.
func (r *rig) await(t *testing.T, id string, want job.State) job.Job {
	t.Helper()
	var j job.Job
	eventually(t, fmt.Sprintf("job %s being %s", id, want), func() bool {
		var err error
		if j, err = r.Store.Get(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return j.State == want
	})
	return j
}

// recordings are the files that are kept.
func (r *rig) recordings(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s never happened", what)
		}
	}
}

func wantFault(t *testing.T, err error, kind fault.Kind, code string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != kind || f.Code != code {
		t.Fatalf("got %v, want a fault %s (%d)", err, code, kind.Status())
	}
}

func ignore(transcribe.Update) {}
