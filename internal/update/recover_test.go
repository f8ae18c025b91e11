package update

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
)

// Positions of a link beside the slots' names.
const (
	missing  = "-"
	dangling = "dangling" // it names no slot
)

// left is an appliance on which a run was cut off: version 1.0.0 served from
// slot a, and 1.1.0 is in slot b.
func left(t *testing.T, s step, current, stable string, proof bool) *world {
	t.Helper()
	w := newWorld(t)
	m := tree(t, w.u.Slots.Path(slot.B), "1.1.0")
	st := &state{Format: stateFormat, Step: s}
	if s != idle {
		st.Proof, st.TriesLeft, st.BootID = proof, tries, w.u.BootID
		st.Attempt = deployment.Record{Transaction: "t1", Door: deployment.DoorCLI, Kind: kindUpdate,
			From: w.u.release(slot.A), To: describe(m, slot.B), Started: w.u.Now()}
	}
	if s == rollingBack {
		w.u.blameTrial(st, verdict{reason: "restarted", blame: deployment.Candidate, says: "it crashes"})
	}
	must(t, w.u.save(st))
	for _, path := range w.u.ballasts() { // there, and of no bytes
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, ballastBytes))
	}
	point(t, w.u.Slots.Current, current)
	point(t, w.u.Slots.Stable, stable)
	if w.m.Units = map[string]slot.State{}; current == slot.A || current == slot.B || current == slot.Golden {
		w.m.launch(server)
	}
	return w
}

func point(t *testing.T, link, to string) {
	t.Helper()
	must(t, os.RemoveAll(link))
	if to != missing {
		must(t, os.Symlink(filepath.Join("slots", to), link))
	}
}

