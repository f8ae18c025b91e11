package paths

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

// machine is an Env whose files and variables are the test's.
func machine(exe string, env map[string]string, files map[string]string) Env {
	return Env{
		Getenv:     func(name string) string { return env[name] },
		Executable: func() (string, error) { return exe, nil },
		Geteuid:    func() int { return 1000 },
		Stat:       os.Stat,
		ReadFile: func(path string) ([]byte, error) {
			if text, ok := files[path]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		},
	}
}

func TestFind(t *testing.T) {
	checkout := map[string]string{"/src/wa/go.mod": "module whisper-appliance\n\ngo 1.26\n"}
	other := map[string]string{"/src/wa/go.mod": "module example.org/other\n", "/src/go.mod": "module whisper-appliance\n"}
	home := map[string]string{"HOME": "/home/ann"}
	tests := []struct {
		name  string
		exe   string
		env   map[string]string
		files map[string]string
		want  map[string]string // by name of List; "kind" too
	}{
		{"slot a", slotsDir + "/a/bin/whisper-appliance-server", nil, nil, map[string]string{
			"kind": "installed", "slot": slotsDir + "/a", "config": configHome + "/config.toml", "config.d": configHome + "/config.d",
			"keys": configHome + "/keys.toml", "state": stateHome, "settings": stateHome + "/settings.toml",
			"models": stateHome + "/models", "spool": stateHome + "/spool", "tls": stateHome + "/tls", "cache": cacheHome,
			"run": runHome, "api socket": runHome + "/api.sock", "engine socket": runHome + "/engine-a.sock", "decode socket": runHome + "/decode.sock",
			"current": optHome + "/current", "golden": packageDir + "/golden",
		}},
		{"golden", packageDir + "/golden/bin/whisper-appliance", home, nil, map[string]string{
			"kind": "installed", "slot": packageDir + "/golden", "state": stateHome}},
		{"release of the package before", packageDir + "/golden.old/bin/whisper-appliance-server", home, nil, map[string]string{
			"kind": "installed", "slot": packageDir + "/golden.old", "state": stateHome}},
		{"package's own program", packageDir + "/whisper-appliance-updater", nil, nil, map[string]string{
			"kind": "installed", "slot": packageDir + "/golden"}},
		{"systemd wins", slotsDir + "/b/bin/x", map[string]string{
			"STATE_DIRECTORY": "/var/lib/private/wa:/var/lib/other", "RUNTIME_DIRECTORY": "/run/wa", "CONFIGURATION_DIRECTORY": "/etc/wa/", "CACHE_DIRECTORY": "/c"}, nil,
			map[string]string{"state": "/var/lib/private/wa", "models": "/var/lib/private/wa/models", "run": "/run/wa", "config": "/etc/wa/config.toml", "cache": "/c"}},
		{"checkout", "/src/wa/build/bin/whisper-appliance", home, checkout, map[string]string{
			"kind": "development", "slot": "/src/wa/build", "state": "/home/ann/.local/state/whisper-appliance",
			"config": "/home/ann/.config/whisper-appliance/config.toml", "run": "/home/ann/.local/state/whisper-appliance/run",
			"cache": "/home/ann/.cache/whisper-appliance"}},
		{"checkout with XDG", "/src/wa/build/bin/x", map[string]string{"XDG_STATE_HOME": "/x/state", "XDG_CONFIG_HOME": "/x/config",
			"XDG_CACHE_HOME": "/x/cache", "XDG_RUNTIME_DIR": "/run/user/1000"}, checkout, map[string]string{
			"state": "/x/state/whisper-appliance", "run": "/run/user/1000/whisper-appliance", "config": "/x/config/whisper-appliance/config.toml"}},
		{"relative XDG counts as none", "/src/wa/build/bin/x", map[string]string{"HOME": "/h", "XDG_STATE_HOME": "state"}, checkout,
			map[string]string{"state": "/h/.local/state/whisper-appliance"}},
		{"a named state holds its sockets", "/src/wa/build/bin/x", map[string]string{"HOME": "/h", "STATE_DIRECTORY": "/two", "XDG_RUNTIME_DIR": "/run/user/1000"}, checkout,
			map[string]string{"api socket": "/two/run/api.sock"}},
		{"somebody else's module ends the search", "/src/wa/build/bin/x", home, other, map[string]string{"kind": "standalone"}},
		{"anywhere", "/home/ann/bin/whisper-appliance", home, nil, map[string]string{"kind": "standalone", "slot": "/home/ann"}},
		{"a name that only begins like ours", packageDir + "-old/bin/x", home, nil, map[string]string{"kind": "standalone"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Find(machine(tt.exe, tt.env, tt.files))
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{"kind": string(p.Kind)}
			for _, e := range p.List() {
				got[e.Name] = e.Path
				if e.Origin == "" {
					t.Errorf("%s has no origin", e.Name)
				}
			}
			for name, want := range tt.want {
				if got[name] != want {
					t.Errorf("%s = %q, want %q", name, got[name], want)
				}
			}
		})
	}
}

