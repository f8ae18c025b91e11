//go:build e2e && faults

package matrix

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
	"whisper-appliance/tests/faults/cut"
)

// campaign is a job, and a cut of both disks at each of its changes of them.
type campaign struct {
	name    string
	job     string
	version string
	back    bool           // it is the way back: judged is what the trial came to before
	before  func(w *world) // makes the world in which the job begins, saved
	seen    map[string]*letters
	cuts    map[string]int
	redone  map[string]bool
}

// TestCuts takes the power away at every change of the disks that an update
// makes, from its first to its last, and at every one of a rollback.
func TestCuts(t *testing.T) {
	for _, c := range []*campaign{
		{name: "update", job: "update " + next, version: next, before: func(*world) {}},
		{name: "rollback", job: "watch", version: fails, back: true, before: func(w *world) { w.mustDo("begin " + fails) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.seen, c.cuts, c.redone = map[string]*letters{}, map[string]int{}, map[string]bool{}
			c.run(w)
		})
	}
}

// run is the whole of it.
func (c *campaign) run(w *world) {
	w.Helper()
	w.fresh()
	c.before(w)
	w.sup.PowerOff()
	must(w, w.home.Save(), w.state.Save())
	all := c.once(w, 0)
	if all.ExitCode != 0 {
		w.Fatalf("uncut it ends with %d: %s", all.ExitCode, all.Output)
	}
	points := all.Points()
	total := len(points)
	if fast() {
		points = every(points, 20)
	}
	began := time.Now()
	missed := 0
	for _, at := range points {
		r := c.once(w, at)
		if !r.Cut { // a trial is not looked at equally often each time
			missed++
			continue
		}
		must(w, w.home.Revive(), w.state.Revive())
		c.after(w, r)
		if w.Failed() {
			w.Fatalf("after a cut at call %d of %d, %s\nbefore it %s", at, all.Calls, r.Log[len(r.Log)-1], strings.Join(r.Log[max(0, len(r.Log)-8):len(r.Log)-1], "\n"))
		}
	}
	for _, r := range rows() {
		if c.seen[r.name] == nil && r.back == c.back && !fast() {
			c.between(w, r)
		}
	}
	w.sup.PowerOff()
	must(w, w.home.Check(), w.state.Check())
	w.Logf("%d cuts of %d calls that matter, of %d in all (%d were not come to), %v", len(points)-missed, total, all.Calls, missed, time.Since(began).Round(time.Second))
	noteCuts(c.name, len(points)-missed, total, all.Calls)
	for _, r := range rows() {
		if l := c.seen[r.name]; l != nil && r.back == c.back {
			note(r.name, powerCut, l.String())
			w.Logf("%s: %d cuts, %s", r.name, c.cuts[r.name], l)
		}
	}
	if missed > len(points)/5 {
		w.Errorf("%d of %d cuts were not come to", missed, len(points))
	}
}

func every(points []int, n int) (some []int) {
	for i := n / 2; i < len(points); i += n {
		some = append(some, points[i])
	}
	return some
}

// once is the job with the power cut at a call, 0 for never.
func (c *campaign) once(w *world, at int) cut.Result {
	w.Helper()
	w.fresh()
	cmd := w.cutCommand(c.job)
	cmd.At = at
	var failed error
	cmd.Hook = func() {
		failed = errors.Join(w.home.Cut(), w.state.Cut())
		w.sup.PowerOff()
	}
	r, err := cut.Run(w.Context(), cmd)
	if errors.Is(err, errors.ErrUnsupported) {
		w.Skip(err)
	}
	must(w, err, failed)
	return r
}

// after is the machine with its power back.
func (c *campaign) after(w *world, r cut.Result) {
	w.Helper()
	w.neverBroken()
	c.judge(w, c.step(w, r))
}

// between is a cut in a step that changes no disk: what the ones before it wrote
// may not be there yet.
func (c *campaign) between(w *world, r row) {
	w.Helper()
	w.fresh()
	job := w.begin(c.job, r.kills[0]+" crash")
	if exit, output := job.end(); !job.killed {
		w.Fatalf("it did not come to %s: %d, %s", r.kills[0], exit, output)
	}
	must(w, w.home.Cut(), w.state.Cut())
	w.sup.PowerOff()
	must(w, w.home.Revive(), w.state.Revive())
	w.neverBroken()
	c.judge(w, r.name)
}

