//go:build e2e && faults

package matrix

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"whisper-appliance/tests/faults/supervise"
)

// fails is the release of a way back: its server ends in its trial.
const fails = "2.4.1"

// version is what a row's update is to, and hurt what its users may meet with.
func (r row) version() (version, hurt string) {
	if r.back {
		return fails, "hurts"
	}
	return next, ""
}

// base is what comes of a row's update where nothing goes wrong.
func (r row) base() string {
	if r.back {
		return "B"
	}
	return "M"
}

// kill is SIGKILL at each of the row's fault points, under load.
func (w *world) kill(r row) string {
	w.Helper()
	seen := &letters{}
	for _, point := range r.kills {
		seen.add(w.killAt(r, point))
	}
	return seen.String()
}

func (w *world) killAt(r row, point string) string {
	w.Helper()
	version, hurt := r.version()
	w.fresh()
	end := w.load()
	job := w.begin("update "+version, point+" crash")
	if exit, output := job.end(); !job.killed {
		end()
		w.Errorf("it was not killed at %s: %d, %s", point, exit, output)
		return "? not killed"
	}
	w.neverBroken()
	w.settle()
	letter := w.as(r, killed, w.came(version))
	w.unharmed(end(), hurt)
	return letter
}

// full has both disks full from the row's fault point on.
func (w *world) full(r row) string {
	w.Helper()
	version, hurt := r.version()
	w.fresh()
	end := w.load()
	job := w.begin("update "+version, r.at+" "+pause)
	met := job.at(r.at, func() { must(w, w.home.Fill(0), w.state.Fill(0)) })
	if !met {
		end()
		_, output := job.end()
		w.Errorf("it did not come to %s: %s", r.at, output)
		return "? not met"
	}
	// A trial goes on while the disk is full, for as long as that lasts.
	w.until(1500*time.Millisecond, job.over)
	w.neverBroken()
	if got := w.serves(); got != first && got != version {
		w.Errorf("on the full disk %s serves", got)
	}
	stays := !job.over() && w.readable().Step == "trial"
	said := w.readable().Last
	must(w, w.home.Unfill(), w.state.Unfill())
	if _, output := job.end(); r.name == "4 reserve" && !strings.Contains(output, "bytes (") {
		w.Errorf("it does not say how many bytes are missing: %s %+v", output, said)
	}
	w.settle()
	letter := w.as(r, full, w.came(version))
	w.unharmed(end(), hurt)
	if r.name == "15 commit" && stays && letter == "M" {
		return "trial"
	}
	return letter
}

// bus has the system bus go down at the row's fault point, and where the step
// needs systemd its private socket as well.
func (w *world) bus(r row) string {
	w.Helper()
	version, hurt := r.version()
	w.fresh()
	end := w.load()
	job := w.begin("update "+version, r.at+" "+pause)
	job.at(r.at, func() { w.sup.Mute(w.Buses[1], true) })
	_, output := job.end()
	letter := w.came(version)
	w.unharmed(end(), hurt)
	if letter != r.base() {
		w.Errorf("over the private socket it came to %s: %s", letter, output)
		return letter
	}
	if !slices.Contains(Wants()[r.name][busDown], "D") {
		return "M"
	}
	return w.alone(r)
}