// TestRecover: where a run was cut off, and what becomes of it.
func TestRecover(t *testing.T) {
	const g = slot.Golden
	for _, tt := range []struct {
		step            step
		current, stable string
		boot            bool
		wantCurrent     string
		wantStable      string
		wantStep        step
		outcome, alarm  string
	}{
		// Nothing was under way.
		{idle, "a", "a", false, "a", "a", idle, "", ""},
		{idle, "a", "a", true, "a", "a", idle, "", ""},
		{idle, "b", "b", false, "b", "b", idle, "", ""},
		{idle, "b", "a", false, "b", "a", onTrial, "", ""},
		{idle, "b", "a", true, "b", "a", onTrial, "", ""},
		{idle, "b", missing, false, "b", "b", idle, "", ""},
		{idle, "b", dangling, true, "b", "b", idle, "", ""},
		{idle, missing, "a", false, "a", "a", idle, "", "current_mended"},
		{idle, dangling, "b", true, "b", "b", idle, "", "current_mended"},
		{idle, missing, missing, true, "a", "a", idle, "", "current_mended"},
		{idle, g, g, true, g, g, idle, "", ""},
		{idle, missing, g, false, g, g, idle, "", "current_mended"},
		{idle, g, "a", false, g, "a", onTrial, "", ""},

		// Before the link could move: what served serves.
		{preparing, "a", "a", false, "a", "a", idle, deployment.Aborted, ""},
		{preparing, "a", "a", true, "a", "a", idle, deployment.Aborted, ""},
		{preparing, missing, "a", true, "a", "a", idle, deployment.Aborted, "current_mended"},
		{preparing, g, g, false, g, g, idle, deployment.Aborted, ""},

		// It may have moved: the links say.
		{armed, "a", "a", false, "a", "a", idle, deployment.Aborted, ""},
		{armed, "a", "a", true, "a", "a", idle, deployment.Aborted, ""},
		{armed, "b", "a", false, "b", "a", onTrial, "", ""},
		{armed, "b", "a", true, "b", "a", onTrial, "", ""},
		{armed, "b", "b", false, "b", "b", idle, deployment.Committed, ""},
		{armed, "b", "b", true, "b", "b", idle, deployment.Committed, ""},
		{armed, "b", missing, true, "b", "a", onTrial, "", ""},
		{armed, missing, "a", true, "a", "a", idle, deployment.Aborted, "current_mended"},
		{armed, dangling, "a", false, "a", "a", idle, deployment.Aborted, "current_mended"},
		{armed, g, "a", true, g, g, idle, deployment.Aborted, "rolled_back_elsewhere"},

		// On trial.
		{onTrial, "b", "a", false, "b", "a", onTrial, "", ""},
		{onTrial, "b", "a", true, "b", "a", onTrial, "", ""},
		{onTrial, "b", missing, false, "b", "a", onTrial, "", ""},
		{onTrial, "b", dangling, true, "b", "a", onTrial, "", ""},
		{onTrial, "b", "b", false, "b", "b", idle, deployment.Committed, ""},
		{onTrial, "a", "a", false, "a", "a", idle, deployment.RolledBack, ""},
		{onTrial, "a", "a", true, "a", "a", idle, deployment.RolledBack, ""},
		{onTrial, "a", missing, true, "a", "a", idle, deployment.RolledBack, ""}, // the gate made `current` of `stable`
		{onTrial, missing, "a", true, "a", "a", idle, deployment.RolledBack, "current_mended"},
		{onTrial, g, "a", true, g, g, idle, deployment.RolledBack, "rolled_back_elsewhere"},

		// On the way back.
		{rollingBack, "b", "a", false, "a", "a", idle, deployment.RolledBack, ""},
		{rollingBack, "b", "a", true, "a", "a", idle, deployment.RolledBack, ""},
		{rollingBack, "a", "a", false, "a", "a", idle, deployment.RolledBack, ""},
		{rollingBack, "a", "a", true, "a", "a", idle, deployment.RolledBack, ""},
		{rollingBack, "a", missing, true, "a", "a", idle, deployment.RolledBack, ""},
		{rollingBack, missing, "a", true, "a", "a", idle, deployment.RolledBack, "current_mended"},
	} {
		t.Run(fmt.Sprintf("%s current=%s stable=%s boot=%v", tt.step, tt.current, tt.stable, tt.boot), func(t *testing.T) {
			w := left(t, tt.step, tt.current, tt.stable, true)
			_, err := w.u.Recover(t.Context(), tt.boot)
			must(t, err)
			runs := tt.wantCurrent
			if tt.boot || tt.current == missing || tt.current == dangling {
				runs = w.m.runs() // at boot it is started later
			}
			w.stands(tt.wantCurrent, tt.wantStable, runs)
			st := w.state()
			if st.Step != tt.wantStep {
				t.Errorf("step %s, want %s", st.Step, tt.wantStep)
			}
			alarm := ""
			if st.Alarm != nil {
				alarm = st.Alarm.Code
			}
			if alarm != tt.alarm {
				t.Errorf("alarm %q, want %q", alarm, tt.alarm)
			}
			records := 0
			if tt.outcome != "" {
				records = 1
				if r := w.last(1); r.Outcome != tt.outcome || r.Transaction != "t1" {
					t.Errorf("record %s of %s, want %s", r.Outcome, r.Transaction, tt.outcome)
				}
			}
			w.again(t, tt.boot, records)
		})
	}
}

// again settles once more, which must change nothing.
func (w *world) again(t *testing.T, boot bool, records int) {
	t.Helper()
	current, stable := w.u.links()
	before, started := w.state(), w.m.Started
	_, err := w.u.Recover(t.Context(), boot)
	must(t, err)
	if c, s := w.u.links(); c != current || s != stable {
		t.Errorf("links %q, %q after the second time, and %q, %q before", c, s, current, stable)
	}
	if after := w.state(); !reflect.DeepEqual(after, before) {
		t.Errorf("%s, alarm %+v after the second time; %s, %+v before", after.Step, after.Alarm, before.Step, before.Alarm)
	}
	if records > 0 {
		w.last(records)
	}
	if w.m.Started != started {
		t.Error("the server was started again")
	}
}

