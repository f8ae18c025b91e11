package server

import (
	"context"
	"errors"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// refuseLimit is how long an updater that runs may take to refuse a restart.
const refuseLimit = 3 * time.Second

// restarting is what is said once it has not.
const restarting = "the updater restarts the server, and verifies that the new process is the release that should run; " +
	"GET /api/v1/updates/last-restart tells how it ended"

func (s *Server) restartServer(ctx context.Context, _ *struct{}) (*body[UpdateBegun], error) {
	if err := s.restart(ctx); err != nil {
		return nil, err
	}
	return answerWith(UpdateBegun{Message: restarting}), nil
}

// restart has the updater restart this server. Its answer comes when the new
// one is attested, for which this one has to be gone, with this request: so it
// is waited for only as long as a refusal takes. An updater that does not run
// takes longer to start than that: it is asked how it is first.
func (s *Server) restart(ctx context.Context) error {
	err := s.ask(ctx, orderLimit, func(ctx context.Context, u Updates) error {
		st, err := u.Now(ctx)
		busy := st.State == deployment.Updating && st.Phase != deployment.Plan && st.Phase != deployment.Fetch // a source may take hours
		if err == nil && (busy || st.State == deployment.RollingBack) {
			err = fault.New(fault.Busy, "updater_busy", "the updater is at work: %s", st.Message).
				Try("wait until that has ended: GET /api/v1/updates shows it")
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.ask(ctx, refuseLimit, func(waiting context.Context, u Updates) error {
		_, err := u.Restart(waiting)
		if waiting.Err() != nil && ctx.Err() == nil {
			return nil
		}
		return err
	})
}

// LastRestart is how the last restart ended that was asked for.
type LastRestart deployment.Restart

func (s *Server) lastRestart(context.Context, *struct{}) (*body[LastRestart], error) {
	u, err := s.updater()
	if err != nil {
		return nil, err
	}
	r, err := u.LastRestart()
	var f *fault.Error
	if errors.As(err, &f) && f.Code == "no_restart" {
		return nil, err
	}
	if err != nil {
		return nil, unread(err)
	}
	return answerWith(LastRestart(r)), nil
}
