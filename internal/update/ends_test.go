package update

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
)

// ended has the gate note how the server of slot b has ended, each with systemd's
// result and exit status.
func (w *world) ended(ends ...trial.End) {
	w.u.Site.Ends = func(name string) []trial.End {
		if name != slot.B {
			return nil
		}
		return ends
	}
}

// The ways in which a server may end.
func crashed() trial.End { return trial.End{Result: "exit-code", Code: "exited", Status: "1"} }
func unmade() trial.End  { return trial.End{Result: "exit-code", Code: "exited", Status: "226"} }
func memless() trial.End { return trial.End{Result: "oom-kill", Code: "killed", Status: "KILL"} }
func hungUp() trial.End  { return trial.End{Result: trial.Watchdog, Code: "killed", Status: "ABRT"} }

// TestTriesExhausted: whoever cut the power, it is held, and not refused.
func TestTriesExhausted(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	for boot := range tries {
		w.restart(fmt.Sprintf("start %d", boot))
		w.m.launch(server)
		_, err := w.u.Recover(t.Context(), false)
		must(t, err)
	}
	w.stands(slot.A, slot.A, slot.A)
	st, r := w.state(), w.last(1)
	if r.Reason != "tries_exhausted" || r.Blame != deployment.Environment || len(st.Banned) > 0 || st.Held != "1.1.0" {
		t.Errorf("%s, %s: %s; held %q, quarantine %+v", r.Reason, r.Blame, r.Says, st.Held, st.Banned)
	}
}

// TestEndsOfOthers: what ended in the slot before the transaction began, and what a
// look has found nobody to answer for, is not the candidate's.
func TestEndsOfOthers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		seen  bool          // a look has found the first to be past
		ago   time.Duration // that the first was before the transaction
		want  string
		lines int // of evidence
	}{
		{"a stop that took too long", true, -time.Minute, deployment.Configuration, 3},
		{"the release before in that slot", false, time.Hour, deployment.Configuration, 3},
		{"the candidate's own", false, -time.Minute, deployment.Candidate, 4},
		{"its own, in the second in which it began", false, time.Second, deployment.Candidate, 4},
		{"when is not known", false, 0, deployment.Candidate, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := left(t, onTrial, slot.B, slot.A, true)
			first := trial.End{Result: "timeout", Code: "killed", Status: "KILL", Invocation: "first"}
			if tt.ago != 0 {
				first.At = w.state().Attempt.Started.Add(-tt.ago).Unix()
			}
			ends := []trial.End{first}
			if tt.seen {
				s := good(1) // of the run that somebody has started since
				s.Ends = ends
				w.watch(s)
			}
			for _, invocation := range []string{"2", "3", "4"} {
				e := unmade()
				e.Invocation, e.At = invocation, w.u.Now().Unix()
				ends = append(ends, e)
			}
			w.ended(ends...)
			must(t, w.u.Slots.Activate(slot.A)) // by the gate
			w.m.launch(server)
			if tt.seen { // which a look finds out, at the server that is back
				s := good(2)
				s.Ends = []trial.End{{Result: "watchdog", Invocation: "of slot a"}}
				w.watch(s)
			} else {
				_, err := w.u.Recover(t.Context(), false)
				must(t, err)
			}
			if r := w.last(1); r.Reason != "gate" || r.Blame != tt.want || len(r.Evidence) != tt.lines {
				t.Errorf("%s, %s, %q", r.Reason, r.Blame, r.Evidence)
			}
		})
	}
}

// TestGateGaveGoldenUp: that the package's release failed, and the one of the package
// before serves, is recorded once, and an alarm says so.
func TestGateGaveGoldenUp(t *testing.T) {
	for _, tt := range []struct {
		name     string
		to       func(w *world) string // where slots/golden leads
		mark     bool
		current  string
		recorded bool
	}{
		{"it has", (*world).goldenBefore, true, slot.Golden, true},
		{"it has left no mark", (*world).goldenBefore, false, slot.Golden, false},
		{"it was made right since", func(w *world) string { return w.u.Slots.Golden }, true, slot.Golden, false},
		{"another serves by now", (*world).goldenBefore, true, slot.A, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := left(t, idle, tt.current, tt.current, true)
			m := tree(t, w.u.Slots.GoldenBefore, "0.9.0")
			link := w.u.Slots.Path(slot.Golden)
			must(t, os.RemoveAll(link))
			must(t, os.Symlink(tt.to(w), link))
			w.m.launch(server)
			mark := tt.mark
			w.u.Site.TakenBack = func(name string) bool { return name == slot.Golden && mark }
			w.u.Site.ForgetTaken = func(name string) error { mark = mark && name != slot.Golden; return nil }
			w.u.Site.Ends = func(string) []trial.End { return []trial.End{crashed()} }
			_, err := w.u.Recover(t.Context(), false)
			must(t, err)
			st := w.state()
			if is := st.Alarm != nil && st.Alarm.Code == "current_mended" && st.Alarm.Hint != ""; is != tt.recorded {
				t.Errorf("alarm %+v", st.Alarm)
			}
			if !tt.recorded {
				w.last0()
				return
			}
			r := w.last(1)
			if r.Outcome != deployment.RolledBack || r.From.Digest != m.Digest() || r.To.Version != "1.0.0" || r.Reason != "gate" || len(r.Evidence) != 1 || mark {
				t.Errorf("%+v, mark %v", r, mark)
			}
			w.again(t, false, 1)
			mark = true // it could not be removed
			w.again(t, false, 1)
		})
	}
}

