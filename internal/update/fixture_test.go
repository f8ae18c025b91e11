package update

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
	"whisper-appliance/internal/trust"
)

// world is an appliance with a systemd, slots on disk, and an updater. Version
// 1.0.0 is golden, and lies in slot a, which serves and is committed.
type world struct {
	t    *testing.T
	home string
	u    *Updater
	m    *machine
	set  Settings
	keys *publish.Keys // of the repository, nil where there is none
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := openWorld(t, scratch(t))
	tree(t, w.u.Slots.Golden, "1.0.0")
	must(t, w.u.Slots.Prepare())
	tree(t, w.u.Slots.Path(slot.A), "1.0.0")
	must(t, w.u.Slots.Activate(slot.A))
	must(t, w.u.Slots.Commit(slot.A))
	w.m.launch(server)
	return w
}

// scratch is a directory in memory where there is one with room: a transaction
// syncs many times.
func scratch(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	if free, err := durable.Free(memory); err != nil || free < 512<<20 {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "update-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// openWorld is what stands in home, which outlives those who work in it.
func openWorld(t *testing.T, home string) *world {
	t.Helper()
	w := &world{t: t, home: home}
	for _, dir := range []string{"opt/slots", "package", "state", "run", "proc"} {
		must(t, os.MkdirAll(filepath.Join(home, dir), 0o755))
	}
	slots := &slot.Slots{
		Dir: filepath.Join(home, "opt/slots"), Current: filepath.Join(home, "opt/current"), Stable: filepath.Join(home, "opt/stable"),
		Golden: filepath.Join(home, "package/golden"), GoldenBefore: filepath.Join(home, "package/golden.old"),
	}
	w.set = Settings{Update: config.Default().Update}
	w.set.Trial = 10 * time.Second
	w.m = openMachine(t, slots, home)
	begun := time.Now()
	w.u = &Updater{
		Slots: slots, Dir: filepath.Join(home, "state"), Run: filepath.Join(home, "run"), Log: slog.New(slog.DiscardHandler),
		Trust:    &trust.Store{Dir: filepath.Join(home, "state/trust"), Now: time.Now},
		Settings: func() (Settings, error) { return w.set, nil }, Fetched: filepath.Join(home, "fetched"),
		Version: "1.0.0", MachineID: "machine", BootID: "boot 1", Now: time.Now, Clock: func() time.Duration { return time.Since(begun) },
		Site: Site{Switch: w.m.swap, Idle: func(context.Context) (string, error) { return w.m.Idle, w.m.away() }},
	}
	if root, err := os.ReadFile(filepath.Join(home, "root.json")); err == nil {
		w.u.Trust.Root, w.set.Sources = root, []string{filepath.Join(home, "repo")}
	}
	return w
}

// withoutSystemd is an image build: there is nothing to be started.
func (w *world) withoutSystemd() *world {
	w.u.Site = Site{}
	return w
}

// tree makes a sealed release of a version in dir.
func tree(t *testing.T, dir, version string) slot.Manifest {
	t.Helper()
	return treeOf(t, dir, slot.Info{Version: version, Commit: "c0ffee", Arch: runtime.GOARCH, Contract: slot.Contract})
}

func treeOf(t *testing.T, dir string, info slot.Info) slot.Manifest {
	t.Helper()
	for path, text := range map[string]string{"VERSION": info.Version + "\n", slot.ServerPath: "server " + info.Version, slot.EnginePath: "engine " + info.Version} {
		must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755))
		mode := os.FileMode(0o755)
		if path == "VERSION" {
			mode = 0o644
		}
		must(t, os.WriteFile(filepath.Join(dir, path), []byte(text), mode))
	}
	m, err := slot.Seal(t.Context(), dir, info)
	must(t, err)
	return m
}

// tree is a release beside the slots, as a package brings one.
func (w *world) tree(version string) string {
	dir := filepath.Join(w.home, "trees", version)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		tree(w.t, dir, version)
	}
	return dir
}

