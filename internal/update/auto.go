package update

import (
	"context"

	"whisper-appliance/internal/deployment"
)

// Auto does by itself what the policy says: nothing, a download, or an
// installation in the window. It gives what became of it.
func (u *Updater) Auto(ctx context.Context) (Result, error) {
	set, err := u.Settings()
	if err != nil {
		return Result{}, err
	}
	if set.Automatic == "off" || len(set.sources()) == 0 {
		return Result{Outcome: Already}, nil
	}
	offer, err := u.Check(ctx)
	if err != nil {
		return Result{}, err
	}
	if offer == nil || offer.Refused != "" {
		return Result{Outcome: Already}, nil
	}
	if !offer.Fetched {
		if _, err := u.Download(ctx, offer.Version); err != nil {
			return Result{}, err
		}
	}
	busy, err := u.Trial()
	if err != nil {
		return Result{}, err
	}
	if set.Automatic != "install" || busy || !set.inWindow(u.Now()) {
		return Result{Outcome: Already, To: deployment.Release{Version: offer.Version}}, nil
	}
	return u.Apply(ctx, Want{Door: deployment.DoorTimer, Version: offer.Version, Trial: true, Auto: true})
}
