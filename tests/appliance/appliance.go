// Package appliance starts the appliance that was built into build/slot, for
// tests and measurements: with directories, keys and a port of its own, so
// that several can run beside each other and beside an installed one. It
// trusts the build. It writes a temporary directory, which Stop removes.
package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/config"
)

const (
	startLimit = 30 * time.Second      // until /livez answers
	stopLimit  = 15 * time.Second      // from SIGTERM to the end, unless Options say otherwise
	lastWords  = 3 * time.Second       // from the server's end to that of children that share its log
	pollEvery  = 10 * time.Millisecond // of /livez
)

// Options say how an appliance is started. The zero value is usual.
type Options struct {
	Root      string        // the checkout; "" = found upwards from the working directory
	Model     string        // catalogue name; "" = tiny
	MaxUpload int64         // bytes; 0 = what the setting is by itself
	Users     int           // how many more keys there are, each somebody else's
	State     string        // state directory, made where it is missing and left behind; "" = one of its own
	Env       []string      // more variables, "WHISPER_APPLIANCE_SECTION_KEY=value"; they win
	Keep      bool          // leave the temporary directory behind
	StopLimit time.Duration // how long Stop waits for the server to end; 0 = 15 s
	Stderr    io.Writer     // gets the log as it comes; nil = it is only kept for errors
}

// Appliance is one that runs.
type Appliance struct {
	URL       string        // "http://127.0.0.1:41234"
	HTTPS     string        // the same port by TLS, with a certificate of its own making
	PID       int           // of the server
	Dir       string        // all it writes is in here
	State     string        // its state directory
	Run       string        // the path of its API socket
	Config    string        // its configuration directory
	MaxUpload int64         // the largest recording it takes, in bytes
	Key       string        // an API key with the scope transcribe
	AdminKey  string        // an API key with the scope admin
	Users     []string      // the keys that the options ask for, with the scope transcribe
	Started   time.Duration // from the start of the process to the first answer of /livez

	opts  Options
	log   tail
	ended chan struct{} // closed when the server has gone
	err   error         // how it went; read after ended
}

// Root is the checkout that the working directory is in.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), "module whisper-appliance\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the checkout: %s is not in one", start)
		}
	}
}

// ModelFile is where the checkout at root keeps a model of the catalogue.
func ModelFile(root, name string) string {
	return filepath.Join(root, "build", "models", "ggml-"+name+".bin")
}

func serverProgram(root string) string {
	return filepath.Join(root, "build", "slot", "bin", "whisper-appliance-server")
}

// Built checks that the checkout at root has an appliance to start with the
// model called name. The error says which command makes what is missing.
func Built(root, name string) error {
	for _, need := range []struct{ path, command string }{
		{serverProgram(root), "make build"},
		{ModelFile(root, name), "make model"},
	} {
		if _, err := os.Stat(need.path); err != nil {
			return fmt.Errorf("the appliance is not there to be started: %w; run %q first", err, need.command)
		}
	}
	return nil
}

// Start runs an appliance and waits until it serves. It lives until Stop; ctx
// bounds only the start.
func Start(ctx context.Context, o Options) (*Appliance, error) {
	a, err := build(o)
	if err != nil {
		return nil, err
	}
	if err := a.start(ctx); err != nil {
		a.clean()
		return nil, fmt.Errorf("start the appliance: %w", err)
	}
	return a, nil
}

// build fills in what the options leave open.
func build(o Options) (*Appliance, error) {
	if o.Root == "" {
		root, err := Root()
		if err != nil {
			return nil, err
		}
		o.Root = root
	}
	o.Model = cmp.Or(o.Model, "tiny")
	o.StopLimit = cmp.Or(o.StopLimit, stopLimit)
	o.MaxUpload = cmp.Or(o.MaxUpload, int64(config.Default().Server.MaxUpload))
	if err := Built(o.Root, o.Model); err != nil {
		return nil, err
	}
	return &Appliance{opts: o, MaxUpload: o.MaxUpload, ended: make(chan struct{})}, nil
}

func (a *Appliance) start(ctx context.Context) error {
	if err := a.prepare(); err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	a.URL, a.HTTPS = "http://"+address, "https://"+address
	begin := time.Now()
	if err := a.launch(address); err != nil {
		return err
	}
	if err := a.wait(ctx); err != nil {
		a.kill()
		return fmt.Errorf("%w\n%s", err, a.Log())
	}
	a.Started = time.Since(begin)
	return nil
}

