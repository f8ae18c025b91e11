package slot

import "context"

// Serves tells whether the server runs what lies in the slot name, or would once
// somebody asks it: what crashes again and again does not. It waits s.Settle for
// one that is about to come up. Where systemd does not say, it does.
func (s *Switch) Serves(ctx context.Context, name string) bool {
	m, err := Read(s.Slots.Path(name))
	if err != nil {
		return false
	}
	st, err := s.Units.State(ctx, s.Service)
	if err != nil || st.idle() {
		return true
	}
	return s.attest(ctx, s.Service, name, m, "", nil) == nil
}