func (w *world) goldenBefore() string { return w.u.Slots.GoldenBefore }

// last0 fails the test where anything is recorded.
func (w *world) last0() {
	w.t.Helper()
	if all, err := deployment.Records(w.u.Dir, 0); err != nil || len(all) > 0 {
		w.t.Errorf("%+v, %v", all, err)
	}
}

// TestGateKnowsWhy: what the gate has taken back is blamed by how its server
// ended, be it in the trial or while the updater that began it was dead.
func TestGateKnowsWhy(t *testing.T) {
	for _, tt := range []struct {
		name string
		ends []trial.End
		want string
		says string
	}{
		{"nothing is noted", nil, deployment.Candidate, "took it back"},
		{"it hangs", []trial.End{hungUp(), hungUp(), hungUp()}, deployment.Candidate, "watchdog"},
		{"it crashes", []trial.End{crashed(), crashed(), crashed()}, deployment.Candidate, "ended by itself"},
		{"its unit cannot be set up", []trial.End{unmade(), unmade(), unmade()}, deployment.Configuration, "status 226"},
		{"the machine has no memory", []trial.End{memless(), memless(), memless()}, deployment.Environment, "for memory"},
		{"once it was its own fault", []trial.End{crashed(), unmade(), unmade()}, deployment.Candidate, "ended by itself"},
	} {
		for _, s := range []step{onTrial, armed} {
			t.Run(tt.name+", "+string(s), func(t *testing.T) {
				w := left(t, s, slot.A, slot.A, true)
				w.ended(tt.ends...)
				w.u.Site.TakenBack = func(string) bool { return true }
				_, err := w.u.Recover(t.Context(), false)
				must(t, err)
				w.stands(slot.A, slot.A, slot.A)
				st, r := w.state(), w.last(1)
				if r.Outcome != deployment.RolledBack || r.Reason != "gate" || r.Blame != tt.want || !strings.Contains(r.Says, tt.says) {
					t.Errorf("%s, %s, %s: %s", r.Outcome, r.Reason, r.Blame, r.Says)
				}
				if at := map[step]deployment.Phase{onTrial: deployment.OnTrial, armed: deployment.TakeOver}[s]; r.At != at || len(r.Evidence) != len(tt.ends) {
					t.Errorf("at %s, evidence %q", r.At, r.Evidence)
				}
				if banned := len(st.Banned) == 1; banned != (tt.want == deployment.Candidate) || (st.Held == "1.1.0") == banned {
					t.Errorf("held %q, quarantine %+v", st.Held, st.Banned)
				}
				w.again(t, false, 1)
			})
		}
	}
}

// TestRefusedGolden: the package's release that serves and is quarantined gives
// way to the one of the package before, where that is any better.
func TestRefusedGolden(t *testing.T) {
	for _, boot := range []bool{true, false} {
		for _, tt := range []struct {
			name    string
			prepare func(w *world)
			ban     []string // versions
			serves  string
		}{
			{"and there is one before it", nil, []string{"1.0.0"}, "0.9.0"},
			{"it is not quarantined", nil, nil, "1.0.0"},
			{"both are", nil, []string{"1.0.0", "0.9.0"}, "1.0.0"},
			{"there is none before", func(w *world) { must(w.t, os.RemoveAll(w.u.Slots.GoldenBefore)) }, []string{"1.0.0"}, "1.0.0"},
			{"the one before is damaged", func(w *world) { spoil(w.t, filepath.Join(w.u.Slots.GoldenBefore, slot.ServerPath)) }, []string{"1.0.0"}, "1.0.0"},
			{"the one before is half gone", func(w *world) { must(w.t, os.Remove(filepath.Join(w.u.Slots.GoldenBefore, slot.ManifestName))) }, []string{"1.0.0"}, "1.0.0"},
		} {
			t.Run(fmt.Sprintf("%s, boot=%v", tt.name, boot), func(t *testing.T) {
				w := left(t, idle, slot.Golden, slot.Golden, true)
				digests := map[string]string{"1.0.0": w.u.release(slot.Golden).Digest, "0.9.0": describe(tree(t, w.u.Slots.GoldenBefore, "0.9.0"), "").Digest}
				st := w.state()
				for _, version := range tt.ban {
					st.ban(deployment.Quarantine{Version: version, Digest: digests[version]})
				}
				must(t, w.u.save(st))
				if tt.prepare != nil {
					tt.prepare(w)
				}
				_, err := w.u.Recover(t.Context(), boot)
				must(t, err)
				if boot {
					w.m.launch(server)
				}
				if got := w.m.version(w.m.where(server)); got != tt.serves {
					t.Errorf("%s is to serve, want %s", got, tt.serves)
				}
				w.stands(slot.Golden, slot.Golden, w.m.runs())
				st = w.state()
				if moved := tt.serves != "1.0.0"; moved != (st.Alarm != nil && st.Alarm.Code == "current_mended" && st.Alarm.Hint != "") {
					t.Errorf("alarm %+v", st.Alarm)
				}
				w.again(t, boot, 0)
			})
		}
	}
}
