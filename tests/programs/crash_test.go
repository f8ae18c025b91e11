//go:build e2e

package programs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/engine"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
)

// long writes the reference clip n times over, with pauses, and gives the text
// that has to come out.
func long(t *testing.T, n int) (path string, sentence string) {
	t.Helper()
	clip, text := reference(t)
	sound, err := clips.Read(t.Context(), clip)
	if err != nil {
		t.Fatal(err)
	}
	sounds := make([]clips.Sound, n)
	for i := range sounds {
		sounds[i] = sound
	}
	path = filepath.Join(t.TempDir(), "long.wav")
	if err := clips.Join(sounds, time.Second, 2*time.Second, 1).WriteWAV(path); err != nil {
		t.Fatal(err)
	}
	return path, text
}

// ask is a transcription of path, in English.
func ask(a *appliance.Appliance, path, model string) clips.Request {
	return clips.Request{
		URL: a.URL + "/v1/audio/transcriptions", Key: a.Key, Path: path,
		Fields: map[string]string{"model": model, "language": "en"},
	}
}

// until polls cond, for at most limit.
func until(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// TestEngineKilledInAWindow: the client gets its answer from the next engine.
func TestEngineKilledInAWindow(t *testing.T) {
	a := start(t, appliance.Options{})
	path, sentence := long(t, 6)
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, _, err := ask(a, path, "tiny").Transcribe(context.WithoutCancel(t.Context()))
		got <- answer{text, err}
	}()
	var first int
	until(t, 30*time.Second, "an engine with a model", func() bool {
		pid, err := a.EnginePID()
		first = pid
		return err == nil && pid != 0 && resident(pid) > 100<<20
	})
	time.Sleep(200 * time.Millisecond) // into the window
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	result := <-got
	if result.err != nil {
		t.Fatalf("%v\n%s", result.err, a.Log())
	}
	if n := strings.Count(result.text, strings.TrimSuffix(sentence, ".")); n < 5 {
		t.Errorf("the sentence came %d times of 6: %q", n, result.text)
	}
	if next, err := a.EnginePID(); err != nil || next == first || next == 0 {
		t.Errorf("engine %d after %d, %v", next, first, err)
	}
}

func resident(pid int) int64 {
	pss, err := appliance.PSS(pid)
	if err != nil {
		return 0
	}
	return pss
}

// TestEngineOutOfMemory: whisper.cpp cannot have what it asks for; the client
// is answered all the same, by the next engine or with a clear error.
func TestEngineOutOfMemory(t *testing.T) {
	a := start(t, appliance.Options{})
	socket := engine.Client{Socket: filepath.Join(filepath.Dir(a.Run), "engine.sock")}
	if _, err := socket.Status(t.Context()); err != nil { // starts an engine without a model
		t.Fatal(err)
	}
	pid, err := a.EnginePID()
	if err != nil {
		t.Fatal(err)
	}
	const room = 40 << 20 // beyond what it has: less than the model
	limit := unix.Rlimit{Cur: addressSpace(t, pid) + room, Max: addressSpace(t, pid) + room}
	if err := unix.Prlimit(pid, unix.RLIMIT_AS, &limit, nil); err != nil {
		t.Fatal(err)
	}
	clip, want := reference(t)
	text, _, err := ask(a, clip, "tiny").Transcribe(t.Context())
	t.Logf("%q, %v", text, err)
	if err == nil && text != want {
		t.Errorf("heard %q, want %q", text, want)
	}
	if err != nil && !strings.Contains(err.Error(), "503") {
		t.Errorf("error %v, want a 503 with its reason", err)
	}
}

