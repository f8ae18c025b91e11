package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
)

// evil are words that a terminal would obey, or take for another's.
const evil = "it is \x1b[2Jdead\u202e\nALARM       all is well\u009b31m"

// plainFile fails the test where a file of the updater's, all of which people
// are shown, could play with a terminal. JSON writes the worst of it as \u001b.
func plainFile(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	if strings.ContainsFunc(string(data), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) || strings.Contains(string(data), `\u00`) || strings.Contains(string(data), `dead\n`) {
		t.Errorf("%s: %q", path, data)
	}
}

// TestWordsOfStrangers: what a candidate or a server says is told in plain words,
// wherever it is kept.
func TestWordsOfStrangers(t *testing.T) {
	w := newWorld(t)
	w.u.Site.Rehearse = func(context.Context, string, slot.Manifest) (trial.Finding, error) {
		return trial.Finding{Verdict: trial.Verdict{Evidence: []string{evil}}}, fault.New(fault.Unavailable, "rehearsal_failed", "%s", evil).Try("%s", evil)
	}
	w.refused(w.deploy("1.1.0"), "rehearsal_failed")
	w.u.Site.Rehearse = nil
	w.onTrial("1.2.0")
	st := w.state()
	status := trial.New(st.Baseline, rulesOf(w.set), st.Credit).Status()
	status.Says, status.Evidence = evil, []string{evil}
	w.u.show(st, &doing{State: deployment.Trial, Phase: deployment.OnTrial, Message: evil, Trial: &status})
	plainFile(t, filepath.Join(w.u.Run, deployment.StatusFile))
	if status.Evidence[0] != evil {
		t.Error("the judge's own words were changed")
	}
	st.raise(&deployment.Problem{Code: "x", Message: evil, Hint: evil})
	must(t, w.u.beginRollback(t.Context(), st, verdict{reason: "smoke", blame: deployment.Candidate, says: evil, evidence: []string{evil}}, false))
	if len(w.state().Banned) != 2 {
		t.Errorf("quarantine %+v", w.state().Banned)
	}
	for _, path := range []string{filepath.Join(w.u.Run, deployment.StatusFile), filepath.Join(w.u.Dir, stateFile), filepath.Join(w.u.Dir, deployment.RecordFile)} {
		plainFile(t, path)
	}
}

// TestSecretOfASource lets the fetcher in, and is told to nobody.
func TestSecretOfASource(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0")
	const address = "https://someone:sesame@mirror.example/r"
	repo := w.repo()
	w.set.Sources = []string{address}
	w.u.Fetched = repo
	var asked []string
	w.u.Fetch = func(_ context.Context, o Order, _ func(int64)) error { asked = append(asked, o.Sources...); return nil }
	if offer, err := w.u.Download(t.Context(), ""); err != nil || offer == nil {
		t.Fatalf("%+v, %v", offer, err)
	}
	w.u.Fetch = nil
	_, err := w.u.Check(t.Context())
	if len(asked) != 2 || asked[0] != address || asked[1] != address || err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("asked %v, error %v", asked, err)
	}
	for _, path := range []string{filepath.Join(w.u.Run, deployment.StatusFile), filepath.Join(w.u.Dir, stateFile)} {
		if data, err := os.ReadFile(path); err != nil || strings.Contains(string(data), "sesame") || strings.Contains(string(data), "someone") || !strings.Contains(string(data), "mirror.example") {
			t.Errorf("%s: %s, %v", path, data, err)
		}
	}
}

