package appliance

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/auth"
)

// TestMain is the tests, or the fakes when it is started by their names.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "whisper-appliance-server":
		os.Exit(fakeServer(os.Getenv("FAKE")))
	case engineProgram:
		if os.Getenv("FAKE") == "orphan" {
			time.Sleep(time.Minute)
		}
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeServer answers /livez and has an engine. mode says what is wrong with it.
func fakeServer(mode string) int {
	if mode == "dies" {
		fmt.Fprintln(os.Stderr, "there is no luck today")
		return 78
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	exe, _ := os.Executable()
	engine := exec.Command(exe)
	engine.Args[0] = engineProgram
	lifeline, _ := engine.StdinPipe()
	if err := engine.Start(); err != nil {
		return 1
	}
	http.HandleFunc("/livez", func(http.ResponseWriter, *http.Request) {})
	go http.ListenAndServe(os.Getenv("WHISPER_APPLIANCE_SERVER_LISTEN"), nil)
	for range stop {
		if mode != "deaf" {
			break
		}
	}
	fmt.Fprintln(os.Stderr, "going, mode", mode)
	switch mode {
	case "fails":
		return 3
	case "orphan":
		return 0
	}
	lifeline.Close()
	engine.Wait()
	return 0
}

// checkout is a directory in which the fake stands for what was built.
func checkout(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(serverProgram(root)), filepath.Dir(ModelFile(root, "tiny"))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(exe, serverProgram(root)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ModelFile(root, "tiny"), []byte("model"), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestStartAndStop(t *testing.T) {
	t.Setenv("WHISPER_MODEL", "large-v3") // a person's settings have no say
	var log bytes.Buffer
	a, err := Start(t.Context(), Options{Root: checkout(t), Env: []string{"FAKE=ok"}, Stderr: &log})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Stop()
	if !alive(t.Context(), a.URL+"/livez") || a.Started <= 0 || strings.TrimPrefix(a.HTTPS, "https") != strings.TrimPrefix(a.URL, "http") {
		t.Errorf("URL %s, HTTPS %s, started in %v", a.URL, a.HTTPS, a.Started)
	}
	env, err := os.ReadFile(procFile(a.PID, "environ"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"STATE_DIRECTORY=" + a.State, "WHISPER_APPLIANCE_MODELS_DEFAULT=tiny", "FAKE=ok"} {
		if !bytes.Contains(env, []byte(want+"\x00")) {
			t.Errorf("the server's environment lacks %s", want)
		}
	}
	if bytes.Contains(env, []byte("WHISPER_MODEL")) {
		t.Error("a variable of ours went through to the server")
	}
	keys, err := auth.List(filepath.Join(a.Config, "keys.toml"))
	if err != nil || len(keys) != 2 || keys[0].Has(auth.Admin) || !keys[1].Has(auth.Admin) || a.Key == a.AdminKey {
		t.Errorf("keys %+v, %v", keys, err)
	}
	checkProcesses(t, a)
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "going") || a.Log() != log.String() {
		t.Errorf("the log is %q, kept %q", log.String(), a.Log())
	}
	if _, err := os.Stat(a.Dir); err == nil {
		t.Error("Stop left the directory")
	}
}

func checkProcesses(t *testing.T, a *Appliance) {
	t.Helper()
	engine, err := a.EnginePID()
	children, childErr := a.Children()
	if err != nil || childErr != nil || !slices.Equal(children, []int{engine}) {
		t.Errorf("engine %d (%v), children %v (%v)", engine, err, children, childErr)
	}
	if n, err := a.FDs(); err != nil || n < 3 {
		t.Errorf("%d descriptors, %v", n, err)
	}
	if zombies, err := a.Zombies(); err != nil || len(zombies) > 0 {
		t.Errorf("zombies %v, %v", zombies, err)
	}
	one, err := PSS(a.PID)
	all, allErr := a.PSS()
	if err != nil || allErr != nil || one < 1<<20 || all <= one {
		t.Errorf("memory %d (%v), with the engine %d (%v)", one, err, all, allErr)
	}
	if mapped, err := AddressSpace(a.PID); err != nil || mapped < uint64(one) {
		t.Errorf("mapped %d (%v), of which %d are in memory", mapped, err, one)
	}
}

func TestZombieIsFound(t *testing.T) {
	child := exec.Command("true")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	a := &Appliance{PID: os.Getpid()}
	for range 200 {
		if zombies, err := a.Zombies(); err == nil && slices.Contains(zombies, child.Process.Pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a child that ended and was not waited for is not among the zombies")
}

func TestFailures(t *testing.T) {
	for _, c := range []struct{ mode, start, stop string }{
		{mode: "dies", start: "exit status 78\nthere is no luck today"},
		{mode: "fails", stop: "exit status 3\ngoing, mode fails"},
		{mode: "deaf", stop: "did not end within 300ms"},
		{mode: "orphan", stop: "behind"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			a, err := Start(t.Context(), Options{Root: checkout(t), Env: []string{"FAKE=" + c.mode}, StopLimit: stopIn(c.mode)})
			if c.start != "" {
				if err == nil || !strings.Contains(err.Error(), c.start) {
					t.Errorf("Start: %v; want %q", err, c.start)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			engine, _ := a.EnginePID()
			defer syscall.Kill(engine, syscall.SIGKILL)
			if err := a.Stop(); err == nil || !strings.Contains(err.Error(), c.stop) {
				t.Errorf("Stop: %v; want %q", err, c.stop)
			}
			if state(a.PID) != 0 {
				t.Error("the server is still there")
			}
			if _, err := os.Stat(a.Dir); err == nil {
				t.Error("Stop left the directory")
			}
		})
	}
}

func stopIn(mode string) time.Duration {
	if mode == "deaf" {
		return 300 * time.Millisecond
	}
	return 0
}

// TestEndAndAgain: a server that was killed comes back at its address, on the
// state directory that it was given, which stays.
func TestEndAndAgain(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	a, err := Start(t.Context(), Options{Root: checkout(t), State: state, Env: []string{"FAKE=ok"}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Stop()
	first, url := a.PID, a.URL
	if err := a.End(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if alive(t.Context(), url+"/livez") {
		t.Error("it answers after its end")
	}
	if err := a.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.PID == first || a.URL != url || a.State != state || !alive(t.Context(), url+"/livez") {
		t.Errorf("process %d after %d, %s after %s, state in %s", a.PID, first, a.URL, url, a.State)
	}
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(state); err != nil {
		t.Errorf("the state directory went with the appliance: %v", err)
	}
	if err := a.End(syscall.SIGTERM); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func TestNotBuilt(t *testing.T) {
	root := checkout(t)
	if err := os.Remove(ModelFile(root, "tiny")); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Root: root}); err == nil || !strings.Contains(err.Error(), "make model") {
		t.Errorf("without a model: %v", err)
	}
	if _, err := Start(t.Context(), Options{Root: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("without a build: %v", err)
	}
}

func TestRoot(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "tests", "appliance", "appliance_test.go")); err != nil {
		t.Error(err)
	}
	t.Chdir(t.TempDir())
	if root, err := Root(); err == nil {
		t.Errorf("outside of a checkout it is %s", root)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var log tail
	for i := range 50000 {
		fmt.Fprintln(&log, "line", i)
	}
	if s := log.String(); len(s) > 2*tailSize || !strings.HasSuffix(s, "line 49999\n") {
		t.Errorf("%d bytes are kept", len(s))
	}
}

func TestStatOfOddNames(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a) Z 1 (b")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("sleep is not installed")
	}
	if err := os.Symlink(sleep, odd); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(odd, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if s, parent := stat(cmd.Process.Pid); s == 'Z' || s == 0 || parent != os.Getpid() {
		t.Errorf("state %c, parent %s; want ours, %d", s, strconv.Itoa(parent), os.Getpid())
	}
}

func TestIdentifyAndUnload(t *testing.T) {
	answer, asked := `{"build":{"version":"9.8.7","commit":"abc"}}`, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization")
		io.WriteString(w, answer)
	}))
	defer server.Close()
	a := &Appliance{URL: server.URL, Key: "k", AdminKey: "ak"}
	check := func(want, door string) {
		t.Helper()
		got, err := a.Identify(t.Context())
		if err != nil || got.Line != want || got.Commit != "abc" || asked != door {
			t.Errorf("Identify = %q, %v by %s; want %q by %s", got, err, asked, want, door)
		}
	}
	check("whisper-appliance 9.8.7", "GET /api/status Bearer k")
	answer = `{"build":{"version":"9.8.7","commit":"abc"},"engine":{"whisper":"1.9","backend":"CPU (x)"}}`
	check("whisper-appliance 9.8.7, whisper.cpp 1.9 on CPU (x)", "GET /api/status Bearer k")
	if err := a.Unload(t.Context()); err != nil || asked != "POST /api/v1/engine/unload Bearer ak" {
		t.Errorf("Unload: %v by %s", err, asked)
	}
	server.Close()
	if err := a.Unload(t.Context()); err == nil {
		t.Error("Unload without a server succeeded")
	}
	if got, err := a.Identify(t.Context()); err == nil {
		t.Errorf("Identify without a server: %q", got)
	}
}