func TestFieldsMatchList(t *testing.T) {
	p, err := Find(machine(slotsDir+"/a/bin/x", nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, field := range map[string]string{"slot": p.Slot, "config": p.Config, "config.d": p.ConfigDir, "keys": p.Keys, "state": p.State,
		"settings": p.Settings, "models": p.Models, "spool": p.Spool, "jobs": p.Jobs, "uploads": p.Uploads, "database": p.Database, "tls": p.TLS, "cache": p.Cache, "run": p.Run,
		"api socket": p.APISocket, "engine socket": p.EngineSocket, "ffmpeg": p.FFmpeg} {
		if !slices.ContainsFunc(p.List(), func(e Entry) bool { return e.Name == name && e.Path == field }) {
			t.Errorf("List lacks %s = %q", name, field)
		}
	}
}

func TestFindRefuses(t *testing.T) {
	long := "/" + strings.Repeat("d", 100)
	tests := []struct {
		name, exe  string
		env        map[string]string
		code, word string
	}{
		{"no home", "/x/bin/y", nil, "no_home", "CONFIGURATION_DIRECTORY"},
		{"relative home", "/x/bin/y", map[string]string{"HOME": "here"}, "no_home", "HOME"},
		{"relative directory", slotsDir + "/a/bin/y", map[string]string{"STATE_DIRECTORY": "state"}, "bad_path", `STATE_DIRECTORY is "state"`},
		{"relative runtime directory", slotsDir + "/a/bin/y", map[string]string{"RUNTIME_DIRECTORY": "run"}, "bad_path", "RUNTIME_DIRECTORY"},
		{"named run directory too long", slotsDir + "/a/bin/y", map[string]string{"RUNTIME_DIRECTORY": long}, "socket_path_too_long", "107"},
		{"temporary directory too long", "/x/bin/y", map[string]string{"HOME": long, "TMPDIR": long}, "socket_path_too_long", "107"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Find(machine(tt.exe, tt.env, nil))
			var e *fault.Error
			if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.word) {
				t.Fatalf("error = %v (%+v), want %s with %q", err, e, tt.code, tt.word)
			}
		})
	}
	env := machine("", nil, nil)
	env.Executable = func() (string, error) { return "", fs.ErrNotExist }
	if _, err := Find(env); fault.KindOf(err) != fault.Internal || err == nil {
		t.Errorf("error without executable = %v", err)
	}
}

