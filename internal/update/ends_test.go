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
func crashed() trial.End  { return trial.End{Result: "exit-code", Code: "exited", Status: "1"} }
func unmade() trial.End   { return trial.End{Result: "exit-code", Code: "exited", Status: "226"} }
func memless() trial.End  { return trial.End{Result: "oom-kill", Code: "killed", Status: "KILL"} }
func hungUp() trial.End   { return trial.End{Result: trial.Watchdog, Code: "killed", Status: "ABRT"} }
func starving() trial.End { return trial.End{Result: "resources"} }

// TestTriesExhausted: whoever cut the power, a release is refused only where it
// is known that it failed.
func TestTriesExhausted(t *testing.T) {
	for _, tt := range []struct {
		name string
		ends []trial.End
		want string
	}{
		{"nothing is noted", nil, deployment.Environment},
		{"its server failed", []trial.End{crashed()}, deployment.Candidate},
		{"systemd could not run it", []trial.End{unmade(), starving()}, deployment.Environment},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.onTrial("1.1.0")
			w.ended(tt.ends...)
			st := w.state()
			st.Credit.Ends = 7
			must(t, w.u.save(st))
			for boot := range tries {
				w.restart(fmt.Sprintf("start %d", boot))
				w.m.launch(server)
				_, err := w.u.Recover(t.Context(), false)
				must(t, err)
				if st := w.state(); st.Step == onTrial && st.Credit.Ends != 0 {
					t.Errorf("%d ends are known that the gate has forgotten", st.Credit.Ends)
				}
			}
			w.stands(slot.A, slot.A, slot.A)
			st, r := w.state(), w.last(1)
			if r.Reason != "tries_exhausted" || r.Blame != tt.want {
				t.Errorf("%s, %s: %s", r.Reason, r.Blame, r.Says)
			}
			if banned := len(st.Banned) == 1; banned != (tt.want == deployment.Candidate) || (st.Held == "1.1.0") == banned {
				t.Errorf("held %q, quarantine %+v", st.Held, st.Banned)
			}
		})
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
				w.u.Site.TakenBack = func(string, time.Time) bool { return true }
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