// prepare makes the directories and the keys. The temporary directory's path
// is short, since it holds sockets.
func (a *Appliance) prepare() (err error) {
	if a.Dir, err = os.MkdirTemp("", "wa-"); err != nil {
		return err
	}
	a.State, a.Config = cmp.Or(a.opts.State, filepath.Join(a.Dir, "state")), filepath.Join(a.Dir, "config")
	a.Run = filepath.Join(a.Dir, "run", "api.sock")
	for _, dir := range []string{a.State, a.Config, filepath.Dir(a.Run)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if a.Key, err = a.addKey("test", auth.Transcribe); err != nil {
		return err
	}
	for i := range a.opts.Users {
		key, err := a.addKey(fmt.Sprintf("user-%d", i+1), auth.Transcribe)
		if err != nil {
			return err
		}
		a.Users = append(a.Users, key)
	}
	a.AdminKey, err = a.addKey("test-admin", auth.Admin)
	return err
}

func (a *Appliance) addKey(name string, scope auth.Scope) (string, error) {
	plaintext, key, err := auth.New(name, []auth.Scope{scope}, time.Now())
	if err != nil {
		return "", err
	}
	return plaintext, auth.Add(filepath.Join(a.Config, "keys.toml"), key)
}

// freeAddress is one that nobody listens on. Somebody else may take it before
// the server does; the server then says so.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// environment is the server's: nothing of ours but what finds programs, so
// that no setting of the person who runs this has a say.
func (a *Appliance) environment(address string) []string {
	env := []string{
		"STATE_DIRECTORY=" + a.State,
		"CACHE_DIRECTORY=" + filepath.Join(a.Dir, "cache"),
		"RUNTIME_DIRECTORY=" + filepath.Dir(a.Run),
		"CONFIGURATION_DIRECTORY=" + a.Config,
		"WHISPER_APPLIANCE_SERVER_LISTEN=" + address,
		"WHISPER_APPLIANCE_SERVER_MAX_UPLOAD=" + strconv.FormatInt(a.MaxUpload, 10),
		"WHISPER_APPLIANCE_MODELS_DIRECTORY=" + filepath.Dir(ModelFile(a.opts.Root, a.opts.Model)),
		"WHISPER_APPLIANCE_MODELS_DEFAULT=" + a.opts.Model,
	}
	for _, name := range []string{"PATH", "HOME", "LANG", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, a.opts.Env...)
}

// launch starts the process. It is in a group of its own, so that Ctrl-C comes
// to us alone, and the kernel stops it should we die: the thread that started
// it must live as long, which is why one stays with it.
func (a *Appliance) launch(address string) error {
	cmd := exec.Command(serverProgram(a.opts.Root))
	cmd.Env, cmd.Dir = a.environment(address), a.Dir
	var out io.Writer = &a.log
	if a.opts.Stderr != nil {
		out = io.MultiWriter(&a.log, a.opts.Stderr)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = lastWords
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			a.err = cmd.Wait()
			close(a.ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	a.PID = cmd.Process.Pid
	return nil
}

// wait polls /livez until it answers.
func (a *Appliance) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if alive(ctx, a.URL+"/livez") {
			return nil
		}
		select {
		case <-a.ended:
			return fmt.Errorf("it ended at once: %w", cmp.Or(a.err, errors.New("exit status 0")))
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", a.URL, ctx.Err())
		case <-tick.C:
		}
	}
}

func alive(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// Stop asks the server to end and removes what it wrote. It is an error when
// the server does not end by itself in time or with another exit code than 0,
// or leaves a child behind. A second Stop does nothing more.
func (a *Appliance) Stop() error {
	defer a.clean()
	children, err := a.Children()
	if err != nil {
		return err
	}
	a.signal(syscall.SIGTERM)
	select {
	case <-a.ended:
	case <-time.After(a.opts.StopLimit):
		a.kill()
		return fmt.Errorf("stop the appliance: it did not end within %v\n%s", a.opts.StopLimit, a.Log())
	}
	if a.err != nil {
		return fmt.Errorf("stop the appliance: %w\n%s", a.err, a.Log())
	}
	for _, pid := range children {
		if s := state(pid); s != 0 && s != 'Z' { // a zombie is for its new parent to see to
			return fmt.Errorf("stop the appliance: it left its child %d behind\n%s", pid, a.Log())
		}
	}
	return nil
}

// Restart ends the server with a signal, SIGKILL for a crash, and starts it again
// on what it has left behind, at the same address.
func (a *Appliance) Restart(ctx context.Context, how syscall.Signal) error {
	if err := a.End(how); err != nil {
		return err
	}
	return a.Again(ctx)
}

// End ends the server with a signal. What it has written stays.
func (a *Appliance) End(how syscall.Signal) error {
	a.signal(how)
	select {
	case <-a.ended:
		return nil
	case <-time.After(a.opts.StopLimit):
		return fmt.Errorf("end the appliance: it did not end within %v\n%s", a.opts.StopLimit, a.Log())
	}
}

// Again starts a server that was ended on what it has left behind, at the same
// address.
func (a *Appliance) Again(ctx context.Context) error {
	a.ended = make(chan struct{})
	begin := time.Now()
	if err := a.launch(strings.TrimPrefix(a.URL, "http://")); err != nil {
		return err
	}
	if err := a.wait(ctx); err != nil {
		a.kill()
		return fmt.Errorf("restart the appliance: %w\n%s", err, a.Log())
	}
	a.Started = time.Since(begin)
	return nil
}

// signal sends the server a signal, unless it has ended: its process id may
// be another's by then.
func (a *Appliance) signal(s syscall.Signal) {
	select {
	case <-a.ended:
	default:
		syscall.Kill(a.PID, s) //nolint:errcheck // it has just ended
	}
}

// kill ends the server at once; its engine ends with it.
func (a *Appliance) kill() {
	a.signal(syscall.SIGKILL)
	<-a.ended
}

func (a *Appliance) clean() {
	if !a.opts.Keep && a.Dir != "" {
		os.RemoveAll(a.Dir) //nolint:errcheck // a temporary directory
	}
}

// Log is the end of what the server has logged.
func (a *Appliance) Log() string { return a.log.String() }

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

// tailSize is how much is kept, in bytes.
const tailSize = 64 << 10

// Write keeps p, and drops what is older than tailSize.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if len(t.data) > 2*tailSize {
		t.data = append([]byte(nil), t.data[len(t.data)-tailSize:]...)
	}
	return len(p), nil
}

// String is what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}
