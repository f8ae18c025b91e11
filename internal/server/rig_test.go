package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
)

// engineFunc is an engine in one function; n counts its windows from 0.
type engineFunc func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error)

// fakeEngine counts the windows for its function.
type fakeEngine struct {
	mu     sync.Mutex
	n      int
	answer engineFunc
	last   engine.WindowRequest
}

func (f *fakeEngine) Transcribe(ctx context.Context, req engine.WindowRequest, _ []float32, observe func(engine.Event)) (engine.Done, error) {
	f.mu.Lock()
	n := f.n
	f.n++
	f.last = req
	f.mu.Unlock()
	return f.answer(ctx, n, req, observe)
}

// request is the last window's.
func (f *fakeEngine) request() engine.WindowRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// say emits one segment of two words over the window's first two seconds.
func say(observe func(engine.Event), text string) {
	observe(engine.Event{Segment: &engine.Segment{
		Start: 0, End: 2 * time.Second, Text: text, AvgLogProb: -0.25,
		Words:  []engine.Word{{Start: 0, End: time.Second, Text: text, Prob: 0.5}},
		Tokens: []engine.Token{{ID: 1, LogProb: -0.5, Bytes: []byte(text)}},
	}})
}

// talks says "Part N, äöü." in each of a recording's three windows.
func talks(_ context.Context, n int, _ engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
	say(observe, fmt.Sprintf(" Part %d, äöü.", n%3))
	return engine.Done{Language: "de"}, nil
}

// toneDecoder decodes everything to three windows of speech; what begins with
// "bad" cannot be decoded.
type toneDecoder struct{ pcm []byte }

func (d toneDecoder) Decode(ctx context.Context, f *os.File, l decode.Limits, sink io.Writer) (decode.Info, error) {
	head := make([]byte, 3)
	f.ReadAt(head, 0) //nolint:errcheck // a shorter file is good enough
	if string(head) == "bad" {
		return decode.Info{}, fault.New(fault.Unsupported, decode.CodeUndecodable, "the file is not sound").On("file").Try("send sound")
	}
	_, err := sink.Write(d.pcm)
	return decode.Info{}, err
}

// sound is stretches of tone (positive seconds) and silence (negative ones).
func sound(seconds ...int) []byte {
	const period = 40 // samples
	var wave, b []byte
	for i := range period {
		v := float32(0.3 * math.Sin(2*math.Pi*float64(i)/period))
		wave = binary.LittleEndian.AppendUint32(wave, math.Float32bits(v))
	}
	for _, s := range seconds {
		periods := max(s, -s) * engine.SampleRate / period
		if s > 0 {
			b = append(b, bytes.Repeat(wave, periods)...)
		} else {
			b = append(b, make([]byte, periods*len(wave))...)
		}
	}
	return b
}

// threeWindows is three stretches of speech with so much silence between them
// that each is a window.
func threeWindows() []byte { return sound(3, -15, 3, -15, 3) }

// keyring knows keys by their plaintext.
type keyring map[string]auth.Key

func (k keyring) Find(plaintext string) (auth.Key, bool) {
	key, ok := k[plaintext]
	return key, ok
}

func keys() keyring {
	return keyring{
		"wa_user":  {Name: "user", Scopes: []auth.Scope{auth.Transcribe}},
		"wa_admin": {Name: "admin", Scopes: []auth.Scope{auth.Admin}},
	}
}

// rig is a server of fakes.
type rig struct {
	*Server
	conf   *config.Config
	engine *fakeEngine
	saved  map[string]string
}

// newRig makes a server with the model tiny in use (its file is there, of no
// use). When the test ends, no file may
// be left in the spool, no request under way, no goroutine and no descriptor
// more than at its start.
func newRig(t *testing.T, answer engineFunc) *rig {
	t.Helper()
	noLeaks(t)
	return oneOfMany(t, answer)
}

