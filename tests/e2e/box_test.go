//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/score"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/e2e/machine"
)

const (
	plain  = "http://127.0.0.1:5001"
	secure = "https://127.0.0.1:5001"

	server     = "whisper-appliance.service"
	socketUnit = "whisper-appliance.socket"
	target     = "whisper-appliance.target"

	debIn    = "/srv/e2e/appliance.deb"
	modelsIn = "/srv/e2e/models"
	settings = "/etc/whisper-appliance/config.d/50-e2e.toml"
)

// bookworm is the machine of most tests: Debian 12, unprivileged as in LXC.
var bookworm = machine.Options{Suite: "bookworm", Unprivileged: true}

// sharedBox is the installed machine for the tests that leave it as they found
// it; it is made by the first of them, and ends with this process.
var sharedBox = sync.OnceValues(func() (*machine.Machine, error) {
	return install(context.Background(), bookworm)
})

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
		removeShop(root)
		os.Exit(130)
	}()
	os.Remove(figures(root)) //nolint:errcheck // there are none yet
	code := m.Run()
	machine.RemoveAll(root)
	removeShop(root)
	os.Exit(code)
}

func figures(root string) string { return filepath.Join(root, "build", "e2e", "figures.txt") }

// figure prints a figure and keeps it for the report of the run.
func figure(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	t.Log(line)
	f, err := os.OpenFile(figures(checkout(t)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "%s: %s\n", t.Name(), line)
}

func checkout(t *testing.T) string {
	t.Helper()
	root, err := appliance.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// deb is the package under test: WA_DEB, or the newest that was built.
func deb(root string) (string, error) {
	if named := os.Getenv("WA_DEB"); named != "" {
		_, err := os.Stat(named)
		return named, err
	}
	found, err := filepath.Glob(filepath.Join(root, "build", "deb", "whisper-appliance_*_amd64.deb"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("there is no package in build/deb: make deb")
	}
	return slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(modified(a), modified(b)) }), nil
}

func modified(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}

// bring boots a machine and puts package, model and settings into it. Times
// that would make a test wait are short.
func bring(ctx context.Context, o machine.Options) (*machine.Machine, error) {
	root, err := appliance.Root()
	if err != nil {
		return nil, err
	}
	pkg, err := deb(root)
	if err != nil {
		return nil, err
	}
	m, err := machine.Start(ctx, root, o)
	if err != nil {
		return nil, err
	}
	const text = "[models]\ndefault = \"tiny\"\n[engine]\nidle_unload = \"2s\"\nidle_exit = \"4s\"\n"
	model := appliance.ModelFile(root, "tiny")
	err = cmp.Or(
		m.CopyIn(ctx, pkg, debIn, 0o644),
		m.CopyIn(ctx, model, modelsIn+"/"+filepath.Base(model), 0o644),
		m.CopyIn(ctx, model+".json", modelsIn+"/"+filepath.Base(model)+".json", 0o644),
		m.Write(ctx, debIn+".toml", 0o644, strings.NewReader(text)),
	)
	if err == nil {
		err = prepared(m.Sh(ctx, prepare))
	}
	if err != nil {
		m.Stop()
		return nil, err
	}
	return m, nil
}

// prepare is what an administrator may do before the installation: settings,
// and a model that is there already.
const prepare = `mkdir -p /etc/whisper-appliance/config.d /var/lib/whisper-appliance/models
	cp ` + debIn + `.toml ` + settings + `
	cp ` + modelsIn + `/* /var/lib/whisper-appliance/models/`

func prepared(r machine.Result) error {
	if r.Code != 0 {
		return fmt.Errorf("prepare the machine: %v", r)
	}
	return nil
}

const aptInstall = "apt-get install -y -q --no-install-recommends " + debIn

// install gives a machine with the package in it that serves.
func install(ctx context.Context, o machine.Options) (*machine.Machine, error) {
	m, err := bring(ctx, o)
	if err != nil {
		return nil, err
	}
	if r := m.Sh(ctx, aptInstall); r.Code != 0 {
		err := fmt.Errorf("install: %v\n%s", r, m.Run(ctx, "journalctl", "--no-pager", "-n", "60").Out)
		m.Stop()
		return nil, err
	}
	return m, nil
}

// box is a machine in a test's hands.
type box struct {
	*machine.Machine
	t      *testing.T
	client *http.Client
}

func needMachines(t *testing.T) {
	t.Helper()
	if err := machine.Available(); err != nil {
		t.Skip(err)
	}
	switch _, err := deb(checkout(t)); {
	case err != nil && os.Getenv("WA_DEB") != "":
		t.Fatal(err)
	case err != nil:
		t.Skip(err)
	}
}

// fresh is a machine of the test's own, not installed yet.
func fresh(t *testing.T, o machine.Options) *box {
	t.Helper()
	needMachines(t)
	m, err := bring(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{m, t, m.Client()}
	t.Cleanup(m.Stop)
	t.Cleanup(b.lastWords)
	return b
}

// shared is the installed machine of all tests, which must serve: a test that
// broke it and did not mend it is told of here.
func shared(t *testing.T) *box {
	t.Helper()
	needMachines(t)
	m, err := sharedBox()
	if err != nil {
		t.Fatal(err)
	}
	b := &box{m, t, m.Client()}
	b.ready()
	t.Cleanup(b.lastWords)
	return b
}

// lastWords shows the journal of a test that failed.
func (b *box) lastWords() {
	if b.t.Failed() {
		ctx := context.WithoutCancel(b.t.Context())
		const journal = `journalctl --no-pager --lines=1000 --output=short-precise | grep -v -e -probe- | tail -n 120`
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
	tick := time.NewTicker(50 * time.Millisecond)
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

// get asks a door; without an answer the status is 0 and the body the error.
func (b *box) get(url string) (status int, body string) {
	ctx, cancel := context.WithTimeout(b.t.Context(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(req)
}

func (b *box) do(req *http.Request) (status int, body string) {
	res, err := b.client.Do(req)
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

// ready waits until all that is needed for a transcription is well.
func (b *box) ready() {
	b.t.Helper()
	b.until("the appliance is ready", 60*time.Second, func() bool {
		status, _ := b.get(plain + "/readyz")
		return status == http.StatusOK
	})
}

// upload sends a recording of the checkout and gives what comes back.
func (b *box) upload(base string, name string, recording []byte) (status int, text string) {
	b.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", name)
	if err != nil {
		b.t.Fatal(err)
	}
	file.Write(recording)                      //nolint:errcheck // into memory
	form.WriteField("response_format", "text") //nolint:errcheck
	if err := form.Close(); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 3*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/audio/transcriptions", &body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	return b.do(req)
}

// reference is the clip whose text is known.
func reference(t *testing.T) (wav []byte, text string) {
	t.Helper()
	dir := filepath.Join(checkout(t), "tests", "testdata")
	wav, err := os.ReadFile(filepath.Join(dir, "reference.wav"))
	if err != nil {
		t.Fatal(err)
	}
	words, err := os.ReadFile(filepath.Join(dir, "reference.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return wav, string(words)
}

// transcribes has the reference clip transcribed, and compares its words.
func (b *box) transcribes(base string) {
	b.t.Helper()
	wav, want := reference(b.t)
	status, text := b.upload(base, "reference.wav", wav)
	if status != http.StatusOK {
		b.t.Fatalf("%s: %d: %s", base, status, text)
	}
	if c := score.Compare("en", want, text); c.Errors() > 1 {
		b.t.Errorf("%s: the text is %q, want %q", base, text, want)
	}
}

// detail is what health says, as far as the tests look at it.
type detail struct {
	Status     string
	Components []struct{ Name, Status, Error, Hint, Code string }
	Startup    struct {
		Components float64 `json:"components_ms"`
		Ready      float64 `json:"ready_ms"`
	}
}

func (b *box) detail() detail {
	_, body := b.get(plain + "/health/detailed")
	var d detail
	json.Unmarshal([]byte(body), &d) //nolint:errcheck // it is asked again, and printed by who waits
	return d
}

// component is the status of one, "" where it is not told.
func (b *box) component(name string) string {
	for _, c := range b.detail().Components {
		if c.Name == name {
			return c.Status
		}
	}
	return ""
}
