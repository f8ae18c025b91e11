package main

import (
	"cmp"
	"context"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
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
	_, err := h.start(ctx, download, downloading, func(ctx context.Context, _ func(string)) (string, error) {
		offer, err := h.d.u.Download(ctx, version)
		if err == nil && offer == nil {
			err = nothingOffered("nothing newer is on offer")
		}
		return "", err
	})
	return err
}

// Apply takes from the server's user only what has been offered already.
func (h handler) Apply(ctx context.Context, c updaterd.Caller, version string) (string, error) {
	version = strings.TrimPrefix(version, "v")
	if c.Server {
		s, err := h.d.u.Status()
		if err != nil {
			return "", err
		}
		if err := offered(s, version); err != nil {
			return "", err
		}
	}
	return h.install(ctx, updating, update.Want{Door: door(c), Version: version, Trial: true})
}

// offered refuses what is not on offer; "" is whatever is.
func offered(s deployment.Status, version string) error {
	switch {
	case s.Available == nil:
		return nothingOffered("nothing newer is on offer")
	case version != "" && version != s.Available.Version:
		return fault.New(fault.Forbidden, "not_offered", "version %s has not been offered to this appliance, which is offered %s", fault.Short(version), s.Available.Version).
			On("version").Try("check for updates first; root can install others: `whisper-appliance update apply VERSION`")
	}
	return nil
}

func nothingOffered(format string, args ...any) error {
	return fault.New(fault.Conflict, "nothing_offered", format, args...).Try("check for updates first: what was found last may be old")
}

func (h handler) InstallFile(ctx context.Context, c updaterd.Caller, path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fault.New(fault.BadInput, "relative_path", "%q is no full path", fault.Short(path)).On("path").Try("name the file from the root of the file system on")
	}
	return h.install(ctx, installation, update.Want{Door: door(c), Bundle: path, Trial: true})
}

// install begins to install what w says. That there is nothing to be done is an
// error: there is no transaction then.
func (h handler) install(ctx context.Context, what string, w update.Want) (string, error) {
	return h.start(ctx, what, begunLate(time.Now().Add(patient)), func(ctx context.Context, begun func(string)) (string, error) {
		w.Begun = begun
		res, err := h.d.u.Apply(ctx, w)
		if err == nil && res.Outcome == update.Already {
			return "", nothingOffered("nothing newer is on offer: version %s serves", cmp.Or(res.To.Version, res.From.Version))
		}
		return res.Transaction, err
	})
}

func (h handler) Rollback(ctx context.Context, c updaterd.Caller) (string, error) {
	return h.start(ctx, wayBack, goingBack, func(ctx context.Context, _ func(string)) (string, error) {
		res, err := h.d.u.Rollback(ctx, door(c))
		return res.Transaction, err
	})
}

// downloading tells that a release is on its way without a transaction: it is
// kept for later, or for the end of the trial.
func downloading(s deployment.Status) (string, bool) {
	return "", s.State == deployment.Downloading || s.State == deployment.Trial && s.Phase == deployment.Fetch
}

// patient is how long whoever asks for an update waits while it is looked for,
// less than callers give to a question: sources may be slow to answer.
const patient = 20 * time.Second

// begunLate is downloading, and from a time on also a transaction that is still
// looking for its release.
func begunLate(from time.Time) func(deployment.Status) (transaction string, yes bool) {
	return func(s deployment.Status) (string, bool) {
		if transaction, yes := downloading(s); yes {
			return transaction, yes
		}
		return s.Transaction, s.Transaction != "" && s.State == deployment.Updating && !time.Now().Before(from)
	}
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

// Cancel returns, like Rollback, once a way back from a trial has begun: the
// server that asked for it is stopped by it, and would wait for itself.
func (h handler) Cancel(ctx context.Context, c updaterd.Caller) error {
	if trial, err := h.d.u.Trial(); err != nil || !trial || h.d.working() {
		_, err := h.d.u.Cancel(ctx, door(c))
		return err
	}
	_, err := h.start(ctx, "a cancellation", goingBack, func(ctx context.Context, _ func(string)) (string, error) {
		res, err := h.d.u.Cancel(ctx, door(c))
		return res.Transaction, err
	})
	return err
}

func (h handler) Restart(ctx context.Context, _ updaterd.Caller) (string, error) {
	return restart(ctx, h.d.u, h.d.log)
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

func (h handler) SetPolicy(_ context.Context, c updaterd.Caller, change deployment.PolicyChange) error {
	return h.d.u.SetPolicy(door(c), change)
}
