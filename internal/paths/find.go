package paths

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"

	"whisper-appliance/internal/fault"
)

// Where an installed appliance lies.
const (
	optHome    = "/opt/whisper-appliance"
	slotsDir   = optHome + "/slots"
	packageDir = "/usr/lib/whisper-appliance"
	configHome = "/etc/whisper-appliance"
	stateHome  = "/var/lib/whisper-appliance"
	cacheHome  = "/var/cache/whisper-appliance"
	runHome    = "/run/whisper-appliance"
	tempHome   = "/tmp"
	dropInHome = "/etc/systemd/system"
	unitHome   = "/usr/lib/systemd/system"
	dpkgStatus = "/var/lib/dpkg/status"
	machineID  = "/etc/machine-id"
	command    = "/usr/bin/" + product
	sysusers   = "/usr/lib/sysusers.d/" + product + ".conf"
	tmpfiles   = "/usr/lib/tmpfiles.d/" + product + ".conf"
	busPolicy  = "/usr/share/dbus-1/system.d/" + busName + ".conf"
	busService = "/usr/share/dbus-1/system-services/" + busName + ".service"
	busName    = "org.whisperappliance.Updater1"
)

const (
	product   = "whisper-appliance"
	apiSocket = "api.sock"
)

// engineSocket is the name of the engine's socket of a slot, "" for none.
func engineSocket(slot string) string {
	if slot == "" {
		return "engine.sock"
	}
	return "engine-" + slot + ".sock"
}

// finder is one Find in progress.
type finder struct {
	env  Env
	list []Entry
}

func (f *finder) note(name, path, origin string) {
	f.list = append(f.list, Entry{name, path, origin})
}

// place tells the kind of place that exe lies in, and the slot around it.
func (f *finder) place(exe string) (Kind, string) {
	slots, pkg := f.env.Root+slotsDir, f.env.Root+packageDir
	if rest, ok := within(exe, slots); ok {
		slot, _, _ := strings.Cut(rest, "/")
		return Installed, filepath.Join(slots, slot)
	}
	if rest, ok := within(exe, pkg); ok {
		if before, _, _ := strings.Cut(rest, "/"); before == "golden.old" {
			return Installed, filepath.Join(pkg, before)
		}
		return Installed, filepath.Join(pkg, "golden")
	}
	slot := filepath.Dir(exe)
	if filepath.Base(slot) == "bin" {
		slot = filepath.Dir(slot)
	}
	if f.inCheckout(slot) {
		return Development, slot
	}
	return Standalone, slot
}

// installed fills in what only an installed appliance has.
func (f *finder) installed(p *Paths) {
	if p.Kind != Installed {
		return
	}
	// The release of the package before serves as the slot golden, too.
	p.SlotName = strings.TrimSuffix(filepath.Base(p.Slot), ".old")
	root := f.env.Root
	p.DpkgStatus, p.MachineID, p.GateRun = root+dpkgStatus, root+machineID, root+runHome+"-gate"
	p.Package = []string{root + packageDir, root + command, root + sysusers, root + tmpfiles, root + busPolicy, root + busService}
	for _, d := range []struct {
		name string
		to   *string
		path string
	}{
		{"slots", &p.Slots, root + slotsDir},
		{"current", &p.Current, root + optHome + "/current"},
		{"stable", &p.Stable, root + optHome + "/stable"},
		{"golden", &p.Golden, root + packageDir + "/golden"},
		{"updater", &p.Updater, root + stateHome + "-updater"},
		{"updater run", &p.UpdaterRun, root + runHome + "-updater"},
		{"fetched", &p.Fetched, root + stateHome + "-fetch"},
		{"updater program", &p.UpdaterBin, root + packageDir + "/" + product + "-updater"},
		{"fetcher program", &p.FetchBin, root + packageDir + "/" + product + "-fetch"},
		{"trust root", &p.TrustRoot, root + packageDir + "/trust/root.json"},
		{"source", &p.Source, root + packageDir + "/trust/source"},
		{"golden before", &p.GoldenOld, root + packageDir + "/golden.old"},
		{"unit ffmpeg", &p.UnitFFmpeg, root + "/usr/bin/ffmpeg"},
		{"units", &p.Shipped, root + unitHome},
		{"drop-ins", &p.DropIns, root + dropInHome},
	} {
		*d.to = d.path
		f.note(d.name, d.path, "installed")
	}
}