// TestOfflineKeepsTheRules: what was fetched before is installed by itself only
// where it would be with a line.
func TestOfflineKeepsTheRules(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(w *world)
		code   string // "" = there is nothing to do
	}{
		"pinned":     {func(w *world) { _, err := w.u.Pin("1.0.0"); must(t, err) }, ""},
		"held":       {func(w *world) { st := w.state(); st.Held = "1.1.0"; must(t, w.u.save(st)) }, "held"},
		"channel":    {func(w *world) { w.set.Channel = release.Stable }, ""},
		"rolled out": {func(w *world) { w.set.Rollout = 60 }, "rollout"},
		"quarantined": {func(w *world) {
			st := w.state()
			st.ban(deployment.Quarantine{Artefact: w.offer().SHA256})
			must(t, w.u.save(st))
		}, "quarantined"},
	} {
		w := newWorld(t)
		w.set.Channel, w.set.Rollout = release.Beta, 10
		w.publish(publish.Release{File: w.artefact(w.tree("1.1.0")), Channel: release.Beta, Rollout: 50})
		if offer, err := w.u.Download(t.Context(), ""); err != nil || offer == nil {
			t.Fatalf("%s: %+v, %v", name, offer, err)
		}
		must(t, os.Rename(w.repo(), w.repo()+".away"))
		tt.change(w)
		res, err := w.u.Apply(t.Context(), Want{Trial: true})
		if tt.code != "" {
			wantCode(t, err, tt.code)
		} else if err != nil || res.Outcome != Already {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		w.stands(slot.A, slot.A, slot.A)
	}
}

// offer is the one release on offer, as it is trusted.
func (w *world) offer() (o struct{ SHA256 string }) {
	w.t.Helper()
	index, err := w.u.Trust.Trusted()
	must(w.t, err)
	o.SHA256 = index.Offers[0].SHA256
	return o
}

// TestHeldOverHTTP: who asked for a rollback is shown, and it holds nothing but
// what it left: a server that was taken over does not stay what it is.
func TestHeldOverHTTP(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0")
	w.apply(Want{Trial: true}, OnTrial)
	if _, err := w.u.Rollback(t.Context(), deployment.DoorHTTP); err != nil {
		t.Fatal(err)
	}
	s, err := w.u.Status()
	if err != nil || s.Held != "1.1.0" || s.HeldBy != deployment.DoorHTTP || s.HeldSince.IsZero() || !strings.Contains(w.last(1).Says, "http") {
		t.Errorf("held %q by %q since %v, %v", s.Held, s.HeldBy, s.HeldSince, err)
	}
	if offer, err := w.u.Check(t.Context()); err != nil || offer == nil || !strings.HasPrefix(offer.Refused, "held") {
		t.Errorf("%+v, %v", offer, err)
	}
	w.offers("1.2.0")
	if offer, err := w.u.Check(t.Context()); err != nil || offer == nil || offer.Version != "1.2.0" || offer.Refused != "" {
		t.Errorf("%+v, %v", offer, err)
	}
	w.apply(Want{Trial: true, Auto: true, Door: deployment.DoorTimer}, OnTrial)
	w.proves()
	if _, err := w.u.Rollback(t.Context(), deployment.DoorCLI); err != nil {
		t.Fatal(err)
	}
	if st := w.state(); st.Held != "1.2.0" || st.Hold.Door != deployment.DoorCLI {
		t.Errorf("held %q by %+v", st.Held, st.Hold)
	}
	must(t, w.u.Unpin())
	if st := w.state(); st.Held != "" || st.Hold != (hold{}) {
		t.Errorf("held %q by %+v", st.Held, st.Hold)
	}
}

// TestBlame: nobody has to answer for what another has done.
func TestBlame(t *testing.T) {
	damaged := fault.New(fault.BadInput, damagedArtefact, "other bytes")
	candidate := func(cause error) error {
		return fault.New(fault.Unavailable, slot.CandidateFailed, "it fails").Because(cause)
	}
	for name, tt := range map[string]struct {
		want Want
		err  error
		who  string
	}{
		"damaged on the line":          {Want{}, damaged, deployment.Environment},
		"damaged in a file":            {Want{Bundle: "x.wa"}, damaged, deployment.Candidate},
		"it crashes":                   {Want{}, candidate(errors.New("crash")), deployment.Candidate},
		"what it needs is not there":   {Want{}, candidate(fault.New(fault.Unavailable, slot.NeverBegun, "x")), deployment.Environment},
		"systemd has no such unit":     {Want{}, candidate(fault.New(fault.NotFound, "no_unit", "x")), deployment.Environment},
		"somebody wants the lock more": {Want{}, errYielded, deployment.Operator},
	} {
		if who, _ := (&transaction{want: tt.want}).blame(tt.err); who != tt.who {
			t.Errorf("%s: %s", name, who)
		}
	}
}
