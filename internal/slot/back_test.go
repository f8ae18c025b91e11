package slot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"whisper-appliance/internal/fault"
)

// onTrialOf is a machine whose server runs 9.1.0 from b, with a to go back to.
func onTrialOf(t *testing.T) (*machine, *Switch) {
	m, s := newMachine(t)
	must(t, s.Slots.Activate(B))
	m.launch(server)
	m.did = nil
	return m, s
}

// TestBack: a trial that ended badly, from wherever an earlier run was cut off.
func TestBack(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(m *machine, s *Switch)
		to    string
		fails bool
		runs  string
	}{
		{"all of it", func(*machine, *Switch) {}, A, false, A},
		{"the link is back", func(m *machine, s *Switch) { must(t, s.Slots.Activate(A)) }, A, false, A},
		{"the server, too", func(m *machine, s *Switch) { must(t, s.Slots.Activate(A)); m.launch(server) }, A, false, A},
		{"the link is gone", func(m *machine, s *Switch) { must(t, os.Remove(s.Slots.Current)) }, A, false, A},
		{"a candidate is left", func(m *machine, _ *Switch) { m.launch("next-b") }, A, false, A},
		{"the slot before is damaged", func(m *machine, s *Switch) { write(t, filepath.Join(s.Slots.Path(A), ServerPath), "x", 0o755) }, Golden, false, "golden"},
		{"it does not come up", func(m *machine, _ *Switch) { m.broken[server+" of a"] = true }, Golden, false, "golden"},
		{"it is refused", func(_ *machine, s *Switch) {
			s.Refused = func(m Manifest) error {
				if m.Version == "9.1.0+dev" {
					return errors.New("quarantined")
				}
				return nil
			}
		}, A, false, A},
		{"all others are refused", func(_ *machine, s *Switch) {
			s.Refused = func(Manifest) error { return errors.New("quarantined") }
		}, A, false, A},
		{"all that come up are refused", func(m *machine, s *Switch) {
			m.broken[server+" of a"] = true
			must(t, os.RemoveAll(s.Slots.Golden))
			release(t, s.Slots.Golden, "8.9.0+dev")
			s.Refused = func(m Manifest) error {
				if m.Version == "8.9.0+dev" {
					return errors.New("quarantined")
				}
				return nil
			}
		}, Golden, false, "golden"},
		{"nothing comes up", func(m *machine, _ *Switch) { m.broken[server] = true }, A, true, "activating"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, s := onTrialOf(t)
			tt.spoil(m, s)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nobody stops a way back
			out, err := s.Back(ctx, B, A)
			if (err != nil) != tt.fails || out.To != tt.to || out.From != B {
				t.Errorf("%+v, %v", out, err)
			}
			if current, _ := serving(t, s.Slots); current != tt.to || m.runs() != tt.runs {
				t.Errorf("current %s, runs %s", current, m.runs())
			}
			if next := m.units["next-b"].Active; next == "active" {
				t.Error("the candidate still runs")
			}
		})
	}
}

// TestLinkBack moves the link, and nothing else.
func TestLinkBack(t *testing.T) {
	m, s := onTrialOf(t)
	to, err := s.Slots.LinkBack(t.Context(), B, A, nil)
	if err != nil || to != A || m.runs() != B || len(m.did) > 0 {
		t.Errorf("%s, %v, runs %s, did %v", to, err, m.runs(), m.did)
	}
	must(t, os.RemoveAll(s.Slots.Path(A)))
	if to, err = s.Slots.LinkBack(t.Context(), B, A, nil); err != nil || to != Golden {
		t.Errorf("%s, %v", to, err)
	}
	s.Slots.GoldenBefore = filepath.Join(filepath.Dir(s.Slots.Golden), "golden.old")
	release(t, s.Slots.GoldenBefore, "8.9.0+dev")
	must(t, os.RemoveAll(s.Slots.Golden))
	if to, err = s.Slots.LinkBack(t.Context(), B, A, nil); err != nil || to != Golden {
		t.Errorf("%s, %v", to, err)
	}
	sound(t, s.Slots, Golden, "8.9.0+dev")
	must(t, s.Slots.Activate(B))
	// What is refused is better than nothing.
	to, err = s.Slots.LinkBack(t.Context(), B, A, func(Manifest) error { return errors.New("quarantined") })
	if current, _ := serving(t, s.Slots); err != nil || to != Golden || current != Golden {
		t.Errorf("%s, %v, current %s", to, err, current)
	}
	must(t, s.Slots.Activate(B))
	must(t, os.RemoveAll(s.Slots.GoldenBefore))
	_, err = s.Slots.LinkBack(t.Context(), B, A, nil)
	wantCode(t, err, "no_way_back")
	if current, _ := serving(t, s.Slots); current != B {
		t.Errorf("current %s", current)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Slots.LinkBack(ctx, B, A, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestDrop empties what no link names.
func TestDrop(t *testing.T) {
	s := twoSlots(t)
	wantCode(t, s.Drop(A), "slot_in_use")
	must(t, s.Drop(B))
	must(t, s.Drop(B))
	if _, err := os.Stat(s.Path(B)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	nothingLeft(t, s)
}

// TestAgain: another process runs the same, or somebody is told.
func TestAgain(t *testing.T) {
	m, s := newMachine(t)
	before := m.units[server].Invocation
	now, err := s.Again(t.Context())
	if err != nil || now == "" || now == before || m.runs() != A {
		t.Errorf("%q after %q, %v", now, before, err)
	}
	was := m.units[server]
	m.after["restart "+server] = func() { m.units[server] = was }
	_, err = s.Again(t.Context())
	wantCode(t, err, "not_restarted")
}

// TestBackWithoutSystemd: once it does not answer the link stays with the way
// back, and nothing else is tried.
func TestBackWithoutSystemd(t *testing.T) {
	away := fault.New(fault.Unavailable, "no_systemd", "systemd does not answer").Try("x")
	for _, cold := range []bool{true, false} {
		m, s := newMachine(t)
		verb := "restart "
		if cold {
			verb = "start "
			m.units[server] = State{Active: "inactive"}
		}
		m.after[verb+server] = func() { m.fail["state "+server] = away }
		m.fail["restart "+server] = nil
		_, err := s.To(t.Context(), B)
		wantCode(t, err, SystemdAway)
		if current, _ := serving(t, s.Slots); current != A {
			t.Errorf("current %s", current)
		}
		delete(m.fail, "state "+server)
		if out, err := s.Back(t.Context(), B, A); err != nil || out.To != A || m.runs() != A {
			t.Errorf("%+v, %v, runs %s", out, err, m.runs())
		}
	}
}
