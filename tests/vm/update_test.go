//go:build e2e

package vm

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
)

const (
	records = "/var/lib/whisper-appliance-updater/deployments.jsonl"
	apply   = "whisper-appliance update apply"
	back    = "whisper-appliance update rollback"
)

// status is what the updater says of itself: it must be readable at any time.
func (b *box) status() deployment.Status {
	b.t.Helper()
	var s deployment.Status
	if err := json.Unmarshal([]byte(b.must(`whisper-appliance update status --json`)), &s); err != nil {
		b.t.Fatalf("the status cannot be read: %v", err)
	}
	return s
}

// record is what was written of the newest attempt, which has to be readable
// line by line.
func (b *box) record() (last deployment.Record, lines int) {
	b.t.Helper()
	text := b.must(`cat "$1" 2>/dev/null || true`, records)
	for line := range strings.Lines(text) {
		last = deployment.Record{}
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			b.t.Errorf("the record has a line that cannot be read: %v: %q", err, line)
		}
		lines++
	}
	return last, lines
}

// idle brings the machine to where a version is committed and nothing goes on:
// a trial that a cut has led to is taken back, and its release let in again.
func (b *box) idle(version string) {
	b.t.Helper()
	if b.status().State == deployment.Trial {
		b.must(back)
	}
	if s := b.status(); s.State == deployment.Trial || s.Current.Version != version {
		b.t.Fatalf("%s serves and the state is %s, want %s idle", s.Current.Version, s.State, version)
	}
	b.must(`whisper-appliance update unpin; whisper-appliance update quarantine clear`)
}

// onTrial brings the machine to where the release of the repository is on trial.
func (b *box) onTrial() {
	b.t.Helper()
	if b.status().State != deployment.Trial {
		b.must(apply)
	}
	if s := b.status(); s.State != deployment.Trial || s.Current.Version != signed+devMark {
		b.t.Fatalf("%s serves and the state is %s, want %s on trial", s.Current.Version, s.State, signed+devMark)
	}
}

// TestPlugInUpdate pulls the plug in each phase of an update. The machine boots
// and serves, before anybody looks, the version that the design says; state and
// record can be read, and what was cut off stands in the record.
func TestPlugInUpdate(t *testing.T) {
	b := installed(t)
	before, after := b.version(), signed+devMark
	if s := b.status(); s.State == deployment.Trial {
		b.must(`whisper-appliance update commit`)
	}
	idle, trial := func() { b.idle(before) }, func() { b.onTrial() }
	old, either, fresh := []string{before}, []string{before, after}, []string{after}
	for _, c := range []struct {
		phase    string
		from     func()
		file     string // whose content says when; "" = the status, in that phase
		pattern  string
		wait     time.Duration // from then to the cut
		script   string
		versions []string // that may serve
	}{
		{phase: "stage", from: idle, wait: time.Second, script: apply, versions: old},
		{phase: "publish", from: idle, wait: 500 * time.Millisecond, script: apply, versions: old},
		{phase: "preflight", from: idle, wait: 3 * time.Second, script: apply, versions: old},
		{phase: "arm", from: idle, script: apply, versions: either},
		{phase: "overlap", from: idle, wait: time.Second, script: apply, versions: old},
		{phase: "switch", from: idle, script: apply, versions: either},
		{phase: "rollback", from: trial, script: back, versions: old},
		{phase: "take_over", from: idle, wait: time.Second, script: apply, versions: fresh},
		{phase: "trial", from: trial, wait: 5 * time.Second, script: "sleep 60", versions: fresh},
		{phase: "commit", from: trial, file: home + "/stable/VERSION", pattern: `^` + signed, script: `whisper-appliance update commit`, versions: fresh},
		{phase: "clean", from: func() {}, file: records, pattern: `"kind":"switch"[^\n]*"outcome":"(committed|kept)"`, script: `whisper-appliance update switch "$1"`, versions: old},
	} {
		ok := t.Run(c.phase, func(t *testing.T) {
			b := &box{b.Machine, t}
			t.Cleanup(b.lastWords)
			c.from()
			_, lines := b.record()
			if c.file == "" {
				c.file, c.pattern = statusFile, inPhase(c.phase)
			}
			slot := b.must(`basename "$(readlink "$1/current")"`, home)
			other := map[string]string{"a": "b", "b": "a"}[slot]
			b.cutDuring(c.phase, c.file, c.pattern, c.wait, c.script, other)
			version := b.bootsAndServes(c.phase, c.versions...)
			b.settledAfter(c.phase, version, before, lines)
		})
		if !ok && t.Context().Err() != nil {
			return
		}
	}
	for _, slot := range []string{"a", "b"} {
		b.must(`whisper-appliance verify "$1"`, slot)
	}
	b.must(`whisper-appliance update history`)
}

// settledAfter looks at what state and record say after a cut.
func (b *box) settledAfter(phase, version, before string, lines int) {
	b.t.Helper()
	s := b.status()
	last, now := b.record()
	figure(b.t, "state %s; the record says %s %s %s, interrupted %d", s.State, last.Kind, last.Outcome, last.Reason, last.Interrupted)
	if s.Current.Version != version {
		b.t.Errorf("the status says that %s serves", s.Current.Version)
	}
	if s.Alarm != nil {
		b.t.Errorf("there is an alarm: %+v", *s.Alarm)
	}
	switch {
	case s.State == deployment.Trial:
		if now != lines || s.Trial == nil || s.Trial.TriesLeft < 1 {
			b.t.Errorf("on trial, %d records more: %+v", now-lines, s.Trial)
		}
	case s.State == deployment.Idle:
		if now != lines+1 {
			b.t.Errorf("%d records after the cut, %d before it", now, lines)
		}
		if version == before && phase != "rollback" && phase != "clean" && (last.Outcome != deployment.Aborted && last.Outcome != deployment.RolledBack || last.Interrupted == 0) {
			b.t.Errorf("the record says %s, interrupted %d times", last.Outcome, last.Interrupted)
		}
	default:
		b.t.Errorf("the state is %s: %s", s.State, s.Message)
	}
	if left := b.must(`ls -A "$1/.staging" 2>/dev/null || true`, home); left != "" {
		b.t.Errorf("left in staging: %s", left)
	}
}
