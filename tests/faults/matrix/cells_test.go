//go:build e2e && faults

package matrix

import (
	"fmt"
	"slices"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
	"whisper-appliance/tests/faults/supervise"
)

// row is a step of the transaction.
type row struct {
	name  string
	at    string   // fault point at which something happens to the step
	kills []string // fault points at which it is killed
	back  bool     // of the way back: there is a bad release on trial
}

func rows() []row {
	return []row{
		{name: "3 plan", at: "update.plan", kills: []string{"update.plan"}},
		{name: "4 reserve", at: "update.reserve", kills: []string{"update.reserve"}},
		{name: "5 fetch", at: "update.fetch", kills: []string{"update.fetch"}},
		{name: "6 verify", at: "update.verify", kills: []string{"update.verify"}},
		{name: "7 stage", at: "update.stage", kills: []string{"update.stage", "slot.copied"}},
		{name: "8 publish", at: "update.publish", kills: []string{"update.publish", "slot.read_back", "slot.cleared", "slot.placed"}},
		{name: "9 preflight", at: "update.preflight", kills: []string{"update.preflight"}},
		{name: "10 arm", at: "update.arm", kills: []string{"update.arm"}},
		{name: "11 overlap", at: "slot.overlapped", kills: []string{"update.overlap", "slot.overlapped", "slot.smoked"}},
		{name: "12 switch", at: "slot.activated", kills: []string{"slot.activated"}},
		{name: "13 take over", at: "slot.restarted", kills: []string{"slot.restarted"}},
		{name: "14 trial", at: "update.on_trial", kills: []string{"update.on_trial"}},
		{name: "15 commit", at: "update.committing", kills: []string{"update.committing", "slot.committed", "update.link_committed"}},
		{name: "16 clean", at: "update.cleaning", kills: []string{"update.ended", "update.recorded", "update.cleaning"}},
		{name: "rollback: link", at: "update.rolling_back", kills: []string{"update.rolling_back", "slot.rolling_back"}, back: true},
		{name: "rollback: start", at: "slot.back", kills: []string{"slot.back"}, back: true},
	}
}

// came is what became of an update to version, in the design's letters; "?" and
// words where that is none of them. What stands then is checked.
func (w *world) came(version string) string {
	w.Helper()
	r, serves := w.last(), w.serves()
	letter, stands := "", first
	switch {
	case r.To.Version != version && (r.To.Version != "" || r.At != deployment.Plan && r.Reason != "interrupted"):
		return fmt.Sprintf("? the last is of %q", r.To.Version)
	case serves == version && r.Outcome == deployment.Committed && r.Interrupted > 0:
		letter, stands = "F", version
	case serves == version && r.Outcome == deployment.Committed:
		letter, stands = "M", version
	case serves == golden:
		letter, stands = "golden", golden
	case serves == first && r.Outcome == deployment.RolledBack && r.Reason == "gate":
		letter = "BP"
	case serves == first && r.Outcome == deployment.RolledBack:
		letter = "B"
	case serves == first && r.Outcome == deployment.Aborted && w.banned(version) != "":
		letter = "OQ"
	case serves == first && r.Outcome == deployment.Aborted && slices.Contains(unbelieved(), r.Reason):
		letter = "OQ¹"
	case serves == first && r.Outcome == deployment.Aborted:
		letter = "O"
	default:
		return fmt.Sprintf("? %s serves, %s %s: %s", serves, r.Outcome, r.Reason, r.Says)
	}
	w.stands(stands)
	w.means(letter, version, r)
	return letter
}

// unbelieved are the reasons for which bytes are refused that nobody has signed:
// they are gone, and by digest or signature they never come in. To quarantine
// the release whose name they bear would keep out the real one.
func unbelieved() []string {
	return []string{"artefact_damaged", "bad_signature", "bad_metadata", "mix_and_match"}
}

// means holds what else a letter says.
func (w *world) means(letter, version string, r deployment.Record) {
	w.Helper()
	st := w.readable()
	if want := map[string]string{"F": version, "M": version}[letter]; want != "" && st.Floor != want {
		w.Errorf("%s: the floor is %s, want %s", letter, st.Floor, want)
	} else if want == "" && st.Floor != first {
		w.Errorf("%s: the floor is %s, want %s", letter, st.Floor, first)
	}
	reason := w.banned(version)
	switch letter {
	case "O", "OQ¹", "F", "M":
		if reason != "" {
			w.Errorf("%s: %s is quarantined: %s", letter, version, reason)
		}
	case "OQ", "B", "BP":
		if w.away && r.Blame == deployment.Environment && reason == "" {
			break
		}
		if reason == "" || r.Reason == "" || r.Blame != deployment.Candidate {
			w.Errorf("%s: quarantined for %q; recorded %q, blame %q", letter, reason, r.Reason, r.Blame)
		}
	}
	if letter == "B" {
		w.quickly(r)
	}
	if letter == "O" || letter == "OQ" || letter == "OQ¹" {
		if r.Reason == "" || r.Says == "" {
			w.Errorf("%s: no reason is recorded: %+v", letter, r)
		}
	}
	if st.Last == nil || st.Last.Transaction != r.Transaction {
		w.Errorf("%s: the state tells of another transaction than the record", letter)
	}
}

// quickly holds the length of a way back against the start's limit, a smoke test
// and five seconds.
func (w *world) quickly(r deployment.Record) {
	w.Helper()
	took := 0.0
	for _, p := range r.Phases {
		if p.Phase == deployment.Rollback {
			took += p.Seconds
		}
	}
	if limit := startTimeout + smokeTime + 5*time.Second; took > limit.Seconds() {
		w.Errorf("the way back took %.1f s, at most %v is allowed", took, limit)
	}
	noteLine("back\t%.3f", took)
}

// unharmed fails the test where those who used the appliance met with more than
// an update may cost them: none where it goes well; where the new server failed
// them in its trial, requests that succeed when they are repeated.
func (w *world) unharmed(t supervise.Tally, kind string) {
	w.Helper()
	if t.Refused > 0 || t.Lost() > 0 || t.Failed > 0 && kind != "hurts" {
		w.Errorf("%v: %q", t, t.First)
	}
}

// redone is C where the step can be done once more: an update goes through.
func (w *world) redone(letter string) string {
	w.Helper()
	if letter != "O" {
		return letter
	}
	if exit, output := w.do("update " + next); exit != 0 {
		w.Errorf("done again it ends with %d: %s", exit, output)
		return "? not redone"
	}
	w.stands(next)
	return "C"
}

// whole is C where all slots are well after an update that was cut while it
// cleaned up.
func (w *world) whole(letter string) string {
	w.Helper()
	if letter != "F" && letter != "M" {
		return letter
	}
	if w.versionIn(slot.A) != first || w.versionIn(slot.B) != next {
		w.Errorf("a holds %q, b %q", w.versionIn(slot.A), w.versionIn(slot.B))
	}
	return "C"
}

// as words a letter as the table's row has it: in C's rows what goes on is C, and
// where an update goes through that nobody interrupted it went forward.
func (w *world) as(r row, column, letter string) string {
	w.Helper()
	want := Wants()[r.name][column]
	switch {
	case slices.Contains(want, "C") && r.name == "16 clean":
		return w.whole(letter)
	case slices.Contains(want, "C"):
		return w.redone(letter)
	case slices.Contains(want, "F") && letter == "M":
		return "F"
	}
	return letter
}
