package main

import (
	"context"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/update"
	"whisper-appliance/internal/updaterd"
)

// serverUser is who the server runs as.
const serverUser = "whisper-appliance"

func serverUID() (uint32, bool) {
	u, err := user.Lookup(serverUser)
	if err != nil {
		return 0, false
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(id), err == nil
}

// handler is the daemon as D-Bus asks it.
type handler struct{ d *daemon }

func door(c updaterd.Caller) deployment.Door {
	if c.Server {
		return deployment.DoorHTTP
	}
	return deployment.DoorDBus
}

func (h handler) Check(ctx context.Context, _ updaterd.Caller) (string, error) {
	offer, err := h.d.u.Check(ctx)
	if err != nil || offer == nil {
		return "", err
	}
	return offer.Version, nil
}

func (h handler) Download(ctx context.Context, _ updaterd.Caller, version string) error {
	_, err := h.start(ctx, "a download", downloading, func(ctx context.Context, _ func(string)) (string, error) {
		_, err := h.d.u.Download(ctx, version)
		return "", err
	})
	return err
}

// Apply takes from the server's user only what has been offered already.
func (h handler) Apply(ctx context.Context, c updaterd.Caller, version string) (string, error) {
	if c.Server {
		s, err := h.d.u.Status()
		if err != nil {
			return "", err
		}
		if s.Available == nil || version != "" && version != s.Available.Version {
			return "", fault.New(fault.Forbidden, "not_offered", "version %s has not been offered to this appliance", fault.Short(version)).
				On("version").Try("check for updates first; root can install others: `whisper-appliance update apply VERSION`")
		}
	}
	return h.install(ctx, "an update", update.Want{Door: door(c), Version: version, Trial: true})
}

func (h handler) InstallFile(ctx context.Context, c updaterd.Caller, path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fault.New(fault.BadInput, "relative_path", "%q is no full path", fault.Short(path)).On("path").Try("name the file from the root of the file system on")
	}
	return h.install(ctx, "an installation", update.Want{Door: door(c), Bundle: path, Trial: true})
}

func (h handler) install(ctx context.Context, what string, w update.Want) (string, error) {
	return h.start(ctx, what, downloading, func(ctx context.Context, begun func(string)) (string, error) {
		w.Begun = begun
		res, err := h.d.u.Apply(ctx, w)
		return res.Transaction, err
	})
}

func (h handler) Rollback(ctx context.Context, c updaterd.Caller) (string, error) {
	return h.start(ctx, "a rollback", goingBack, func(ctx context.Context, _ func(string)) (string, error) {
		res, err := h.d.u.Rollback(ctx, door(c))
		return res.Transaction, err
	})
}

// downloading tells that a release is on its way without a transaction: it is
// kept for later, or for the end of the trial.
func downloading(s deployment.Status) (string, bool) {
	return "", s.State == deployment.Downloading || s.State == deployment.Trial && s.Phase == deployment.Fetch
}

// goingBack tells that the way back has begun, from a trial or from what was
// committed.
func goingBack(s deployment.Status) (transaction string, yes bool) {
	return s.Transaction, s.Transaction != "" && (s.State == deployment.RollingBack || s.State == deployment.Updating)
}

// start begins work and waits until it says that it has begun, or looks like it,
// or is over. It gives the transaction, "" where there is none.
func (h handler) start(ctx context.Context, what string, like func(deployment.Status) (string, bool),
	work func(ctx context.Context, begun func(transaction string)) (string, error)) (string, error) {
	type end struct {
		transaction string
		err         error
	}
	begun, over := make(chan string, 1), make(chan end, 1)
	err := h.d.begin(what, func(ctx context.Context) error {
		transaction, err := work(ctx, func(transaction string) { begun <- transaction })
		over <- end{transaction, err}
		return err
	})
	if err != nil {
		return "", err
	}
	tick := time.NewTicker(glance / 5)
	defer tick.Stop()
	for {
		select {
		case transaction := <-begun:
			return transaction, nil
		case e := <-over:
			return e.transaction, e.err
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-tick.C:
		}
		if s, err := deployment.ReadStatus(h.d.u.Run); err == nil && s.PID == os.Getpid() && len(over) == 0 && len(begun) == 0 {
			if transaction, yes := like(s); yes {
				return transaction, nil
			}
		}
	}
}

func (h handler) Commit(ctx context.Context, _ updaterd.Caller) error {
	_, err := h.d.u.Commit(ctx)
	return err
}

func (h handler) Cancel(ctx context.Context, c updaterd.Caller) error {
	_, err := h.d.u.Cancel(ctx, door(c))
	return err
}

func (h handler) Restart(ctx context.Context, _ updaterd.Caller) (string, error) {
	return h.d.u.Restart(ctx)
}

func (h handler) Pin(_ context.Context, _ updaterd.Caller, version string) error {
	_, err := h.d.u.Pin(version)
	return err
}

func (h handler) Unpin(context.Context, updaterd.Caller) error { return h.d.u.Unpin() }

func (h handler) Unquarantine(_ context.Context, _ updaterd.Caller, what string) error {
	_, err := h.d.u.Unquarantine(what)
	return err
}

func (h handler) SetPolicy(_ context.Context, _ updaterd.Caller, change deployment.PolicyChange) error {
	return h.d.u.SetPolicy(change)
}