func addressSpace(t *testing.T, pid int) uint64 {
	t.Helper()
	n, err := appliance.AddressSpace(pid)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDamagedModel: an error to one request, never the end of the server.
func TestDamagedModel(t *testing.T) {
	models := t.TempDir()
	tiny := appliance.ModelFile(root(t), "tiny")
	if err := os.Symlink(tiny, filepath.Join(models, "ggml-tiny.bin")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(tiny)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"cut":      data[:len(data)/2],
		"nonsense": append(append([]byte{}, data[:4]...), []byte(strings.Repeat("nonsense", 1<<18))...),
	} {
		if err := os.WriteFile(filepath.Join(models, "ggml-"+name+".bin"), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a := start(t, appliance.Options{Env: []string{"WHISPER_APPLIANCE_MODELS_DIRECTORY=" + models}})
	clip, want := reference(t)
	for _, name := range []string{"cut", "nonsense"} {
		_, _, err := ask(a, clip, name).Transcribe(t.Context())
		if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "models verify "+name) {
			t.Errorf("%s: %v, want 503 with what to do", name, err)
		}
		t.Logf("%s: %v", name, err)
	}
	text, _, err := ask(a, clip, "tiny").Transcribe(t.Context())
	if err != nil || text != want {
		t.Errorf("the good model afterwards: %q, %v", text, err)
	}
}

// TestServerKilled: an engine never outlives its server.
func TestServerKilled(t *testing.T) {
	a, err := appliance.Start(t.Context(), appliance.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Stop() //nolint:errcheck // it is dead
	clip, _ := reference(t)
	if _, _, err := ask(a, clip, "tiny").Transcribe(t.Context()); err != nil {
		t.Fatal(err)
	}
	engine, err := a.EnginePID()
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(a.PID, syscall.SIGKILL)
	until(t, 10*time.Second, "the engine's end", func() bool {
		return syscall.Kill(engine, 0) != nil || zombie(engine)
	})
}

// zombie: in a container without an init nobody reaps it.
func zombie(pid int) bool { return resident(pid) == 0 }

// TestHangUpFreesTheEngine: the next client does not wait for one who has left.
func TestHangUpFreesTheEngine(t *testing.T) {
	a := start(t, appliance.Options{})
	path, _ := long(t, 60) // minutes of work
	clip, want := reference(t)
	if _, _, err := ask(a, clip, "tiny").Transcribe(t.Context()); err != nil {
		t.Fatal(err) // loads the model
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, _, err := ask(a, path, "tiny").Transcribe(ctx); err == nil {
		t.Fatal("the long recording was done in 3 s: nothing was cut off")
	}
	started := time.Now()
	text, _, err := ask(a, clip, "tiny").Transcribe(t.Context())
	if err != nil || text != want {
		t.Errorf("%q, %v", text, err)
	}
	t.Logf("the next client was answered after %v", time.Since(started).Round(10*time.Millisecond))
	if files, _ := os.ReadDir(filepath.Join(a.State, "spool")); len(files) != 0 {
		t.Errorf("left in the spool: %v", files)
	}
}

// TestSecondServerIsRefused: starting twice by mistake costs the first nothing.
func TestSecondServerIsRefused(t *testing.T) {
	a := start(t, appliance.Options{})
	for name, listen := range map[string]string{"same port": strings.TrimPrefix(a.URL, "http://"), "another port": "127.0.0.1:0"} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(root(t), "build", "slot", "bin", "whisper-appliance-server"), "--listen", listen)
		cmd.Env = append(os.Environ(), "STATE_DIRECTORY="+a.State, "RUNTIME_DIRECTORY="+filepath.Dir(a.Run), "CONFIGURATION_DIRECTORY="+a.Config)
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "another") {
			t.Errorf("%s: exit %d, %s", name, cmd.ProcessState.ExitCode(), out)
		}
	}
	clip, want := reference(t)
	text, _, err := ask(a, clip, "tiny").Transcribe(t.Context())
	if err != nil || text != want {
		t.Errorf("the first server afterwards: %q, %v", text, err)
	}
}

// TestStoppedEngineDoesNotBlockHealth: a frozen engine holds up nobody who only asks
// how the appliance is.
func TestStoppedEngineDoesNotBlockHealth(t *testing.T) {
	a := start(t, appliance.Options{})
	clip, _ := reference(t)
	if _, _, err := ask(a, clip, "tiny").Transcribe(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid, err := a.EnginePID()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT) //nolint:errcheck // it may have gone
	for _, path := range []string{"/livez", "/health", "/readyz", "/api/status"} {
		started := time.Now()
		if _, err := clips.Do(t.Context(), "GET", a.URL+path, a.Key, "", nil); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("%s took %v beside a frozen engine", path, took)
		}
	}
}