// TestRecoverFromAnywhere: whatever the state says and wherever the links point,
// what serves afterwards is whole, and once is enough.
func TestRecoverFromAnywhere(t *testing.T) {
	positions := []string{slot.A, slot.B, slot.Golden, missing, dangling}
	for _, s := range []step{idle, preparing, armed, onTrial, rollingBack} {
		for _, current := range positions {
			for _, stable := range positions {
				boot := (len(current)+len(stable))%2 == 0
				w := left(t, s, current, stable, current != slot.Golden)
				_, err := w.u.Recover(t.Context(), boot)
				if err != nil {
					t.Errorf("%s %s %s: %v", s, current, stable, err)
					continue
				}
				serving, committed := w.u.links()
				if serving == "" || committed == "" || w.u.whole(t.Context(), serving, false) != nil {
					t.Errorf("%s %s %s: current %q, stable %q", s, current, stable, serving, committed)
				}
				st := w.state()
				if trial := st.Step == onTrial; trial == (serving == committed) || !trial && st.Step != idle {
					t.Errorf("%s %s %s: %s with current %s, stable %s", s, current, stable, st.Step, serving, committed)
				}
				if s == rollingBack && serving == slot.B {
					t.Errorf("%s %s %s: what is quarantined serves", s, current, stable)
				}
				w.again(t, boot, 0)
				os.RemoveAll(w.home)
			}
		}
	}
}

// TestRecoverAtBoot: every start of the machine costs a trial one of its tries.
func TestRecoverAtBoot(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	for boot := 2; boot <= 4; boot++ {
		w.restart(fmt.Sprintf("boot %d", boot))
		watch, err := w.u.Recover(t.Context(), true)
		must(t, err)
		left := tries + 1 - boot
		if st := w.state(); left > 0 && (st.Step != onTrial || st.TriesLeft != left || !watch) {
			t.Errorf("boot %d: %s with %d tries, watch %v", boot, st.Step, st.TriesLeft, watch)
		}
	}
	w.m.launch(server)
	w.stands(slot.A, slot.A, slot.A)
	w.idles()
	if r := w.last(1); r.Outcome != deployment.RolledBack || r.Reason != "tries_exhausted" || r.Blame != deployment.Environment {
		t.Errorf("%+v", r)
	}
	// Somebody pulled the plug three times, for all that is known.
	if st := w.state(); len(st.Banned) != 0 || st.Held != "1.1.0" {
		t.Errorf("held %q, quarantine %+v", st.Held, st.Banned)
	}
}

// TestRecoverAfterBootLate: the server runs already when the updater looks.
func TestRecoverAfterBootLate(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	for boot := range tries {
		w.restart(fmt.Sprintf("later %d", boot))
		w.m.launch(server)
		_, err := w.u.Recover(t.Context(), false)
		must(t, err)
	}
	w.stands(slot.A, slot.A, slot.A)
	w.idles()
}

// TestDamagedSlot: what serves is held against its manifest at boot; while it
// runs a damaged file is told, and nothing is moved.
func TestDamagedSlot(t *testing.T) {
	for _, tt := range []struct {
		name    string
		spoil   func(w *world, dir string)
		boot    bool
		current string
		alarm   string
	}{
		{"a byte, at boot", func(w *world, dir string) { spoil(w.t, filepath.Join(dir, slot.EnginePath)) }, true, slot.B, "current_mended"},
		{"a byte, running", func(w *world, dir string) { spoil(w.t, filepath.Join(dir, slot.EnginePath)) }, false, slot.A, ""},
		{"a file is gone, running", func(w *world, dir string) { os.Remove(filepath.Join(dir, slot.EnginePath)) }, false, slot.A, "slot_damaged"},
		{"all of it is gone, running", func(w *world, dir string) { os.RemoveAll(dir) }, false, slot.B, "current_mended"},
		{"the other slot, too", func(w *world, dir string) {
			os.RemoveAll(dir)
			spoil(w.t, filepath.Join(w.u.Slots.Path(slot.B), slot.ServerPath))
		}, true, slot.Golden, "current_mended"},
		{"the other is quarantined", func(w *world, dir string) {
			os.RemoveAll(dir)
			st := w.state()
			st.ban(deployment.Quarantine{Version: "1.1.0", Digest: w.u.release(slot.B).Digest})
			must(w.t, w.u.save(st))
		}, true, slot.Golden, "current_mended"},
		{"all but the package's before", func(w *world, dir string) {
			os.RemoveAll(dir)
			os.RemoveAll(w.u.Slots.Path(slot.B))
			tree(w.t, w.u.Slots.GoldenBefore, "0.9.0")
			spoil(w.t, filepath.Join(w.u.Slots.Golden, slot.ServerPath))
		}, true, slot.Golden, "current_mended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := left(t, idle, slot.A, slot.A, true)
			tt.spoil(w, w.u.Slots.Path(slot.A))
			_, err := w.u.Recover(t.Context(), tt.boot)
			must(t, err)
			runs := tt.current
			if tt.boot {
				runs = w.m.runs()
			}
			if tt.current == slot.Golden || tt.current == slot.A {
				runs = w.m.runs()
			}
			w.stands(tt.current, tt.current, runs)
			if st := w.state(); (st.Alarm == nil) != (tt.alarm == "") || st.Alarm != nil && st.Alarm.Code != tt.alarm {
				t.Errorf("alarm %+v, want %q", st.Alarm, tt.alarm)
			}
			w.again(t, tt.boot, 0)
		})
	}
}

