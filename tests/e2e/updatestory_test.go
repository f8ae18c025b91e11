//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
)

// readEvents adds the states that a stream tells of to those seen, each once in
// a row, and gives the id of the last event.
func readEvents(r io.Reader, seen []deployment.State, told string) ([]deployment.State, string) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			told = id
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var s deployment.Status
		if !ok || json.Unmarshal([]byte(data), &s) != nil {
			continue
		}
		if len(seen) == 0 || seen[len(seen)-1] != s.State {
			seen = append(seen, s.State)
		}
	}
	return seen, told
}

// TestUpdateStory: under load from all sides a release that is on offer is
// installed, tried and committed, and taken back by hand, and no request fails.
func TestUpdateStory(t *testing.T) {
	b := updated(t, sound)
	before := b.packaged()
	ctx, cancel := context.WithCancel(t.Context())
	type stream struct {
		states []deployment.State
		breaks int
	}
	followed := make(chan stream, 1)
	go func() {
		states, breaks := b.followed(ctx)
		followed <- stream{states, breaks}
	}()
	var ended deployment.Record
	counts := b.while(b.eight(), func() {
		var found struct{ Available *deployment.Offer }
		if b.does(&found, "check"); found.Available == nil || found.Available.Version != sound.Version {
			t.Fatalf("on offer is %+v, want %s", found.Available, sound.Version)
		}
		b.does(&ended, "apply", "--wait")
	})
	cancel()
	events := <-followed
	figure(t, "update under load: link to attested %.2f s; %s", ended.Requests.Swap, took(ended))
	figure(t, "update under load: %v", counts)
	b.nothingFailed("update", counts)
	b.servesVersion(sound.Version)
	b.complete(ended, before)
	for _, want := range []deployment.State{deployment.Updating, deployment.Trial, deployment.Idle} {
		if !slices.Contains(events.states, want) {
			t.Errorf("the events tell of %v, and not of %s", events.states, want)
		}
	}
	if events.breaks != 0 {
		t.Errorf("the stream could not be had %d times", events.breaks)
	}
	b.back(before)
}

// complete wants the record of an update to say all that a record can.
func (b *box) complete(r deployment.Record, before string) {
	b.t.Helper()
	if r.Outcome != deployment.Committed || r.Door != deployment.DoorCLI || r.Kind != "update" || r.From.Version != before || r.To.Version != sound.Version ||
		r.From.Digest == "" || r.To.Digest == "" || r.From.Slot == r.To.Slot {
		b.t.Errorf("the record says %+v", r)
	}
	var phases []deployment.Phase
	for _, p := range r.Phases {
		phases = append(phases, p.Phase)
	}
	for _, want := range deployment.Phases() {
		if want != deployment.Commit && want != deployment.Clean && !slices.Contains(phases, want) {
			b.t.Errorf("phase %s is missing: %v", want, phases)
		}
	}
	if !r.Requests.Known || r.Requests.Answered == 0 || r.Requests.Failed != 0 || r.Requests.Swap <= 0 {
		b.t.Errorf("requests: %+v", r.Requests)
	}
	if r.Figures == (deployment.Figures{}) || r.Says == "" || len(r.Evidence) == 0 {
		b.t.Errorf("figures %+v, says %q, evidence %q", r.Figures, r.Says, r.Evidence)
	}
}

// back goes back by hand under load, and looks that the version which was left
// does not come again by itself.
func (b *box) back(before string) {
	b.t.Helper()
	var took time.Duration
	counts := b.while(b.eight(), func() {
		begin := time.Now()
		b.does(nil, "rollback")
		took = time.Since(begin)
	})
	figure(b.t, "rollback by hand: %.1f s, link to attested %.2f s, %v", took.Seconds(), b.last().Requests.Swap, counts)
	b.nothingFailed("rollback", counts)
	b.servesVersion(before)
	if took > rollbackLimit {
		b.t.Errorf("the way back took %v, at most %v", took, rollbackLimit)
	}
	if s := b.status(); s.Held != sound.Version {
		b.t.Errorf("held is %q, want %s", s.Held, sound.Version)
	}
	var found struct{ Available *deployment.Offer }
	b.does(&found, "check")
	if found.Available == nil || !strings.HasPrefix(found.Available.Refused, "held") {
		b.t.Errorf("the version that was left is offered as %+v", found.Available)
	}
	b.refused(1, "held", "apply")
}
