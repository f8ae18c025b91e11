package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
)

// How a version compares.
const (
	agrees  = "agrees"
	differs = "differs"
	unknown = "unknown" // it could not be found out, which is no difference
)

// sight is one place where a version stands.
type sight struct {
	What    string `json:"what"`
	Version string `json:"version,omitempty"`
	Commit  string `json:"commit,omitempty"`
	State   string `json:"state"`          // agrees, differs, unknown
	Note    string `json:"note,omitempty"` // why it is unknown, or what it should be

	// group holds what must agree: an update leaves the package behind, so the
	// release that serves is one and the package another.
	group string
	plain bool // written by people, without the +dev of a build
}

// The groups.
const (
	ofRelease = "release"
	ofPackage = "package"
)

func (a *app) versionCheck(ctx context.Context) error {
	dir, err := a.releaseDir(nil)
	if err != nil {
		return err
	}
	list := append(a.onDisk(ctx, dir), a.inPackage(ctx)...)
	list = append(list, a.running(ctx)...)
	list = append(list, a.answered(ctx)...)
	list = append(list, a.tagged(ctx, dir)...)
	odd := judgeSights(list)
	if a.jsonOut {
		err = a.printJSON(list)
	} else {
		err = a.printSights(list)
	}
	if err == nil && len(odd) > 0 {
		err = fault.New(fault.Internal, "versions_differ", "not of one version: %s", strings.Join(odd, "; ")).
			Try("restart what runs an old version; `whisper-appliance verify` looks at the files")
	}
	return err
}

func (a *app) printSights(list []sight) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tVERSION\tCOMMIT\tSTATE\tSAYS")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.What, s.Version, s.Commit, s.State, s.Note)
	}
	return w.Flush()
}

// judgeSights fills in the states and names what is odd. In each group the
// version that most have is the right one; of two as frequent the first.
func judgeSights(list []sight) (odd []string) {
	for _, group := range []string{ofRelease, ofPackage} {
		want, commit := commonest(list, group)
		for i := range list {
			s := &list[i]
			if s.group != group || s.State == unknown {
				continue
			}
			right := want
			if s.plain {
				right, _, _ = strings.Cut(want, "+")
			}
			s.State = agrees
			if s.Version != right || s.Commit != "" && s.Commit != commit && commit != "" {
				s.State = differs
				odd = append(odd, s.What+" "+cmp.Or(s.Note, strings.TrimSpace("is "+s.Version+" "+s.Commit)))
				s.Note = cmp.Or(s.Note, strings.TrimSpace("should be "+right+" "+commit))
			}
		}
	}
	return odd
}

func commonest(list []sight, group string) (number, commit string) {
	votes := map[string]int{}
	most, first := 0, ""
	for _, s := range list {
		if s.group != group || s.State == unknown || s.Version == "" {
			continue
		}
		first = cmp.Or(first, s.Version)
		if s.plain || s.Commit == "" {
			continue
		}
		key := s.Version + " " + s.Commit
		if votes[key]++; votes[key] > most {
			most, number, commit = votes[key], s.Version, s.Commit
		}
	}
	return cmp.Or(number, first), commit
}

// onDisk looks at the release in dir: its file VERSION, its manifest, and what
// each program says of itself.
func (a *app) onDisk(ctx context.Context, dir string) []sight {
	list := []sight{versionFile(filepath.Join(dir, "VERSION"))}
	if m, err := slot.Read(dir); err == nil {
		list = append(list, sight{What: "manifest of " + dir, Version: m.Version, Commit: m.Commit, group: ofRelease})
	}
	programs, err := filepath.Glob(filepath.Join(dir, "bin", program+"*"))
	if err != nil || len(programs) == 0 {
		return append(list, sight{What: "programs of " + dir, State: unknown, Note: "there are none", group: ofRelease})
	}
	at := a.paths
	at.Slot = dir
	for _, path := range programs {
		command := []string{path}
		if path == filepath.Join(dir, slot.EnginePath) {
			command = at.EngineProgram()
		}
		list = append(list, askProgram(ctx, path, ofRelease, append(command, "--version")))
	}
	return list
}

func versionFile(path string) sight {
	s := sight{What: path, group: ofRelease, plain: true}
	data, err := os.ReadFile(path)
	if err != nil {
		s.State, s.Note = unknown, err.Error()
	}
	s.Version = strings.TrimSpace(string(data))
	return s
}

// askProgram runs a program that prints version.Line. One that does not agrees
// with nothing.
func askProgram(ctx context.Context, path, group string, command []string) sight {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s := sight{What: path, group: group}
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).Output()
	if err != nil {
		s.Note = "does not say: " + err.Error()
		return s
	}
	words := regexp.MustCompile(`^(\S+) (\S+) \(commit (\S+) of \S+\)\s*$`).FindStringSubmatch(string(out))
	if words == nil {
		s.Note = fmt.Sprintf("says %q", fault.Short(string(out)))
		return s
	}
	s.Version, s.Commit = words[2], words[3]
	return s
}