// spoil changes one byte of a file.
func spoil(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(path, data, 0o755))
}

// TestStateUnreadable: what serves is left as it is, and somebody is told.
func TestStateUnreadable(t *testing.T) {
	for name, text := range map[string]string{"truncated": `{"format":1,"step":"tri`, "empty": "", "garbage": "\x00\x00", "newer": `{"format":2,"step":"idle"}`, "gone": ""} {
		for _, current := range []string{slot.A, slot.B} {
			t.Run(name+" "+current, func(t *testing.T) {
				w := left(t, idle, current, slot.A, true)
				st := w.state()
				st.Floor, st.Pinned = "1.0.0", "1.1.0"
				must(t, w.u.save(st))
				must(t, w.u.save(st)) // .prev knows it, too
				path := filepath.Join(w.u.Dir, stateFile)
				must(t, os.WriteFile(path, []byte(text), 0o644))
				if name == "gone" {
					must(t, os.Remove(path))
				}
				_, err := w.u.Recover(t.Context(), false)
				must(t, err)
				w.stands(current, slot.A, current)
				st = w.state()
				if st.Floor != "1.0.0" || st.Pinned != "1.1.0" || st.Alarm == nil || st.Alarm.Code != "state_unreadable" || st.Alarm.Hint == "" {
					t.Errorf("floor %q, pin %q, alarm %+v", st.Floor, st.Pinned, st.Alarm)
				}
				if trial := st.Step == onTrial; trial != (current == slot.B) {
					t.Errorf("step %s", st.Step)
				}
				if _, err := readState(filepath.Join(w.u.Dir, stateBefore)); err != nil {
					t.Errorf("the state before is not readable any more: %v", err)
				}
			})
		}
	}
}

// TestRecordedOnce though a run is cut after each of its writes.
func TestRecordedOnce(t *testing.T) {
	r := deployment.Record{Transaction: "t1", Outcome: deployment.Committed}
	for _, tt := range []struct {
		name   string
		append string // to the record, before
	}{
		{"before it was written", ""},
		{"in the middle of it", `{"transaction":"t1","outc`},
		{"after it was written", line(t, r)},
		{"after another", line(t, deployment.Record{Transaction: "t0"})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			must(t, w.u.save(&state{Format: stateFormat, Step: idle, Unrecorded: &r}))
			must(t, os.WriteFile(filepath.Join(w.u.Dir, deployment.RecordFile), []byte(tt.append), 0o644))
			for range 3 {
				_, err := w.u.Recover(t.Context(), false)
				must(t, err)
			}
			all, err := deployment.Records(w.u.Dir, 0)
			must(t, err)
			n := 0
			for _, is := range all {
				if is.Transaction == "t1" {
					n++
				}
			}
			if st := w.state(); n != 1 || st.Unrecorded != nil || st.Last == nil || st.Last.Transaction != "t1" {
				t.Errorf("recorded %d times; unrecorded %+v, last %+v", n, st.Unrecorded, st.Last)
			}
		})
	}
}

func line(t *testing.T, r deployment.Record) string {
	data, err := json.Marshal(r)
	must(t, err)
	return string(data) + "\n"
}

