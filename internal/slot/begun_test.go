package slot

import (
	"errors"
	"testing"

	"whisper-appliance/internal/fault"
)

// TestNeverBegun: a candidate whose unit was never begun, for something that it
// needs has failed, cannot answer for that; one that was begun and failed can.
func TestNeverBegun(t *testing.T) {
	for begun, want := range map[bool]bool{false: true, true: false} {
		m, s := newMachine(t)
		m.fail["start next-b"] = fault.New(fault.Unavailable, "job_failed", "a unit that it needs failed").Try("x")
		if !begun {
			m.after["start next-b"] = func() { m.units["next-b"] = State{Active: "inactive"} }
		}
		_, err := s.To(t.Context(), B)
		never := false
		for e := err; e != nil; e = errors.Unwrap(e) {
			f, is := e.(*fault.Error) //nolint:errorlint // each is looked at
			never = never || is && f.Code == NeverBegun
		}
		if err == nil || never != want {
			t.Errorf("begun %v: %v", begun, err)
		}
	}
}
