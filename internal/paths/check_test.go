package paths

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// appliance is an installed appliance below a root of the test's, in order.
func appliance(t *testing.T) (string, Paths) {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, mode := range map[string]os.FileMode{
		slotsDir + "/a/bin": 0o755, packageDir + "/golden": 0o755, unitHome: 0o755, configHome: 0o755, runHome: 0o755,
		stateHome: 0o711, stateHome + "/models": 0o755, stateHome + "/spool": 0o700, stateHome + "/tls": 0o700,
	} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(root+dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"current", "stable"} {
		if err := os.Symlink("slots/a", root+optHome+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	env := machine(root+slotsDir+"/a/bin/x", map[string]string{"PATH": root + "/bin"}, nil)
	env.Root = root
	for _, file := range []string{"/bin/ffmpeg", "/usr/bin/ffmpeg", packageDir + "/whisper-appliance-updater", packageDir + "/whisper-appliance-fetch", packageDir + "/trust/root.json"} {
		file = root + file
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Find(env)
	if err != nil {
		t.Skipf("the temporary directory is too long for a socket: %v", err)
	}
	return root, p
}

func finding(t *testing.T, list []Finding, name string) Finding {
	t.Helper()
	for _, f := range list {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("nothing was found out about %s", name)
	return Finding{}
}

func TestCheckOfASoundAppliance(t *testing.T) {
	_, p := appliance(t)
	list := p.Check(Me())
	if len(list) != len(p.List()) {
		t.Fatalf("%d findings for %d paths", len(list), len(p.List()))
	}
	for _, f := range list {
		if f.Verdict == Problem || f.Verdict != OK && !strings.Contains(f.What, "free") {
			t.Errorf("%s: %s, %s", f.Name, f.Verdict, f.What)
		}
	}
	state, current := finding(t, list, "state"), finding(t, list, "current")
	if state.Kind != "directory" || state.Mode != "0711" || state.Owner == "" || !state.Writable || state.FreeBytes == nil || state.Device == "" || state.Origin != "installed" {
		t.Errorf("state: %+v", state)
	}
	if current.Kind != "link" || current.Target != "slots/a" {
		t.Errorf("current: %+v", current)
	}
	if keys := finding(t, list, "keys"); keys.Kind != "" || keys.Verdict != OK || keys.FreeBytes == nil {
		t.Errorf("keys: %+v", keys)
	}
}

func TestCheckFinds(t *testing.T) {
	for _, c := range []struct {
		name    string
		harm    func(root string) error
		path    string
		verdict Verdict
		what    string
	}{
		{"no slots", func(r string) error { return os.RemoveAll(r + slotsDir) }, "slots", Problem, "not there"},
		{"a link to nothing", func(r string) error { return os.RemoveAll(r + slotsDir + "/a") }, "current", Problem, "slots/a, where nothing is"},
		{"no link", func(r string) error { return os.Remove(r + optHome + "/stable") }, "stable", Problem, "not there"},
		{"a file for a directory", func(r string) error {
			return os.WriteFile(r+stateHome+"/pending", nil, 0o644)
		}, "pending", Problem, "it is a file; it should be a directory"},
		{"a file for a socket", func(r string) error { return os.WriteFile(r+runHome+"/api.sock", nil, 0o644) }, "api socket", Problem, "should be a socket"},
		{"an open spool", func(r string) error { return os.Chmod(r+stateHome+"/spool", 0o755) }, "spool", Warning, "others may"},
		{"open keys", func(r string) error { return os.WriteFile(r+configHome+"/keys.toml", nil, 0o644) }, "keys", Warning, "others may"},
		{"no run directory", func(r string) error { return os.RemoveAll(r + runHome) }, "run", Problem, "not there"},
		{"no ffmpeg", func(r string) error { return os.Remove(r + "/bin/ffmpeg") }, "ffmpeg", Warning, "not there"},
		{"no models yet", func(r string) error { return os.Remove(r + stateHome + "/models") }, "models", OK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, p := appliance(t)
			if err := c.harm(root); err != nil {
				t.Fatal(err)
			}
			f := finding(t, p.Check(Me()), c.path)
			if strings.Contains(f.What, "are free") {
				t.Skipf("the disk is nearly full: %s", f.What)
			}
			if f.Verdict != c.verdict || !strings.Contains(f.What, c.what) || (c.verdict != OK) != (f.Hint != "") {
				t.Errorf("%s: %q, try %q", f.Verdict, f.What, f.Hint)
			}
		})
	}
	p, err := Find(machine("/x/bin/y", map[string]string{"HOME": t.TempDir(), "TMPDIR": t.TempDir()}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if f := finding(t, p.Check(Me()), "ffmpeg"); f.Verdict != Warning || f.What != "there is none" {
		t.Errorf("no ffmpeg in PATH: %+v", f)
	}
	if f := finding(t, p.Check(Me()), "spool"); f.Verdict == Problem || f.Kind != "" || !f.Writable {
		t.Errorf("a spool that can be made: %+v", f)
	}
}

// TestCheckOfARehearsal: that it cannot write the models is as it should be
// there, and there alone.
func TestCheckOfARehearsal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("judging for another user needs root")
	}
	root, p := appliance(t)
	reachable(t, root)
	for _, c := range []struct {
		state   string
		mode    os.FileMode
		verdict Verdict
		what    string
	}{
		{rehearsalState, 0o755, OK, ""},
		{rehearsalState, 0o700, Problem, "may not read it"},
		{"other", 0o755, Problem, "may not write to it"},
	} {
		p := p
		p.State = filepath.Join(filepath.Dir(p.State), c.state)
		if err := os.MkdirAll(p.State, 0o755); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(p.State, "models")
		os.Remove(link) //nolint:errcheck // of the case before
		if err := os.Symlink(root+stateHome+"/models", link); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(root+stateHome+"/models", c.mode); err != nil {
			t.Fatal(err)
		}
		p.list = []Entry{{"models", link, "state directory"}}
		f := finding(t, p.Check(User{Name: "server", UID: 12345, GIDs: []int{12346}}), "models")
		if f.Verdict != c.verdict || !strings.Contains(f.What, c.what) {
			t.Errorf("%s, mode %o: %s, %q", c.state, c.mode, f.Verdict, f.What)
		}
	}
}

// reachable lets everybody into root and what is above it, which are the
// test's own temporary directories.
func reachable(t *testing.T, root string) {
	t.Helper()
	for dir := root; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCheckForAnother: what root sees is judged with the server's rights.
func TestCheckForAnother(t *testing.T) {
	root, p := appliance(t)
	if os.Geteuid() != 0 {
		t.Skip("giving files away needs root")
	}
	reachable(t, root)
	server := User{Name: "server", UID: 12345, GIDs: []int{12346}}
	for _, dir := range []string{stateHome, stateHome + "/models", stateHome + "/spool"} {
		if err := os.Chown(root+dir, server.UID, 12346); err != nil {
			t.Fatal(err)
		}
	}
	keys := root + configHome + "/keys.toml"
	if err := os.WriteFile(keys, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	list := p.Check(server)
	if f := finding(t, list, "spool"); f.Verdict == Problem || !f.Writable || f.Owner != "12345:12346" {
		t.Errorf("its own spool: %+v", f)
	}
	if f := finding(t, list, "tls"); f.Verdict != Problem || !strings.Contains(f.What, "server may not write") || !strings.Contains(f.Hint, "chown") {
		t.Errorf("root's directory: %+v", f)
	}
	if f := finding(t, list, "keys"); f.Verdict != Problem || !strings.Contains(f.What, "read") {
		t.Errorf("root's keys: %+v", f)
	}
	if err := os.Chown(keys, 0, 12346); err != nil {
		t.Fatal(err)
	}
	if f := finding(t, p.Check(server), "keys"); f.Verdict != OK {
		t.Errorf("keys of its group: %+v", f)
	}
	if err := os.Remove(root + stateHome + "/tls"); err != nil {
		t.Fatal(err)
	}
	if f := finding(t, p.Check(server), "tls"); f.Verdict != OK || !f.Writable {
		t.Errorf("a directory that it may make: %+v", f)
	}
	if err := os.Chown(root+stateHome, 0, 0); err != nil {
		t.Fatal(err)
	}
	if f := finding(t, p.Check(server), "tls"); f.Verdict != Problem || !strings.Contains(f.What, "may not make it") {
		t.Errorf("a directory that it may not make: %+v", f)
	}
}

func TestCheckSeesSockets(t *testing.T) {
	_, p := appliance(t)
	l, err := net.Listen("unix", p.APISocket)
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if f := finding(t, p.Check(Me()), "api socket"); f.Kind != "socket" || f.Verdict != OK {
		t.Errorf("%+v", f)
	}
}

// TestFileSystemsAreOne: slots elsewhere than the link cannot be switched to.
func TestFileSystemsAreOne(t *testing.T) {
	p := Paths{Kind: Installed}
	list := []Finding{{Entry: Entry{Name: "slots"}, Device: "8:1", Verdict: OK}, {Entry: Entry{Name: "current"}, Device: "8:2", Verdict: OK}}
	p.together(list)
	if list[0].Verdict != Problem || list[0].Hint == "" {
		t.Errorf("%+v", list[0])
	}
	list[0].Device, list[0].Verdict = "8:2", OK
	p.together(list)
	if list[0].Verdict != OK {
		t.Errorf("%+v", list[0])
	}
}

func TestImageVolumes(t *testing.T) {
	for _, c := range []struct {
		name        string
		dirs        []string
		env         map[string]string
		exe         string
		state, from string
	}{
		{"installed in docker", []string{"/.dockerenv", "/app/data"}, nil, slotsDir + "/a/bin/x", "/app/data", "container image"},
		{"the whole of /app", []string{"/.dockerenv", "/app"}, nil, slotsDir + "/a/bin/x", "/app", "container image"},
		{"podman", []string{"/run/.containerenv", "/app/data"}, nil, "/app/bin/x", "/app/data", "container image"},
		{"kubernetes", []string{"/app/data"}, map[string]string{"KUBERNETES_SERVICE_HOST": "h"}, "/app/bin/x", "/app/data", "container image"},
		{"systemd wins", []string{"/.dockerenv", "/app/data"}, map[string]string{"STATE_DIRECTORY": "/s"}, slotsDir + "/a/bin/x", "", "environment STATE_DIRECTORY"},
		{"no volume", []string{"/.dockerenv"}, nil, slotsDir + "/a/bin/x", stateHome, "installed"},
		{"not in an image", []string{"/app/data"}, nil, slotsDir + "/a/bin/x", stateHome, "installed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range c.dirs {
				if err := os.MkdirAll(root+dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			env := machine(root+c.exe, c.env, nil)
			env.Root, env.Writable = root, System().Writable
			p, err := Find(env)
			if err != nil {
				t.Fatal(err)
			}
			want := root + c.state
			if c.state == "" {
				want = "/s"
			}
			var origin string
			for _, e := range p.List() {
				if e.Name == "state" {
					origin = e.Origin
				}
			}
			if p.State != want || origin != c.from {
				t.Errorf("state %s from %s; want %s from %s", p.State, origin, want, c.from)
			}
		})
	}
	env := machine("/src/bin/x", map[string]string{"HOME": "/h", "KUBERNETES_SERVICE_HOST": "h"}, map[string]string{"/src/go.mod": "module whisper-appliance\n"})
	env.Root, env.Writable = t.TempDir(), func(string) bool { return true }
	if err := os.MkdirAll(env.Root+"/app/data", 0o755); err != nil {
		t.Fatal(err)
	}
	if p, err := Find(env); err != nil || !strings.HasPrefix(p.State, "/h/") {
		t.Errorf("a checkout has its state at home: %s, %v", p.State, err)
	}
}
