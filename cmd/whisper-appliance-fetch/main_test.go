package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/fetch"
	"whisper-appliance/internal/release"
)

// TestMain is the program itself where a test starts it as one.
func TestMain(m *testing.M) {
	if os.Getenv("FETCH_TEST_PROGRAM") == "yes" {
		main()
	}
	os.Exit(m.Run())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// signed are a repository's files with one release, and the key that signs it.
type signed struct {
	key   ed25519.PrivateKey
	files map[string][]byte
}

func sign[T metadata.Roles](s signed, name string, m *metadata.Metadata[T]) *metadata.MetaFiles {
	must(m.Sign(must(signature.LoadED25519Signer(s.key))))
	data := must(m.ToBytes(false))
	sum := sha256.Sum256(data)
	s.files["/metadata/"+name] = data
	return &metadata.MetaFiles{Version: 1, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

// repository has one release, target, with data for an artefact.
func repository(t *testing.T, target string, data []byte) signed {
	t.Helper()
	s := signed{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), map[string][]byte{}}
	version, arch := "1.4.0", "amd64"
	custom := json.RawMessage(must(json.Marshal(release.Custom{
		Version: version, Channel: release.Stable, Arch: arch, Commit: "c0ffee", UnitContract: 1,
		Unpacked: 1, Files: 1, Rollout: 100, Published: time.Unix(1, 0).UTC(), Index: 1,
	})))
	sum, expires := sha256.Sum256(data), time.Now().AddDate(0, 1, 0)
	root, targets, snapshot, timestamp := metadata.Root(expires), metadata.Targets(expires), metadata.Snapshot(expires), metadata.Timestamp(expires)
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		check(t, root.Signed.AddKey(must(metadata.KeyFromPublicKey(s.key.Public())), role))
	}
	sign(s, "1.root.json", root)
	targets.Signed.Targets[target] = &metadata.TargetFiles{Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}, Custom: &custom}
	snapshot.Signed.Meta["targets.json"] = sign(s, "1.targets.json", targets)
	timestamp.Signed.Meta["snapshot.json"] = sign(s, "1.snapshot.json", snapshot)
	sign(s, "timestamp.json", timestamp)
	s.files[fmt.Sprintf("/targets/%x.%s", sum, target)] = data
	return s
}

