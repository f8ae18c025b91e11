package server

import (
	"slices"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/fault"
)

// The components that matter here, by the names of their declarations. One
// that the registry does not have is taken to be well.
const (
	partModels      = "models"
	partUpdater     = "updater"
	partMaintenance = "maintenance"
)

// always is what every recording needs beside a model, which its request may
// name.
func always() []string { return []string{"engine", "spool"} }

// decoders are what most recordings need; some are sound already.
func decoders() []string { return []string{"decoder"} }

// essential is what keeps recordings from being transcribed.
func essential() []string { return append(append(always(), decoders()...), partModels) }

// failing are those of the named components that are not well, all where none
// is named.
func (s *Server) failing(names ...string) []component.State {
	if s.Components == nil {
		return nil
	}
	var down []component.State
	for _, st := range s.Components.States() {
		well := st.Status == component.OK || st.Status == component.Unavailable
		if !well && (len(names) == 0 || slices.Contains(names, st.Name)) {
			down = append(down, st)
		}
	}
	return down
}

// unreadBody is a refusal that leaves the request's body unread.
type unreadBody struct{ error }

func (u unreadBody) Unwrap() error { return u.error }

// needs refuses, before its body is read, what cannot be done while one of the
// named components fails.
func (s *Server) needs(names ...string) error {
	if f := s.outage(names...); f != nil {
		return unreadBody{f}
	}
	return nil
}

// blamed is the error of a recording that could not be decoded, in the
// decoder's words where that is known to fail and the recording is not to blame.
func (s *Server) blamed(err error) error {
	if kind := fault.KindOf(err); kind != fault.Internal && kind != fault.Unavailable {
		return err
	}
	if f := s.outage(decoders()...); f != nil {
		return f.Because(err)
	}
	return err
}

// outage is the first of the named components that fails, in its own words, nil
// where none does. It asks for that one to be looked at again.
func (s *Server) outage(names ...string) *fault.Error {
	down := s.failing(names...)
	if len(down) == 0 {
		return nil
	}
	first := down[0]
	s.Components.Recheck(first.Name)
	hint := first.Hint
	if hint == "" {
		hint = "/health/detailed says more"
	}
	return fault.New(fault.Unavailable, first.Code, "%s is not available: %s", first.Name, first.Error).Try("%s", hint)
}

// why is what is wrong with the named components, a reason each.
func why(states []component.State) []string {
	var reasons []string
	for _, st := range states {
		reasons = append(reasons, st.Name+": "+st.Error)
	}
	return reasons
}

// overall is the status of health. Reasons are what keeps a recording from
// being transcribed; what else degrades is in the second result.
func (s *Server) overall(reasons []string) (status component.Health, also []string) {
	if s.Components != nil {
		rest := slices.DeleteFunc(s.failing(), func(st component.State) bool {
			return slices.Contains(essential(), st.Name) || st.Code == component.CodeNeeds // reasons have them, or their cause
		})
		also = why(rest)
		status = s.Components.Health()
	}
	if v := s.versions(); !v.Agree {
		also = append(also, "the engine is of another build: "+v.Engine)
	}
	switch {
	case status == component.Broken:
	case len(reasons) > 0 || len(also) > 0:
		status = component.Degraded
	default:
		status = component.Well
	}
	return status, also
}