// inPackage compares what dpkg believes with the release that the package
// brought, and with the package's own programs, which change the slots.
func (a *app) inPackage(ctx context.Context) []sight {
	if a.paths.Golden == "" {
		return nil
	}
	golden := sight{What: "manifest of " + a.paths.Golden, group: ofPackage}
	if m, err := slot.Read(a.paths.Golden); err == nil {
		golden.Version, golden.Commit = m.Version, m.Commit
	} else {
		golden.State, golden.Note = unknown, err.Error()
	}
	pkg := sight{What: "package " + program, group: ofPackage}
	status, err := os.ReadFile(a.paths.DpkgStatus)
	if err == nil {
		pkg.Version, err = packageVersion(string(status))
	}
	if err != nil {
		pkg.State, pkg.Note = unknown, err.Error()
	}
	list := []sight{golden, pkg}
	for _, path := range []string{a.paths.UpdaterBin, a.paths.FetchBin} {
		list = append(list, askProgram(ctx, path, ofPackage, []string{path, "--version"}))
	}
	return list
}

// packageVersion reads dpkg's status file: paragraphs of "Field: value".
func packageVersion(status string) (string, error) {
	for paragraph := range strings.SplitSeq(status, "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(paragraph) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		if fields["Package"] != program {
			continue
		}
		state := fields["Status"]
		if state == "" || strings.HasSuffix(state, " config-files") || strings.HasSuffix(state, " not-installed") {
			break
		}
		return fields["Version"], nil
	}
	return "", errors.New("dpkg has not installed it")
}

// running looks at what the units' processes execute.
func (a *app) running(ctx context.Context) []sight {
	s, err := a.slots()
	if err != nil || !systemd.Booted("") {
		return nil
	}
	serving, err := s.Serving()
	if err != nil || serving == "" {
		return nil
	}
	bus, err := systemd.Dial(ctx)
	if err != nil {
		return []sight{{What: "running units", State: unknown, Note: err.Error(), group: ofRelease}}
	}
	defer bus.Close()
	units, err := bus.Units(ctx, systemd.Service, systemd.EngineService(serving))
	if err != nil {
		return []sight{{What: "running units", State: unknown, Note: err.Error(), group: ofRelease}}
	}
	var list []sight
	for _, u := range units {
		if u.MainPID != 0 {
			list = append(list, attested(ctx, s, u))
		}
	}
	return list
}

func attested(ctx context.Context, s *slot.Slots, u systemd.Unit) sight {
	path := slot.ServerPath
	if u.Name != systemd.Service {
		path = slot.EnginePath
	}
	found := sight{What: fmt.Sprintf("process %d of %s", u.MainPID, u.Name), group: ofRelease}
	name, m, err := s.Attest(ctx, paths.MachineAt("").Proc, u.MainPID, path)
	switch {
	case err != nil:
		found.State, found.Note = unknown, err.Error()
	case name == "":
		found.Version = "a program of no slot"
	default:
		found.Version, found.Commit = m.Version, m.Commit
	}
	return found
}

// answered is what the server on this machine says. Where systemd would have to
// start it first it is not asked.
func (a *app) answered(ctx context.Context) []sight {
	if a.asleep(ctx) {
		return nil
	}
	client, ok, err := a.localServer(ctx)
	if err != nil || !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var status struct {
		Build version.Info `json:"build"`
	}
	s := sight{What: "server at " + a.paths.APISocket, group: ofRelease}
	if err := client.Get(ctx, "/api/status", &status); err != nil {
		s.State, s.Note = unknown, err.Error()
		return []sight{s}
	}
	s.Version, s.Commit = status.Build.Version, status.Build.Commit
	return []sight{s}
}

// asleep tells whether systemd holds the server's socket and no server runs.
func (a *app) asleep(ctx context.Context) bool {
	if a.paths.Slots == "" || !systemd.Booted("") {
		return false
	}
	bus, err := systemd.Dial(ctx)
	if err != nil {
		return false
	}
	defer bus.Close()
	units, err := bus.Units(ctx, systemd.Service)
	return err == nil && len(units) == 1 && units[0].MainPID == 0
}

// tagged gives the version tags of a checkout's commit, where there are any.
func (a *app) tagged(ctx context.Context, dir string) []sight {
	if a.paths.Kind != paths.Development {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "tag", "--points-at", "HEAD", "v[0-9]*").Output()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []sight{{What: "git tag", State: unknown, Note: err.Error(), group: ofRelease}}
	}
	var list []sight
	for _, tag := range strings.Fields(string(out)) {
		list = append(list, sight{What: "git tag " + tag, Version: strings.TrimPrefix(tag, "v"), group: ofRelease, plain: true})
	}
	return list
}
