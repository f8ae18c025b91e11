//go:build e2e

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/smoke"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/vm/machine"
)

const (
	plain = "http://127.0.0.1:5001"

	server     = "whisper-appliance.service"
	home       = "/opt/whisper-appliance"
	aptInstall = "apt-get install -y -q --no-install-recommends "
)

// prepare is what an administrator may do before the installation. A trial
// lasts long enough to lose the power in it, and is committed by word.
const prepare = `mkdir -p /etc/whisper-appliance/config.d /var/lib/whisper-appliance/models
	cat >/etc/whisper-appliance/config.d/50-vm.toml <<'END'
[models]
default = "tiny"
[engine]
idle_unload = "20s"
idle_exit = "40s"
[update]
sources = ["` + machine.Stuck + `/repository"]
automatic = "off"
trial = "15m"
END
	cp ` + machine.Stuck + `/models/* /var/lib/whisper-appliance/models/
	sync`

func TestMain(m *testing.M) {
	root, err := appliance.Root()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stop
		machine.RemoveAll(root)
		os.Exit(130)
	}()
	os.Remove(figures(root)) //nolint:errcheck // there are none yet
	code := m.Run()
	machine.RemoveAll(root)
	os.Exit(code)
}

func figures(root string) string { return filepath.Join(root, "build", "vm", "figures.txt") }

// figure prints a figure and keeps it for the report of the run.
func figure(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	t.Log(line)
	root, err := appliance.Root()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(figures(root), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "%s: %s\n", t.Name(), line)
}

func needVM(t *testing.T) {
	t.Helper()
	if err := machine.Available(); err != nil {
		t.Skip(err)
	}
	root, err := appliance.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, need := range []string{"build/keys/root.json", "build/models/ggml-tiny.bin"} {
		if _, err := os.Stat(filepath.Join(root, need)); err != nil {
			t.Skipf("%s is not there: make deb model", need)
		}
	}
	if _, err := deb(root); err != nil {
		t.Skip(err)
	}
}

// theMachine is the one machine of all tests: two would be too slow for
// either. It is booted by the first of them and ends with this process.
var theMachine = sync.OnceValues(func() (*machine.Machine, error) {
	s, err := theStick()
	if err != nil {
		return nil, err
	}
	root, err := appliance.Root()
	if err != nil {
		return nil, err
	}
	return machine.Start(context.Background(), root, machine.Options{Suite: "bookworm", Stick: s.Dir, Seed: 4})
})

// box is the machine in a test's hands.
type box struct {
	*machine.Machine
	t *testing.T
}

// bare is the machine with nothing of ours installed.
func bare(t *testing.T) *box {
	t.Helper()
	needVM(t)
	m, err := theMachine()
	if err != nil {
		t.Fatal(err)
	}
	b := &box{m, t}
	t.Cleanup(b.lastWords)
	b.must(`! dpkg-query -W whisper-appliance >/dev/null 2>&1 || apt-get purge -y -q whisper-appliance
		rm -rf /etc/whisper-appliance /var/lib/whisper-appliance*`)
	b.must(prepare)
	return b
}

// installed is the machine with the package installed and serving: a test that
// broke it and did not mend it is told of here.
func installed(t *testing.T) *box {
	t.Helper()
	needVM(t)
	m, err := theMachine()
	if err != nil {
		t.Fatal(err)
	}
	b := &box{m, t}
	t.Cleanup(b.lastWords)
	if b.Run(t.Context(), "dpkg-query", "-W", "whisper-appliance").Code != 0 {
		b.must(prepare)
		b.must(aptInstall + machine.Stuck + "/appliance.deb")
	}
	b.serves(2 * time.Minute)
	return b
}

// lastWords shows the journal of a test that failed.
func (b *box) lastWords() {
	if b.t.Failed() {
		ctx := context.WithoutCancel(b.t.Context())
		const journal = `journalctl --no-pager --lines=1000 --output=short-precise | grep -v -e -probe- | tail -n 80`
		b.t.Logf("the end of the journal:\n%s\n%s", b.Sh(ctx, journal).Out,
			b.Run(ctx, "systemctl", "list-units", "--no-pager", "--all", "whisper-appliance*").Out)
	}
}

// must runs a script there that has to succeed, and gives what it printed.
func (b *box) must(script string, args ...string) string {
	b.t.Helper()
	r := b.Sh(b.t.Context(), script, args...)
	if r.Code != 0 {
		b.t.Fatalf("%s: %v", script, r)
	}
	return strings.TrimSpace(r.Out)
}

// property is what systemd says of a unit.
func (b *box) property(unit, name string) string {
	b.t.Helper()
	return b.must(`systemctl show --value --property="$2" -- "$1"`, unit, name)
}

// until asks over and over, and fails the test when it is not so in time.
func (b *box) until(what string, limit time.Duration, so func() bool) time.Duration {
	b.t.Helper()
	begin := time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-b.t.Context().Done():
			b.t.Fatalf("%s: the test has ended", what)
		}
		if time.Since(begin) > limit {
			b.t.Fatalf("not within %v: %s", limit, what)
		}
	}
	return time.Since(begin)
}

// get asks the plain door; without an answer the status is 0 and the body the
// error.
func (b *box) get(path string) (status int, body string) {
	ctx, cancel := context.WithTimeout(b.t.Context(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, plain+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(req)
}

func (b *box) do(req *http.Request) (status int, body string) {
	res, err := b.Client().Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(data)
}

// serves waits until all that is needed for a transcription is well.
func (b *box) serves(limit time.Duration) time.Duration {
	b.t.Helper()
	return b.until("the appliance is ready", limit, func() bool {
		status, _ := b.get("/readyz")
		return status == http.StatusOK
	})
}

// upload sends sound to be transcribed by a model, "" for the one in use.
func (b *box) upload(ctx context.Context, name, model string, sound io.Reader) (status int, text string) {
	body, in := io.Pipe()
	form := multipart.NewWriter(in)
	go func() {
		if model != "" {
			form.WriteField("model", model) //nolint:errcheck // the pipe tells the reader
		}
		form.WriteField("response_format", "text") //nolint:errcheck // likewise
		file, err := form.CreateFormFile("file", name)
		if err == nil {
			_, err = io.Copy(file, sound)
		}
		in.CloseWithError(errors.Join(err, form.Close())) //nolint:errcheck // it has none
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, plain+"/v1/audio/transcriptions", body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	return b.do(req)
}

// sound is a recording on the stick.
func sound(t *testing.T, name string) []byte {
	t.Helper()
	s, err := theStick()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(s.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// transcribes has a recording transcribed; only the reference clip's text is
// known.
func (b *box) transcribes(name string) time.Duration {
	b.t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	status, text := b.upload(ctx, name, "", bytes.NewReader(sound(b.t, name)))
	if status != http.StatusOK || strings.TrimSpace(text) == "" {
		b.t.Errorf("%s: %d %s", name, status, text)
	}
	if name == "clip.wav" && !smoke.Right(text) {
		b.t.Errorf("the clip is heard as %q", text)
	}
	return time.Since(begin)
}

// version is that of the release which serves, as the server itself says.
func (b *box) version() string {
	b.t.Helper()
	return b.must(`"$1/current/bin/whisper-appliance" version | cut -d' ' -f2`, home)
}

// whole looks whether what serves is, byte for byte, what its manifest says,
// and which slot that is.
func (b *box) whole() (slot string) {
	b.t.Helper()
	b.must(`whisper-appliance slot list`)
	return b.must(`basename "$(readlink "$1/current")"`, home)
}