// ServeHTTP stands at http.Handler.
func (s signed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, there := s.files[r.URL.Path]
	if !there {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// resultIn reads what the program left.
func resultIn(t *testing.T, dir string) (r fetch.Result) {
	t.Helper()
	check(t, json.Unmarshal(must(os.ReadFile(filepath.Join(dir, "result.json"))), &r))
	return r
}

// TestSignals ends the program in the middle, and starts it again.
func TestSignals(t *testing.T) {
	for _, test := range []struct {
		signal syscall.Signal
		exit   int // -1 = by the signal
		code   string
	}{{syscall.SIGTERM, exitCanceled, "canceled"}, {syscall.SIGKILL, -1, "interrupted"}} {
		t.Run(test.signal.String(), func(t *testing.T) {
			target, data := release.TargetName("1.4.0", "amd64"), bytes.Repeat([]byte("artefact"), 50_000)
			repo := repository(t, target, data)
			half, under := len(data)/2, make(chan bool)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/targets/") && r.Header.Get("Range") == "" {
					w.Header().Set("Content-Length", fmt.Sprint(len(data)))
					w.Write(data[:half])                  //nolint:errcheck // a test sees what is missing
					http.NewResponseController(w).Flush() //nolint:errcheck // the same
					close(under)
					<-r.Context().Done()
					return
				}
				repo.ServeHTTP(w, r)
			}))
			t.Cleanup(server.Close)
			home := t.TempDir()
			request, root, state := filepath.Join(home, "request.json"), filepath.Join(home, "root.json"), filepath.Join(home, "state")
			check(t, os.WriteFile(request, must(json.Marshal(fetch.Request{Sources: []string{server.URL}, Target: target})), 0o644))
			check(t, os.WriteFile(root, repo.files["/metadata/1.root.json"], 0o644))
			check(t, os.Mkdir(state, 0o755))
			start := func() (*exec.Cmd, *bytes.Buffer) {
				c, out := exec.Command(os.Args[0], "--request", request, "--root", root), &bytes.Buffer{}
				c.Env = append(os.Environ(), "FETCH_TEST_PROGRAM=yes", "STATE_DIRECTORY="+state)
				c.Stderr = out
				check(t, c.Start())
				return c, out
			}
			c, out := start()
			<-under
			await(t, state, half)
			check(t, c.Process.Signal(test.signal))
			var exit *exec.ExitError
			if err := c.Wait(); !errors.As(err, &exit) || exit.ExitCode() != test.exit {
				t.Fatalf("%v, want exit code %d\n%s", err, test.exit, out)
			}
			if r := resultIn(t, state); r.Error == nil || r.Error.Code != test.code {
				t.Errorf("the result is %+v", r)
			}
			c, out = start()
			check(t, c.Wait())
			if r := resultIn(t, state); r.Error != nil || r.Resumed != int64(half) || r.Bytes != int64(len(data)) || r.Source != server.URL {
				t.Errorf("the result is %+v\n%s", r, out)
			}
			got, err := filepath.Glob(filepath.Join(state, "repository", "targets", "*"))
			if err != nil || len(got) != 1 || !bytes.Equal(must(os.ReadFile(got[0])), data) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// await waits until so many bytes of an artefact are on the disk.
func await(t *testing.T, state string, bytes int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Second)
	for {
		parts, _ := filepath.Glob(filepath.Join(state, "repository", "targets", "*.part"))
		if len(parts) == 1 {
			if info, err := os.Stat(parts[0]); err == nil && info.Size() == int64(bytes) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%v do not grow to %d bytes", parts, bytes)
		}
	}
}

func TestRun(t *testing.T) {
	home := t.TempDir()
	request, root, state := filepath.Join(home, "request.json"), filepath.Join(home, "root.json"), filepath.Join(home, "state")
	check(t, os.Mkdir(state, 0o755))
	t.Setenv("STATE_DIRECTORY", state+":"+home)
	check(t, os.WriteFile(request, fmt.Appendf(nil, `{"sources": [%q], "target": "", "most": 0}`, home), 0o644))
	args := []string{"--request", request, "--root", root}
	for _, test := range []struct {
		what, code string
		exit       int
		prepare    func() error
	}{
		{"no root", "no_trust_root", exitConfig, func() error { return nil }},
		{"a root that is none", "bad_trust_root", exitConfig, func() error { return os.WriteFile(root, []byte("{}"), 0o644) }},
		{"a directory for a root", "bad_trust_root", exitConfig, func() error { return errors.Join(os.Remove(root), os.Mkdir(root, 0o755)) }},
		{"nothing there", "no_metadata", exitNoInput, func() error {
			repo := repository(t, release.TargetName("1.4.0", "amd64"), []byte("x"))
			return errors.Join(os.Remove(root), os.WriteFile(root, repo.files["/metadata/1.root.json"], 0o644))
		}},
		{"no source", "no_source", exitConfig, func() error { return os.WriteFile(request, []byte(`{}`), 0o644) }},
		{"no request", "bad_request", exitConfig, func() error { return os.Remove(request) }},
	} {
		check(t, test.prepare())
		var out, words bytes.Buffer
		err := run(t.Context(), args, &out, &words)
		if exit := exitCode(err, &words); exit != test.exit || !strings.Contains(words.String(), "try: ") {
			t.Errorf("%s: exit code %d, want %d\n%s", test.what, exit, test.exit, &words)
		}
		if r := resultIn(t, state); r.Error == nil || r.Error.Code != test.code {
			t.Errorf("%s: the result is %+v, want %s", test.what, r.Error, test.code)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "")
	for _, test := range []struct {
		args []string
		exit int
		says string
	}{
		{[]string{"--version"}, exitOK, program + " "},
		{[]string{"version"}, exitOK, program + " "},
		{[]string{"--help"}, exitOK, "-request"},
		{[]string{"--nonsense"}, exitUsage, "nonsense"},
		{[]string{"something"}, exitUsage, "no arguments"},
		{nil, exitUsage, "needs --request"},
		{[]string{"--request", "x", "--root", "x"}, exitUsage, "needs --dir"},
		{[]string{"--request", "x", "--root", "x", "--dir", "/nowhere/at/all"}, exitConfig, "/nowhere/at/all"},
	} {
		var out bytes.Buffer
		if exit := exitCode(run(t.Context(), test.args, &out, &out), &out); exit != test.exit || !strings.Contains(out.String(), test.says) {
			t.Errorf("%q: exit code %d, want %d\n%s", test.args, exit, test.exit, &out)
		}
	}
}

func TestExitCodes(t *testing.T) {
	seen := []int{exitError}
	for _, kind := range []fault.Kind{fault.BadInput, fault.NotFound, fault.Unavailable, fault.NoSpace, fault.Busy, fault.Forbidden, fault.Canceled} {
		exit := exitCode(fault.New(kind, "code", "words"), &bytes.Buffer{})
		if slices.Contains(seen, exit) {
			t.Errorf("kind %d ends with %d, as another does", kind, exit)
		}
		seen = append(seen, exit)
	}
	if exit := exitCode(errors.New("words"), &bytes.Buffer{}); exit != exitError {
		t.Errorf("an error without words ends with %d", exit)
	}
}