// alone is bus without the private socket.
func (w *world) alone(r row) string {
	w.Helper()
	version, _ := r.version()
	if r.name == "14 trial" { // what else is to be seen there is the gate
		version = fails
	}
	point := map[string]string{"13 take over": "slot.activated", "rollback: start": "slot.rolling_back", "11 overlap": "update.overlap"}[r.name]
	if point == "" {
		point = r.at
	}
	w.fresh()
	end := w.load()
	job := w.begin("update "+version, point+" "+pause)
	job.at(point, func() { w.sup.Mute(w.Buses[0], true); w.sup.Mute(w.Buses[1], true) })
	w.until(4*time.Second, job.over)
	w.neverBroken()
	w.sup.Mute(w.Buses[0], false)
	w.sup.Mute(w.Buses[1], false)
	_, output := job.end()
	w.settle()
	w.away = true
	letter := w.came(version)
	w.unharmed(end(), "hurts")
	allowed := map[string][]string{"9 preflight": {"O"}, "11 overlap": {"O"}, "13 take over": {"F", "M", "B", "BP"}, "14 trial": {"BP", "B"}, "rollback: start": {"B", "BP"}}[r.name]
	if !slices.Contains(allowed, letter) {
		w.Errorf("without systemd's answer it came to %s: %s", letter, output)
		return letter
	}
	w.Logf("%s: without systemd's answer it came to %s", r.name, letter)
	return "D"
}

// racers is how many more updaters there are.
const racers = 8

// race has others come while one is at the row's fault point.
func (w *world) race(r row) string {
	w.Helper()
	version, hurt := r.version()
	w.fresh()
	end := w.load()
	job := w.begin("update "+version, r.at+" "+pause)
	met := job.at(r.at, func() { w.losers(version) })
	_, output := job.end()
	letter := w.came(version)
	w.unharmed(end(), hurt)
	if !met || letter != r.base() {
		w.Errorf("beside others it came to %s: %s", letter, output)
		return letter
	}
	return "L"
}

// losers fails the test where one of them is not told at once who is at work.
func (w *world) losers(version string) {
	w.Helper()
	var wait sync.WaitGroup
	var jobs []*running
	for range racers {
		jobs = append(jobs, w.begin("update "+after))
	}
	exits, outputs, took := make([]int, racers), make([]string, racers), make([]time.Duration, racers)
	for i, job := range jobs {
		wait.Go(func() {
			exits[i], outputs[i] = job.end()
			took[i] = time.Since(job.began)
		})
	}
	wait.Wait()
	for i := range jobs {
		if exits[i] != exitBusy || took[i] > 2*time.Second || !holder(version, outputs[i]) {
			w.Errorf("one of %d ended with %d after %v: %s", racers, exits[i], took[i], outputs[i])
		}
	}
	w.Logf("%d others were told within %v", racers, slices.Max(took))
}

// holder tells whether somebody who was turned away was told who is at work:
// the update, or later its trial.
func holder(version, said string) bool {
	return strings.Contains(said, "update to "+version) || strings.Contains(said, "the trial")
}

// clock has the wall clock jump at the row's fault point.
func (w *world) clock(r row) string {
	w.Helper()
	version, hurt := r.version()
	for _, wrong := range []string{"87600h", "-87600h"} {
		w.fresh()
		end := w.load()
		job := w.begin("update "+version, r.at+" "+pause)
		met := job.at(r.at, func() { must(w, os.WriteFile(w.Clock, []byte(wrong), 0o600)) })
		_, output := job.end()
		letter := w.came(version)
		w.unharmed(end(), hurt)
		if !met || letter != r.base() {
			w.Errorf("with a clock that is wrong by %s it came to %s: %s", wrong, letter, output)
			return letter
		}
	}
	return "M"
}

// behaves installs a release that is bad in some way.
func (w *world) behaves(version string) string {
	w.Helper()
	w.fresh()
	hurt := ""
	switch version[:3] {
	case "2.2", "2.3", "2.4": // beside the server a candidate takes requests, too
		hurt = "hurts"
	}
	tr := supervise.Traffic{Address: w.sup.Address(), Kept: 2, Fresh: 2, Uploads: 1, Pace: 5 * time.Millisecond, Limit: 20 * time.Second}
	if version == "2.4.5" { // a run beside others' work is not measured
		tr.Uploads, tr.Pace, w.Trial, w.Tick = 0, 50*time.Millisecond, 15*time.Second, 250*time.Millisecond
	}
	if version == "2.4.6" { // it takes three looks
		w.Trial = 5 * time.Second
	}
	end := tr.Begin()
	began := time.Now()
	exit, output := w.do("update " + version)
	took := time.Since(began)
	letter := w.came(version)
	w.unharmed(end(), hurt)
	if letter != "OQ" && letter != "B" && letter != "BP" {
		w.Errorf("version %s (%s) ended with %d: %s", version, bad()[version], exit, output)
	}
	w.Logf("%s (%s): %s, %s, after %v", version, bad()[version], letter, w.last().Reason, took.Round(10*time.Millisecond))
	return letter
}

