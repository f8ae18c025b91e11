package update

import (
	"context"
	"errors"

	"whisper-appliance/internal/deployment"
)

// Auto does by itself what the policy says: nothing, a download, or an
// installation in the window. It gives what became of it. Whatever the policy, it
// settles first what was left, and sees that a trial is watched.
func (u *Updater) Auto(ctx context.Context) (Result, error) {
	if err := u.attend(ctx); err != nil {
		return Result{}, err
	}
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

// attend settles what was left, and sees that somebody watches what came of it.
func (u *Updater) attend(ctx context.Context) error {
	watch, err := u.Recover(ctx, false)
	if watch {
		err = errors.Join(err, u.watched(ctx))
	}
	return err
}
