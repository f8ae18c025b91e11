// Package paths knows where everything is. It is the only package that holds
// an absolute path: it looks at where the program lies and at what systemd and
// the environment say, and gives every other package the paths it needs. It
// trusts its environment variables as far as they are absolute paths. Find
// and Check only look; Prepare makes the appliance's own directories and
// nothing else.
package paths

import (
	"os"
	"path/filepath"
	"strings"

	"whisper-appliance/internal/fault"
)

// Kind is the sort of place that the program was started from.
type Kind string

// The kinds. Only Installed has directories of the system; the others keep
// everything in the user's home.
const (
	Installed   Kind = "installed"   // from a slot, or from the package
	Development Kind = "development" // from the build directory of a checkout
	Standalone  Kind = "standalone"  // from anywhere else
)

// maxSocket is the longest path that fits an address of a Unix socket.
const maxSocket = 107

// Env is what Find asks of the machine. Executable, Geteuid and the functions
// are replaced in tests; System gives the real ones.
type Env struct {
	Root       string // put before the system's directories; "" in earnest
	Getenv     func(string) string
	Executable func() (string, error) // of this process, links resolved
	Geteuid    func() int
	Stat       func(string) (os.FileInfo, error)
	ReadFile   func(string) ([]byte, error)

	// Writable tells whether this process may make files in a directory; nil
	// means that volumes of a container image are not looked for.
	Writable func(string) bool
}

// System is the machine that the program runs on.
func System() Env {
	return Env{
		Getenv: os.Getenv,
		Executable: func() (string, error) {
			exe, err := os.Executable()
			if err != nil {
				return "", err
			}
			return filepath.EvalSymlinks(exe)
		},
		Geteuid:  os.Geteuid,
		Stat:     os.Stat,
		ReadFile: os.ReadFile,
		Writable: func(dir string) bool { return access(dir, mayWrite|maySearch) == nil },
	}
}

// Paths is where everything is. Paths are absolute; the files and directories
// need not exist.
type Paths struct {
	Kind     Kind
	Slot     string // the release in use: a directory with bin, lib and share
	SlotName string // "a", "b" or "golden"; "" where there are no slots

	// Of an installed appliance; "" elsewhere.
	Slots      string // directory of the slots a, b and golden
	Current    string // link to the slot that serves
	Stable     string // link to the slot that was last found good
	Golden     string // the package's own release, which no update writes
	Updater    string // what the updater must keep; its lock is here too
	UpdaterRun string // what the updater shows to everybody while the machine runs
	GateRun    string // what the gate counts, and its marks
	Fetched    string // what the fetcher brought
	UpdaterBin string // the updater's program, the package's
	FetchBin   string // likewise the fetcher's
	TrustRoot  string // the root of trust that the package carries
	Source     string // file with the address that the package takes releases from
	MachineID  string // file with the id of this installation of the system
	GoldenOld  string // the release of the package before, until the new one is committed
	UnitFFmpeg string // what the decoder's unit executes
	DropIns    string // where administrators and doctor put drop-ins for units
	Shipped    string // where the package's units are
	DpkgStatus string // what dpkg has installed, in its own form

	// Package is what else of an installed package root runs or reads, beside its
	// units; a directory stands for all that is in it.
	Package []string

	Config    string // the administrator's settings, config.toml
	ConfigDir string // config.d, more of them
	Keys      string // API keys, unless the settings name another file
	State     string // what must be kept
	Settings  string // what page and CLI save, settings.toml
	Models    string // unless the settings name another directory
	Spool     string // uploads while they are worked on
	Jobs      string // recordings of jobs that are not done
	Uploads   string // recordings that arrive in pieces
	Database  string // file of jobs
	Pending   string // work to be taken up after a restart, a file for each piece
	TLS       string // the certificate that the appliance makes
	Cache     string // what can be had again
	Run       string // sockets

	APISocket    string // the server's door on this machine
	EngineSocket string // the engine's, for the server alone; each slot has its own
	DecodeSocket string // the decoders', for the server alone

	FFmpeg string // the first ffmpeg in PATH; "" where there is none

	// The kernel's own file systems, for what is known of memory.
	Proc, Cgroup string

	list []Entry
}

// Entry is one path and where it comes from.
type Entry struct {
	Name   string `json:"name"`   // "state"
	Path   string `json:"path"`   // "" where there is none
	Origin string `json:"origin"` // "environment STATE_DIRECTORY", "XDG_STATE_HOME", "installed", …
}

// List gives all paths with their origins, in a fixed order.
func (p Paths) List() []Entry { return p.list }

