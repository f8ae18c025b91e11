package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// Times between two looks at the sources that somebody may cause who may only
// read: at least the first, after failures growing up to the second.
const (
	checkEvery = time.Minute
	checkLater = 16 * time.Minute
)

// asking is the looks at the sources that readers caused. It goes by the time
// since its own attempts: neither the wall's clock nor what came of one can make
// readers start the fetcher again and again.
type asking struct {
	mu       sync.Mutex
	now      func() time.Time // nil = time.Now
	busy     bool             // somebody has them asked
	ended    time.Time        // the last attempt; zero before the first
	failures int              // in a row
	failed   error            // why the last attempt came to nothing, nil where it did not
	checked  time.Time        // what the status said of its last look then
}

// begin reports whether another attempt may be made. Whoever is told so calls end.
func (a *asking) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait := min(checkEvery<<min(a.failures, 8), checkLater)
	if a.busy || !a.ended.IsZero() && a.clock().Sub(a.ended) < wait {
		return false
	}
	a.busy = true
	return true
}

// end notes what the attempt came to, and what the status says now of its last
// look. That the updater is busy is no failure of the sources.
func (a *asking) end(err error, checked time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy, a.ended, a.failed, a.checked = false, a.clock(), err, checked
	switch {
	case err == nil:
		a.failures = 0
	case fault.KindOf(err) != fault.Busy:
		a.failures++
	}
}

// failure is why the last attempt came to nothing, nil where another look has
// been made since.
func (a *asking) failure(checked time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.checked.Equal(checked) {
		return nil
	}
	return a.failed
}

func (a *asking) clock() time.Time {
	if a.now == nil {
		return time.Now()
	}
	return a.now()
}

// checkedLately is the status after a look at the sources that is not too old:
// reading may cause another look now and then, not at will. That one cannot be
// had is an outage. Where the updater has shown nothing yet, asking it is what
// makes it.
func (s *Server) checkedLately(ctx context.Context) (deployment.Status, error) {
	st, err := s.updateStatus()
	if err != nil && !silent(err) {
		return st, err
	}
	age := time.Since(st.Checked)
	if err == nil && age >= 0 && age < checkEvery && st.CheckError == nil || !s.asking.begin() {
		return s.knownOf(st, err)
	}
	version, asked := s.checkNow(ctx)
	st, err = s.updateStatus()
	s.asking.end(asked, st.Checked)
	if asked != nil || err != nil {
		return s.knownOf(st, err)
	}
	st.Available = offered(st, version)
	return st, nil
}

// knownOf is what a status tells without another look; unread is why there is
// none. Where the last look failed, or there was none, that is said.
func (s *Server) knownOf(st deployment.Status, unread error) (deployment.Status, error) {
	failed := s.asking.failure(st.Checked)
	busy := fault.KindOf(failed) == fault.Busy
	switch p := st.CheckError; {
	case failed != nil && !busy:
		return st, outageOf(failed)
	case unread != nil:
		return st, unread
	case p != nil:
		return st, fault.New(fault.Unavailable, p.Code, "%s", p.Message).Try("%s", p.Hint)
	case !st.Checked.IsZero():
		return st, nil
	case busy: // it is at work, and nothing was known before
		return st, outageOf(failed)
	}
	return st, fault.New(fault.Unavailable, "not_checked", "the sources have not been asked yet").
		Try("ask again in a minute; POST /api/v1/updates/check asks them now")
}

// silent tells that the updater has shown nothing since the machine started.
func silent(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Code == "no_status"
}

// statusNow is updateStatus, from the updater itself where it has shown nothing yet.
func (s *Server) statusNow(ctx context.Context) (st deployment.Status, err error) {
	if st, err = s.updateStatus(); !silent(err) {
		return st, err
	}
	err = s.ask(ctx, orderLimit, func(ctx context.Context, u Updates) error {
		st, err = u.Now(ctx)
		return err
	})
	return st, err
}