// judge boots after a cut in a step, and says what it came to.
func (c *campaign) judge(w *world, name string) {
	w.Helper()
	c.cuts[name]++
	w.boot()
	if got := w.serves(); got != first && got != c.version {
		w.Errorf("%s serves", got)
	}
	if w.readable().Step == "trial" {
		w.mustDo("watch")
	}
	letter := c.letter(w, name)
	if c.seen[name] == nil {
		c.seen[name] = &letters{}
	}
	c.seen[name].add(letter)
	if want := Wants()[name][powerCut]; !slices.Contains(want, letter) {
		w.Errorf("%s: it came to %s, want %s", name, letter, strings.Join(want, " or "))
	}
}

// letter is what the cut came to.
func (c *campaign) letter(w *world, name string) string {
	w.Helper()
	if all, err := deployment.Records(w.paths().Updater, 1); err == nil && (len(all) == 0 || all[0].Kind != "update") {
		w.stands(first) // cut before the first note of it
		return c.again(w, name, "O")
	}
	letter := w.came(c.version)
	if letter == "M" {
		letter = "F" // all that was left to do was not about its outcome
	}
	if name == "16 clean" {
		return w.whole(letter)
	}
	return c.again(w, name, letter)
}

// again is C for a step that is done once more by the next update. One for each
// step is made.
func (c *campaign) again(w *world, name, letter string) string {
	w.Helper()
	if letter != "O" || !slices.Contains(Wants()[name][powerCut], "C") {
		return letter
	}
	if c.redone[name] {
		return "C"
	}
	c.redone[name] = true
	return w.redone(letter)
}

// step is the row that a cut belongs to: what the updater showed last, but for
// what it does without showing, which its calls tell.
func (c *campaign) step(w *world, r cut.Result) string {
	w.Helper()
	log := strings.Join(r.Log[:len(r.Log)-1], "\n") // what was done
	linked := strings.Contains(log, filepath.Join(w.Home, ".current.new")+" -> ")
	if c.back {
		if linked {
			return "rollback: start"
		}
		return "rollback: link"
	}
	var s deployment.Status // as it stands in the file: its writer is dead
	data, err := os.ReadFile(filepath.Join(w.paths().UpdaterRun, deployment.StatusFile))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return "3 plan"
	}
	switch {
	case strings.Contains(log, "write "+filepath.Join(w.paths().Updater, deployment.RecordFile)):
		return "16 clean"
	case strings.Contains(r.Log[len(r.Log)-1]+log, filepath.Join(w.Home, ".stable.new")):
		return "15 commit"
	}
	for phase, name := range map[deployment.Phase]string{
		deployment.Plan: "3 plan", deployment.Reserve: "4 reserve", deployment.Fetch: "5 fetch", deployment.Verify: "6 verify", deployment.Stage: "7 stage",
		deployment.Publish: "8 publish", deployment.Preflight: "9 preflight", deployment.Arm: "10 arm", deployment.Overlap: "11 overlap",
		deployment.TakeOver: "13 take over", deployment.OnTrial: "14 trial",
	} {
		if s.Phase == phase {
			return name
		}
	}
	switch {
	case s.Phase == deployment.Switch && (!linked || w.lost()): // the link has not moved, or not on the disk
		return "11 overlap"
	case s.Phase == deployment.Switch:
		return "12 switch"
	case linked: // what it shows is not the step's: a trial that is recovered, say
		return "14 trial"
	}
	return "3 plan"
}

// lost tells whether a link that was moved is where it was: nobody had synced it
// yet.
func (w *world) lost() bool {
	w.Helper()
	serving, err := w.slots.Serving()
	must(w, err)
	return serving == slot.A
}

// noteFile is where cells that were made in several runs are put together.
func noteLine(format string, args ...any) {
	name := os.Getenv("FAULTS_NOTES")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, format+"\n", args...) //nolint:errcheck // the table shows what is missing
}

// note keeps what a cell came to.
func note(row, column, got string) { noteLine("cell\t%s\t%s\t%s", row, column, got) }

// noteCuts keeps how many cuts there were.
func noteCuts(name string, made, points, calls int) {
	noteLine("cuts\t%s\t%d\t%d\t%d", name, made, points, calls)
}