// EngineProgram is the command that starts the slot's engine, to which its
// options are added. The engine brings its own loader and C library, which are
// newer than the system's.
func (p Paths) EngineProgram() []string {
	lib := filepath.Join(p.Slot, "lib", "engine")
	return []string{
		filepath.Join(lib, "ld.so"),
		"--library-path", lib,
		"--argv0", "whisper-appliance-engine",
		p.EngineBinary(),
		"--backends", filepath.Join(lib, "backends"),
	}
}

// Bundled is the directory of the models that the slot's release brings.
func (p Paths) Bundled() string { return filepath.Join(p.Slot, "share", "models") }

// Order is the file in which the updater tells the fetcher what to bring. Its
// directory is the group's of the fetcher, and nobody else's.
func (p Paths) Order() string { return filepath.Join(p.UpdaterRun, "order", "request.json") }

// PreflightSocket is the door of a candidate that is tried in the dark.
func (p Paths) PreflightSocket(slot string) string {
	return filepath.Join(p.Run, "preflight-"+slot+".sock")
}

// EngineBinary is the slot's engine itself, which its loader starts.
func (p Paths) EngineBinary() string { return filepath.Join(p.Slot, "bin", "whisper-appliance-engine") }

// DecoderProgram is the slot's program that turns one recording into PCM.
func (p Paths) DecoderProgram() string {
	return filepath.Join(p.Slot, "bin", "whisper-appliance-decode")
}

// Find looks where the program lies and what the environment says. The error
// is a fault with one of the codes "no_executable", "no_home", "bad_path" and
// "socket_path_too_long".
func Find(env Env) (Paths, error) {
	exe, err := env.Executable()
	if err != nil {
		return Paths{}, fault.New(fault.Internal, "no_executable", "the path of this program is unknown").
			Because(err).Try("see that /proc is mounted")
	}
	f := finder{env: env}
	p := Paths{}
	p.Kind, p.Slot = f.place(exe)
	f.note("slot", p.Slot, "program "+exe)
	f.installed(&p)
	if err := f.base(&p); err != nil {
		return Paths{}, err
	}
	f.derive(&p)
	if err := fits(p.APISocket, p.EngineSocket, p.DecodeSocket); err != nil {
		return Paths{}, err
	}
	p.FFmpeg = f.lookPath("ffmpeg")
	p.Proc, p.Cgroup = env.Root+"/proc", env.Root+"/sys/fs/cgroup"
	f.note("ffmpeg", p.FFmpeg, "PATH")
	p.list = f.list
	return p, nil
}

// derive fills in what follows from the base directories.
func (f *finder) derive(p *Paths) {
	config := filepath.Dir(p.Config)
	for _, d := range []struct {
		name, from string
		to         *string
		path       string
	}{
		{"config.d", "configuration directory", &p.ConfigDir, filepath.Join(config, "config.d")},
		{"keys", "configuration directory", &p.Keys, filepath.Join(config, "keys.toml")},
		{"settings", "state directory", &p.Settings, filepath.Join(p.State, "settings.toml")},
		{"models", "state directory", &p.Models, filepath.Join(p.State, "models")},
		{"spool", "state directory", &p.Spool, filepath.Join(p.State, "spool")},
		{"jobs", "state directory", &p.Jobs, filepath.Join(p.State, "jobs")},
		{"uploads", "state directory", &p.Uploads, filepath.Join(p.State, "uploads")},
		{"database", "state directory", &p.Database, filepath.Join(p.State, "database", "appliance.db")},
		{"tls", "state directory", &p.TLS, filepath.Join(p.State, "tls")},
		{"pending", "state directory", &p.Pending, filepath.Join(p.State, "pending")},
		{"api socket", "runtime directory", &p.APISocket, filepath.Join(p.Run, apiSocket)},
		{"engine socket", "runtime directory", &p.EngineSocket, filepath.Join(p.Run, engineSocket(p.SlotName))},
		{"decode socket", "runtime directory", &p.DecodeSocket, filepath.Join(p.Run, "decode.sock")},
	} {
		*d.to = d.path
		f.note(d.name, d.path, d.from)
	}
}

// fits refuses sockets whose paths no program could bind or connect to.
func fits(sockets ...string) error {
	for _, s := range sockets {
		if len(s) > maxSocket {
			return fault.New(fault.BadInput, "socket_path_too_long",
				"the socket %s would have a path of %d bytes; a Unix socket's may have %d", s, len(s), maxSocket).
				On("RUNTIME_DIRECTORY").Try("set RUNTIME_DIRECTORY to a directory with a shorter path")
		}
	}
	return nil
}

// within reports whether path lies below dir, and gives the rest.
func within(path, dir string) (rest string, ok bool) {
	return strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