// inCheckout reports whether dir or a directory above it is our module's.
func (f *finder) inCheckout(dir string) bool {
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		data, err := f.env.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if strings.TrimSpace(line) == "module "+product {
				return true
			}
		}
		return false
	}
	return false
}

// home is one base directory: systemd's variable, the system's directory, and
// the user's by XDG's variable or below the home directory.
type home struct {
	name, variable, system, xdg, user string
}

// base finds the directories that all others are in.
func (f *finder) base(p *Paths) error {
	var err error
	var config string
	for _, h := range []struct {
		home
		to *string
	}{
		{home{"configuration", "CONFIGURATION_DIRECTORY", configHome, "XDG_CONFIG_HOME", ".config"}, &config},
		{home{"state", "STATE_DIRECTORY", stateHome, "XDG_STATE_HOME", ".local/state"}, &p.State},
		{home{"cache", "CACHE_DIRECTORY", cacheHome, "XDG_CACHE_HOME", ".cache"}, &p.Cache},
	} {
		var origin string
		if *h.to, origin, err = f.find(p.Kind, h.home); err != nil {
			return err
		}
		f.note(h.name, *h.to, origin)
	}
	p.Config = filepath.Join(config, "config.toml")
	f.note("config", p.Config, "configuration directory")
	p.Run, err = f.run(p.Kind, p.State)
	return err
}

// find is the directory h and where it comes from.
func (f *finder) find(kind Kind, h home) (dir, origin string, err error) {
	if dir, err := f.systemd(h.variable); dir != "" || err != nil {
		return dir, "environment " + h.variable, err
	}
	if dir := f.ofImage(kind, h); dir != "" {
		return dir, "container image", nil
	}
	if kind == Installed {
		return f.env.Root + h.system, "installed", nil
	}
	// The XDG rules say that a relative path counts as none.
	if dir := f.env.Getenv(h.xdg); filepath.IsAbs(dir) {
		return filepath.Join(dir, product), "environment " + h.xdg, nil
	}
	if dir := f.env.Getenv("HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, h.user, product), "environment HOME", nil
	}
	return "", "", fault.New(fault.BadInput, "no_home", "there is no place for the %s directory: neither %s nor HOME is set", h.name, h.variable).
		On(h.variable).Try("set %s to a directory of yours", h.variable)
}

// systemd reads one of the variables that systemd sets from a unit's
// StateDirectory= and its kin: paths separated by colons, ours first.
func (f *finder) systemd(variable string) (string, error) {
	dir, _, _ := strings.Cut(f.env.Getenv(variable), ":")
	if dir != "" && !filepath.IsAbs(dir) {
		return "", fault.New(fault.BadInput, "bad_path", "%s is %q; it must be a full path, from the root", variable, dir).On(variable)
	}
	return strings.TrimSuffix(dir, "/"), nil
}

// run is the directory of the sockets. Two appliances of one user differ by
// their state directories, so a state directory that was named holds its own
// sockets; where that path is too long they go to the temporary directory.
func (f *finder) run(kind Kind, state string) (string, error) {
	dir, err := f.systemd("RUNTIME_DIRECTORY")
	origin := "environment RUNTIME_DIRECTORY"
	if dir == "" && err == nil {
		dir, origin = f.ownRun(kind, state)
	}
	f.note("run", dir, origin)
	return dir, err
}

func (f *finder) ownRun(kind Kind, state string) (dir, origin string) {
	if kind == Installed {
		return f.env.Root + runHome, "installed"
	}
	dir, origin = filepath.Join(state, "run"), "state directory"
	if xdg := f.env.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(xdg) && f.env.Getenv("STATE_DIRECTORY") == "" {
		dir, origin = filepath.Join(xdg, product), "environment XDG_RUNTIME_DIR"
	}
	if len(filepath.Join(dir, engineSocket(""))) <= maxSocket {
		return dir, origin
	}
	temp := cmp.Or(f.env.Getenv("TMPDIR"), f.env.Root+tempHome)
	mark := sha256.Sum256([]byte(state))
	name := fmt.Sprintf("%s-%d-%x", product, f.env.Geteuid(), mark[:4])
	return filepath.Join(temp, name), "temporary directory, for " + dir + " is too long for a socket"
}

// lookPath finds a program in PATH. A relative entry, which would make the
// program depend on the working directory, is passed over.
func (f *finder) lookPath(program string) string {
	for _, dir := range filepath.SplitList(f.env.Getenv("PATH")) {
		path := filepath.Join(dir, program)
		info, err := f.env.Stat(path)
		if filepath.IsAbs(dir) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