// artefact packs what lies in dir, as it is.
func (w *world) artefact(dir string) string {
	m, err := slot.Read(dir)
	must(w.t, err)
	path := filepath.Join(w.home, "artefacts", release.TargetName(m.Version, m.Arch))
	must(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	must(w.t, err)
	defer f.Close()
	_, err = release.Pack(w.t.Context(), dir, f)
	must(w.t, err)
	return path
}

// stable is a release for everybody.
func stable(r publish.Release) publish.Release {
	r.Channel, r.Rollout = release.Stable, 100
	return r
}

// offers publishes versions in the one repository that the updater asks.
func (w *world) offers(versions ...string) {
	w.t.Helper()
	for _, v := range versions {
		w.publish(stable(publish.Release{File: w.artefact(w.tree(v))}))
	}
}

func (w *world) publish(r publish.Release) {
	w.t.Helper()
	if w.keys == nil {
		keys, err := publish.InitKeys(filepath.Join(w.home, "keys"), 1, time.Now())
		must(w.t, err)
		must(w.t, os.WriteFile(filepath.Join(w.home, "root.json"), keys.Root(), 0o644))
		w.keys, w.u.Trust.Root, w.set.Sources = keys, keys.Root(), []string{w.repo()}
	}
	_, err := (&publish.Repository{Dir: w.repo(), Keys: w.keys}).Publish(w.t.Context(), r)
	must(w.t, err)
}

func (w *world) repo() string { return filepath.Join(w.home, "repo") }

// bundle is a file *.wa of a version that is on offer.
func (w *world) bundle(version string) string {
	w.t.Helper()
	path, _, err := publish.Bundle(w.t.Context(), w.repo(), w.keys.Root(), version, runtime.GOARCH, filepath.Join(w.home, version+".wa"))
	must(w.t, err)
	return path
}

// deploy is what dpkg asks for.
func (w *world) deploy(version string) Want {
	return Want{Door: deployment.DoorDpkg, Tree: w.tree(version), Trial: true}
}

// apply fails the test where what is wanted does not come to the outcome.
func (w *world) apply(want Want, outcome string) Result {
	w.t.Helper()
	res, err := w.u.Apply(w.t.Context(), want)
	if err != nil || res.Outcome != outcome {
		w.t.Fatalf("%s came to %q, %v; want %s", want, res.Outcome, err, outcome)
	}
	return res
}

// refused fails the test where what is wanted is not refused with the code.
func (w *world) refused(want Want, code string) {
	w.t.Helper()
	_, err := w.u.Apply(w.t.Context(), want)
	wantCode(w.t, err, code)
}

// onTrial brings a version on trial.
func (w *world) onTrial(version string) { w.t.Helper(); w.apply(w.deploy(version), OnTrial) }

// good is a sample, seconds after the trial began, of a server that is well.
func good(seconds int) trial.Sample {
	return trial.Sample{At: time.Duration(seconds) * time.Second, Up: true, Active: "active", PID: 1, Invocation: "one", Smoke: &trial.Smoke{OK: true},
		Counters: &trial.Counters{Answered: int64(10 * (seconds + 1))}}
}

// watch is Watch with these samples, and no time between them.
func (w *world) watch(samples ...trial.Sample) (over bool) {
	w.t.Helper()
	st := w.state()
	judge := trial.New(st.Baseline, rulesOf(w.set), st.Credit)
	for n, s := range samples {
		w.u.Site.Look = func(context.Context, bool) (trial.Sample, error) { return s, nil }
		var err error
		if over, err = w.u.look(w.t.Context(), st.Attempt.Transaction, judge, n); err != nil {
			w.t.Fatalf("look %d: %v", n, err)
		}
		if over {
			break
		}
	}
	return over
}

// proves lets the trial that runs end well.
func (w *world) proves() {
	w.t.Helper()
	var samples []trial.Sample
	for n := range 40 {
		samples = append(samples, good(n))
	}
	if !w.watch(samples...) {
		w.t.Fatalf("the trial goes on: %+v", w.state().Credit)
	}
}

// fails lets the trial that runs end badly.
func (w *world) fails() {
	w.t.Helper()
	s := good(1)
	s.Restarts, s.Result, s.Exit = 3, "exit-code", 1
	if !w.watch(s) {
		w.t.Fatal("the trial goes on")
	}
}

func (w *world) state() *state {
	w.t.Helper()
	st, err := w.u.load()
	must(w.t, err)
	return st
}

// last is the newest record; the test fails where there are not so many.
func (w *world) last(records int) deployment.Record {
	w.t.Helper()
	all, err := deployment.Records(w.u.Dir, 0)
	must(w.t, err)
	if len(all) != records {
		w.t.Fatalf("%d records, want %d: %+v", len(all), records, all)
	}
	return all[0]
}

// stands fails the test where the links and what runs are not as they should be.
func (w *world) stands(current, stable, runs string) {
	w.t.Helper()
	is, committed := w.u.links()
	if is != current || committed != stable {
		w.t.Errorf("current %q, stable %q; want %q, %q", is, committed, current, stable)
	}
	if w.u.systemd() && w.m.runs() != runs {
		w.t.Errorf("the server runs %q, want %q", w.m.runs(), runs)
	}
	for unit, st := range w.m.Units {
		if unit != server && st.Active == "active" {
			w.t.Errorf("%s still runs", unit)
		}
	}
}

// idles fails the test where something is left of a transaction.
func (w *world) idles() {
	w.t.Helper()
	if st := w.state(); st.Step != idle || st.Unrecorded != nil || st.Attempt.Transaction != "" {
		w.t.Errorf("step %s, unrecorded %+v, attempt %+v", st.Step, st.Unrecorded, st.Attempt)
	}
	w.tidy()
}

// tidy fails the test where a temporary file or half a tree lies about.
func (w *world) tidy() {
	w.t.Helper()
	for _, dir := range []string{"opt/.staging", "opt/.trash"} {
		if left, err := os.ReadDir(filepath.Join(w.home, dir)); err == nil && len(left) > 0 {
			w.t.Errorf("%s still holds %v", dir, left)
		}
	}
	for _, dir := range []string{"opt", "state", "state/artefact", "run"} {
		left, err := os.ReadDir(filepath.Join(w.home, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Error(err)
		}
		for _, e := range left {
			if e.Name()[0] == '.' && !slices.Contains([]string{".staging", ".trash", ".ballast"}, e.Name()) {
				w.t.Errorf("%s/%s is left", dir, e.Name())
			}
		}
	}
}

// restart is the machine started anew: nothing runs but what the link names.
func (w *world) restart(boot string) {
	w.u.BootID = boot
	w.m.Units = map[string]slot.State{}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode fails where err is no fault with the code, or has no hint.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != code {
		t.Errorf("error %v, want a fault %q", err, code)
		return
	}
	if code != "canceled" && fault.Hint(err) == "" {
		t.Errorf("%v: no hint", err)
	}
}