// oneOfMany is newRig for tests that run beside others, whose goroutines and
// descriptors cannot be told apart.
func oneOfMany(t *testing.T, answer engineFunc) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{conf: config.Default(), engine: &fakeEngine{answer: answer}, saved: map[string]string{}}
	r.conf.Models.Default = "tiny"
	models := &model.Store{Dir: filepath.Join(dir, "models")}
	spool := filepath.Join(dir, "spool")
	for _, d := range []string{models.Dir, spool} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(models.Dir, "ggml-tiny.bin"), "x")
	log := slog.New(slog.DiscardHandler)
	r.Server = &Server{
		Config:      func() *config.Config { return r.conf },
		SaveSetting: func(key, value string) error { r.saved[key] = value; return nil },
		Service:     &transcribe.Service{Engine: r.engine, Decoder: toneDecoder{threeWindows()}, Queue: &schedule.Queue{}, Spool: spool, Log: log},
		Engine:      &engine.Client{Socket: filepath.Join(dir, "no engine")},
		Models:      models, Keys: keys(), Spool: spool, Log: log,
		EngineRunning: func() bool { return false },
	}
	t.Cleanup(func() {
		eventually(t, "the end of all requests", func() bool { return r.active.Load() == 0 })
		if left, err := os.ReadDir(spool); err != nil || len(left) > 0 {
			t.Errorf("the spool holds %v, %v", left, err)
		}
	})
	return r
}

// start serves the rig over TCP.
func (r *rig) start(t *testing.T) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(r.Handler())
	srv.Config.ConnContext = connContext
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

// noLeaks compares goroutines and descriptors at the end with those of now. It
// has to be the first of a test's cleanups, which then is the last to run.
func noLeaks(t *testing.T) {
	t.Helper()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if !eventually(t, "as few goroutines as before", func() bool { return runtime.NumGoroutine() <= goroutines }) {
			stacks := make([]byte, 1<<16)
			t.Logf("%s", stacks[:runtime.Stack(stacks, true)])
		}
		eventually(t, "as few descriptors as before", func() bool { return descriptors(t) <= files })
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(filepath.Join(string(filepath.Separator), "proc", "self", "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) bool {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Errorf("%s never came", what)
			return false
		}
	}
	return true
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// part is a field of a form; a file where it has a file name.
type part struct{ name, file, value string }

func recording(field string) part { return part{field, "a.wav", "a recording"} }

// encode makes a form of parts.
func encode(parts ...part) (body, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		var to io.Writer
		if p.file != "" {
			to, _ = w.CreateFormFile(p.name, p.file)
		} else {
			to, _ = w.CreateFormField(p.name)
		}
		io.WriteString(to, p.value) //nolint:errcheck // a bytes.Buffer
	}
	w.Close()
	return b.String(), w.FormDataContentType()
}

// answered is a whole answer.
type answered struct {
	status int
	header http.Header
	body   string
	length int64 // Content-Length, -1 where it was not known
	err    error // of reading the body
}

func (a answered) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return v
}

// post sends a form and reads the answer.
func post(t *testing.T, url string, parts ...part) answered {
	t.Helper()
	body, kind := encode(parts...)
	return do(t, http.MethodPost, url, strings.NewReader(body), "Content-Type", kind)
}

// do sends a request with the headers given by name and value.
func do(t *testing.T, method, url string, body io.Reader, headers ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return read(resp)
}

func read(resp *http.Response) answered {
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return answered{resp.StatusCode, resp.Header, string(data), resp.ContentLength, err}
}

// want checks the status and that the body says all of words.
func (a answered) want(t *testing.T, status int, words ...string) {
	t.Helper()
	if a.status != status || a.err != nil {
		t.Errorf("status %d, %v; want %d: %.400s", a.status, a.err, status, a.body)
	}
	for _, w := range words {
		if !strings.Contains(a.body, w) {
			t.Errorf("%.400q does not say %q", a.body, w)
		}
	}
}