// oldFails has the release before fail when it is gone back to.
func (w *world) oldFails(how string) string {
	w.Helper()
	w.fresh()
	job := w.begin("update "+fails, "update.on_trial "+pause)
	job.at("update.on_trial", func() { must(w, os.WriteFile(filepath.Join(w.Run, "mode"), []byte(how+"\n"), 0o644)) })
	_, output := job.end()
	w.settle()
	if how != "not-ready" {
		return w.came(fails)
	}
	// It runs, and cannot transcribe: nothing tells that golden could.
	if current, stable := w.links(); current != first || stable != first {
		w.Errorf("current leads to %s, stable to %s: %s", current, stable, output)
	}
	if st := w.readable(); st.Step != "idle" || w.banned(fails) == "" {
		w.Errorf("%+v", st)
	}
	return "kept"
}

// letters are what several tries of one cell came to.
type letters struct{ list []string }

func (l *letters) add(letter string) {
	if !slices.Contains(l.list, letter) {
		l.list = append(l.list, letter)
	}
}

// String is the one letter, or all.
func (l *letters) String() string { return strings.Join(l.list, " or ") }

// flip changes a byte of the first file that the pattern matches, in place or,
// where it is executed, in a new file of its name.
func (w *world) flip(pattern string) {
	w.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		w.Fatalf("nothing is called %s: %v", pattern, err)
	}
	data, err := os.ReadFile(files[0])
	must(w, err)
	info, err := os.Stat(files[0])
	must(w, err)
	data[len(data)-1] ^= 1
	fresh := files[0] + ".flipped"
	must(w, os.WriteFile(fresh, data, info.Mode()), os.Chmod(fresh, info.Mode()), os.Rename(fresh, files[0]))
}

// corrupted changes a byte when the update comes to a fault point.
func (w *world) corrupted(version, point, pattern string) string {
	w.Helper()
	w.fresh()
	end := w.load()
	job := w.begin("update "+version, point+" "+pause)
	if !job.at(point, func() { w.flip(pattern) }) {
		_, output := job.end()
		end()
		return fmt.Sprintf("? it did not come to %s: %s", point, output)
	}
	_, output := job.end()
	letter := w.came(version)
	hurt := ""
	if version == fails {
		hurt = "hurts"
	}
	w.unharmed(end(), hurt)
	if strings.HasPrefix(letter, "?") {
		w.Error(output)
	}
	return letter
}

// halfFetched is kill, and once more in the middle of the transfer, which then
// goes on where it was.
func (w *world) halfFetched(r row) string {
	w.Helper()
	letter := w.kill(r)
	w.fresh()
	end := w.load()
	stall := w.source.stallOnce()
	job := w.begin("update " + next)
	select {
	case <-stall:
	case <-job.ended:
		w.Fatal("nothing was fetched")
	}
	w.until(2*time.Second, func() bool {
		parts, err := filepath.Glob(filepath.Join(w.paths().Fetched, "repository", "targets", "*.part"))
		if err != nil || len(parts) == 0 {
			return false
		}
		info, err := os.Stat(parts[0])
		return err == nil && info.Size() > 0
	})
	job.kill()
	w.neverBroken()
	w.settle()
	if got := w.as(r, killed, w.came(next)); got != letter {
		w.Errorf("killed in the transfer it came to %s, before it to %s", got, letter)
	}
	if w.source.resumes() == 0 {
		w.Error("the transfer began anew")
	}
	w.unharmed(end(), "")
	return letter
}