func TestLongStateFallsBackToShortRun(t *testing.T) {
	find := func(state string) Paths {
		p, err := Find(machine("/x/bin/y", map[string]string{"HOME": "/h", "STATE_DIRECTORY": state, "TMPDIR": "/tmp"}, nil))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	exact := "/" + strings.Repeat("d", maxSocket-1-len("/run/engine.sock"))
	if p := find(exact); p.Run != exact+"/run" || len(p.EngineSocket) != maxSocket {
		t.Errorf("run = %q; a path that just fits must be used", p.Run)
	}
	one, two := find(exact+"1"), find(exact+"2")
	if !strings.HasPrefix(one.Run, "/tmp/whisper-appliance-1000-") || one.Run == two.Run {
		t.Errorf("runs = %q and %q, want two short ones", one.Run, two.Run)
	}
}

func TestPrograms(t *testing.T) {
	p := Paths{Slot: "/s"}
	want := "/s/lib/engine/ld.so --library-path /s/lib/engine --argv0 whisper-appliance-engine " +
		"/s/bin/whisper-appliance-engine --backends /s/lib/engine/backends"
	if got := strings.Join(p.EngineProgram(), " "); got != want {
		t.Errorf("engine program = %s", got)
	}
	if p.DecoderProgram() != "/s/bin/whisper-appliance-decode" {
		t.Errorf("decoder = %s", p.DecoderProgram())
	}
}

func TestFFmpeg(t *testing.T) {
	dir := t.TempDir()
	plain, good := filepath.Join(dir, "plain"), filepath.Join(dir, "good")
	for sub, mode := range map[string]fs.FileMode{plain: 0o644, good: 0o755} {
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "ffmpeg"), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "dir", "ffmpeg"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for path, want := range map[string]string{
		"":                                "",
		plain:                             "",
		filepath.Join(dir, "dir"):         "",
		"good":                            "",
		plain + ":" + dir + "/no:" + good: filepath.Join(good, "ffmpeg"),
	} {
		p, err := Find(machine("/x/bin/y", map[string]string{"HOME": "/h", "PATH": path}, nil))
		if err != nil || p.FFmpeg != want {
			t.Errorf("PATH=%s: ffmpeg = %q, %v; want %q", path, p.FFmpeg, err, want)
		}
	}
}

// underTemp gives paths of a standalone program, below a temporary directory.
func underTemp(t *testing.T) Paths {
	t.Helper()
	p, err := Find(machine("/x/bin/y", map[string]string{"HOME": t.TempDir(), "TMPDIR": t.TempDir()}, nil))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func modes(t *testing.T, p Paths) map[string]fs.FileMode {
	t.Helper()
	got := map[string]fs.FileMode{}
	for _, dir := range []string{p.State, p.Models, p.Spool, p.Jobs, p.Uploads, p.TLS, p.Run} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		got[dir] = info.Mode().Perm()
	}
	return got
}

func TestPrepare(t *testing.T) {
	p := underTemp(t)
	for range 2 { // the second finds everything in place
		if err := p.Prepare(); err != nil {
			t.Fatal(err)
		}
		for dir, mode := range modes(t, p) {
			want := map[string]fs.FileMode{p.State: 0o711, p.Models: 0o755, p.Spool: 0o700, p.Jobs: 0o700, p.Uploads: 0o700, p.TLS: 0o700, p.Run: 0o755}[dir]
			if mode != want {
				t.Errorf("%s has mode %o, want %o", dir, mode, want)
			}
		}
	}
}

func TestPrepareMendsModes(t *testing.T) {
	p := underTemp(t)
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	for dir, mode := range map[string]fs.FileMode{p.State: 0o700, p.Models: 0o775, p.Spool: 0o777, p.TLS: 0o750} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Prepare(); err != nil {
		t.Fatal(err)
	}
	got := modes(t, p)
	for dir, want := range map[string]fs.FileMode{p.State: 0o711, p.Models: 0o775, p.Spool: 0o700, p.TLS: 0o700} {
		if got[dir] != want {
			t.Errorf("%s has mode %o, want %o", dir, got[dir], want)
		}
	}
}

func TestPrepareRefuses(t *testing.T) {
	p := underTemp(t)
	if err := os.MkdirAll(p.State, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.Spool, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := p.Prepare()
	if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), p.Spool) || fault.Hint(err) == "" {
		t.Errorf("a file in the way: %v", err)
	}

	if os.Geteuid() != 0 {
		t.Skip("a directory of another user needs root to make")
	}
	p = underTemp(t)
	if err := os.MkdirAll(p.Run, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(p.Run, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	err = p.Prepare()
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != "foreign_directory" {
		t.Errorf("another user's run directory: %v", err)
	}
	if info, err := os.Stat(p.Run); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("another user's directory was changed: %v, %v", info.Mode(), err)
	}
}

func TestSystem(t *testing.T) {
	p, err := Find(System())
	if err != nil {
		t.Skipf("this machine has no place for state: %v", err)
	}
	if p.Slot == "" || !filepath.IsAbs(p.State) {
		t.Errorf("paths = %+v", p)
	}
}