// TestRecordIsBounded by what the settings say, and by what a release says.
func TestRecordIsBounded(t *testing.T) {
	w := newWorld(t)
	w.set.Keep = 10
	for n := range 14 {
		st := w.state()
		st.Attempt = deployment.Record{Transaction: fmt.Sprint("t", n), Says: strings.Repeat("é", 5000), Evidence: make([]string, 200)}
		must(t, w.u.finish(st, deployment.Aborted))
	}
	all, err := deployment.Records(w.u.Dir, 0)
	must(t, err)
	if len(all) > 11 || len(all) < 10 || all[0].Transaction != "t13" {
		t.Errorf("%d records, the newest %s", len(all), all[0].Transaction)
	}
	if r := all[0]; len(r.Says) > mostWords+4 || len(r.Evidence) != mostEvidence {
		t.Errorf("%d bytes, %d lines", len(r.Says), len(r.Evidence))
	}
}

// TestRecoverSweeps what a killed run has left of its temporary files.
func TestRecoverSweeps(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"state/.state.json.123", "state/.ballast.123", "opt/..ballast.123", "opt/.staging/b-1/x", "opt/.trash/b-1/x"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(w.home, path)), 0o755))
		must(t, os.WriteFile(filepath.Join(w.home, path), []byte("half"), 0o600))
	}
	_, err := w.u.Recover(t.Context(), true)
	must(t, err)
	w.tidy()
}

// TestRecoverFailedSwitch: the link had moved, and the server does not follow.
func TestRecoverFailedSwitch(t *testing.T) {
	for _, tt := range []struct {
		name    string
		spoil   func(w *world)
		outcome string
		reason  string
		banned  bool
	}{
		{"the candidate is no good", func(w *world) { w.m.Sick = []string{"1.1.0"} }, deployment.RolledBack, slot.CandidateFailed, true},
		{"it does not take over", func(w *world) { w.m.Crash = []string{"server 1.1.0"} }, deployment.RolledBack, slot.RolledBack, true},
		{"its unit could not be set up", func(w *world) { w.m.Crash = []string{"server 1.1.0"}; w.ended(unmade()) }, deployment.RolledBack, slot.RolledBack, false},
		{"it does not take over, and hangs", func(w *world) { w.m.Crash = []string{"server 1.1.0"}; w.ended(unmade(), hungUp()) },
			deployment.RolledBack, slot.RolledBack, true},
		{"it is damaged on the disk", func(w *world) { spoil(w.t, filepath.Join(w.u.Slots.Path(slot.B), slot.EnginePath)) },
			deployment.RolledBack, "damaged_release", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := left(t, armed, slot.A, slot.A, true)
			must(t, w.u.Slots.Activate(slot.B)) // and the server still runs a's
			tt.spoil(w)
			_, err := w.u.Recover(t.Context(), false)
			must(t, err)
			w.stands(slot.A, slot.A, slot.A)
			if r := w.last(1); r.Outcome != tt.outcome || r.Reason != tt.reason {
				t.Errorf("record %s, %s", r.Outcome, r.Reason)
			}
			if banned := len(w.state().Banned) > 0; banned != tt.banned {
				t.Errorf("quarantined: %v", banned)
			}
			w.again(t, false, 1)
		})
	}
	t.Run("systemd is away", func(t *testing.T) {
		w := left(t, armed, slot.A, slot.A, true)
		must(t, w.u.Slots.Activate(slot.B))
		w.m.Down = true
		_, err := w.u.Recover(t.Context(), false)
		wantCode(t, err, "no_systemd")
		if st := w.state(); st.Step != armed {
			t.Errorf("step %s", st.Step)
		}
		w.m.Down = false
		_, err = w.u.Recover(t.Context(), false)
		must(t, err)
		w.stands(slot.B, slot.A, slot.B)
		if st := w.state(); st.Step != onTrial {
			t.Errorf("step %s", st.Step)
		}
	})
	t.Run("nothing has to be proved", func(t *testing.T) {
		w := left(t, armed, slot.B, slot.A, false)
		_, err := w.u.Recover(t.Context(), false)
		must(t, err)
		w.stands(slot.B, slot.B, slot.B)
		w.last(1)
	})
}
