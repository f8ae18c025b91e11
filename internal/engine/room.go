package engine

import "fmt"

// spareMargin stays free beside a second state: beams, candidates and the
// window itself need some.
const spareMargin = 32 << 20

// ready has a state for the lane to decode in; the caller is on the lane's thread.
func (s *Server) ready(l *lane) error {
	if l.state != nil {
		return nil
	}
	if err := s.makeRoom(l); err != nil {
		return err
	}
	state, err := s.model.NewState()
	if err != nil {
		return err
	}
	l.state = state
	l.held.Store(true)
	s.stateBytes.Store(state.Bytes())
	return nil
}

// makeRoom sees to it that there is memory for a state of the lane beside one
// that the other has. Where there is none the short lane goes without, and what
// it has goes when the long one, which takes every window, needs it. The error
// is a *Failure.
func (s *Server) makeRoom(l *lane) error {
	one := s.stateBytes.Load() // known since the first was made
	if s.Spare == nil || one == 0 || !s.lanes.long.held.Load() && !s.lanes.short.held.Load() {
		return nil
	}
	free, known := s.Spare()
	if !known || free >= one+spareMargin {
		return nil
	}
	if l == s.lanes.short {
		return &Failure{CodeNoMemory, fmt.Sprintf("a second working state of the model takes %d MiB and %d MiB of memory are free", (one+spareMargin)>>20, free>>20)}
	}
	s.dropShort()
	return nil
}

// dropShort drops the short lane's state, if nobody uses it.
func (s *Server) dropShort() {
	if t, ok := s.gate.try(LaneShort, never); ok {
		s.lanes.short.drop()
		t.leave()
		s.Log.Info("the short lane's state was dropped")
	}
}
