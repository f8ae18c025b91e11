package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
)

// host is a machine with systemd: what it refuses, what it leaves out without
// a word, and what its units are like.
type host struct {
	refuses  map[string]string // directive → exit code
	silent   []string
	together string // what several settings at once end with; "" = well
	err      error

	units     map[string]systemd.Unit
	states    map[string]string
	addresses []string
	settings  map[string]string

	probes  int
	asked   []string // the settings of each probe, in a line
	reloads int
}

func (h *host) Probe(_ context.Context, settings []systemd.Setting, command ...string) (bool, string, error) {
	h.probes++
	line := ""
	for _, s := range settings {
		line += s.String() + " "
	}
	h.asked = append(h.asked, line+strings.Join(command, " "))
	if h.err != nil {
		return false, "", h.err
	}
	for _, s := range settings {
		if code := h.refuses[s.Name]; code != "" && s.Value != "" {
			return false, code, nil
		}
	}
	if command[0] == "true" && h.together != "" && len(settings) > 1 {
		return false, h.together, nil
	}
	if command[0] == "sh" && slices.Contains(h.silent, settings[0].Name) {
		return false, "exit code 1", nil
	}
	return true, "", nil
}

func (h *host) DaemonReload(context.Context) error { h.reloads++; return nil }

func (h *host) Units(_ context.Context, names ...string) ([]systemd.Unit, error) {
	var list []systemd.Unit
	for _, n := range names {
		u, ok := h.units[n]
		if !ok {
			u = systemd.Unit{Name: n, Load: "loaded", Active: "inactive"}
		}
		list = append(list, u)
	}
	return list, h.err
}

func (h *host) Effective(context.Context, string) (map[string]string, error) {
	return h.settings, h.err
}

func (h *host) Listening(context.Context, string) ([]string, error) { return h.addresses, h.err }

func (h *host) FileState(_ context.Context, unit string) (string, error) {
	if s := h.states[unit]; s != "" {
		return s, nil
	}
	return "enabled", nil
}

// installed is a doctor of an installed appliance in a directory of the test.
func installed(t *testing.T, h *host) *Doctor {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{filepath.Dir(root), root} { // others may go in, as they may where it is installed
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := paths.Paths{
		Kind: paths.Installed, Shipped: filepath.Join(root, "usr", "lib", "systemd", "system"), DropIns: filepath.Join(root, "etc"),
		Proc: filepath.Join(root, "proc"), State: filepath.Join(root, "state"), Models: filepath.Join(root, "state", "models"),
		TLS: filepath.Join(root, "tls"), Slots: filepath.Join(root, "slots"), Current: filepath.Join(root, "current"),
		Stable: filepath.Join(root, "stable"), Golden: filepath.Join(root, "golden"),
		Config: filepath.Join(root, "conf", "config.toml"), ConfigDir: filepath.Join(root, "conf", "config.d"), Run: filepath.Join(root, "run"),
		UnitFFmpeg: filepath.Join(root, "ffmpeg"),
	}
	for _, dir := range []string{p.Shipped, p.DropIns, filepath.Join(p.Proc, "1", "ns"), filepath.Join(p.Proc, "net"), p.Models, p.TLS, p.Slots} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, ns := range []string{"mnt", "net", "user", "ipc", "uts"} {
		if err := os.Symlink(ns+":[1]", filepath.Join(p.Proc, "1", "ns", ns)); err != nil {
			t.Fatal(err)
		}
	}
	engine := "[Unit]\nPrivateUsers=no\n[Service]\nExecStart=ld.so \\\n  --models " + p.Models + "\nDynamicUser=yes\nUser=engine\n" +
		"RootDirectory=" + root + "\nBindReadOnlyPaths=" + p.Slots + "/%i " + p.Models + "\nPrivateNetwork=yes\nPrivateUsers=yes\n# ProtectHome=yes\n"
	write(t, filepath.Join(p.Shipped, "whisper-appliance-engine@.service"), engine)
	write(t, filepath.Join(p.Shipped, "whisper-appliance-decode@.service"), "[Service]\nExecStart=decode\nDynamicUser=yes\n")
	write(t, filepath.Join(p.Shipped, "whisper-appliance-journal@.service"), "[Service]\nExecStart=journalctl\nDynamicUser=yes\n")
	write(t, filepath.Join(p.Shipped, "whisper-appliance.service"), "[Service]\nExecStart=server\n")
	write(t, filepath.Join(p.Shipped, "whisper-appliance.service.d", "10-sandbox.conf"),
		"[Service]\nStateDirectory=state\nPrivateUsers=yes\nProtectSystem=strict\n")
	c, report, err := config.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	return &Doctor{
		Paths: p, User: paths.User{Name: "whisper-appliance", UID: 4711, GIDs: []int{4711}}, Root: true, Units: h, Mender: h,
		Settings: c, Report: report, Models: &model.Store{Dir: p.Models},
		Now: func() time.Time { return time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC) }, Free: func(string) (int64, error) { return 1 << 40, nil },
		Devices: filepath.Join(root, "dev"),
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// said looks for a finding of that verdict with these words.
func said(found []Finding, v Verdict, words string) bool {
	return slices.ContainsFunc(found, func(f Finding) bool { return f.Verdict == v && strings.Contains(f.Says+" "+f.Fixed, words) })
}

func expect(t *testing.T, found []Finding, v Verdict, words string) {
	t.Helper()
	if !said(found, v, words) {
		t.Errorf("no %s says %q: %+v", v, words, found)
	}
	for _, f := range found {
		if f.Verdict == Problem && f.Do == "" {
			t.Errorf("nothing to do about %q", f.Says)
		}
	}
}

var errNoBus = fault.New(fault.Unavailable, "no_systemd", "systemd does not answer").Because(errors.New("no bus"))
