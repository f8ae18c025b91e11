package systemd

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/fault"
)

// jobLimit bounds the wait for a job where the caller set no deadline: longer
// than any of our units may take to start or stop.
const jobLimit = 5 * time.Minute

// Start starts units together and waits until all are as they should be. The
// error joins a fault for each that is not: "job_failed", "job_canceled" where
// somebody else's job took its place, "no_unit", "unit_masked", "not_allowed",
// "job_unfinished", or "no_systemd", also where it goes away meanwhile.
func (b *Bus) Start(ctx context.Context, units ...string) error {
	return b.work(ctx, "start", "StartUnit", units)
}

// Stop is like Start.
func (b *Bus) Stop(ctx context.Context, units ...string) error {
	return b.work(ctx, "stop", "StopUnit", units)
}

// Restart is like Start; a unit that does not run is started.
func (b *Bus) Restart(ctx context.Context, units ...string) error {
	return b.work(ctx, "restart", "RestartUnit", units)
}

// Reload is like Start: each unit reads its settings again.
func (b *Bus) Reload(ctx context.Context, units ...string) error {
	return b.work(ctx, "reload", "ReloadUnit", units)
}

// ResetFailed forgets that units failed, and how often they were restarted.
func (b *Bus) ResetFailed(ctx context.Context, units ...string) error {
	var errs []error
	for _, unit := range units {
		if err := b.askManager(ctx, "ResetFailedUnit", []any{unit}); err != nil {
			errs = append(errs, refused("reset", unit, err))
		}
	}
	return errors.Join(errs...)
}

// DaemonReload makes systemd read its unit files again.
func (b *Bus) DaemonReload(ctx context.Context) error {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, jobLimit)
		defer cancel()
	}
	if err := b.askManager(ctx, "Reload", nil); err != nil {
		return refused("reload the units of", "the service manager", err)
	}
	return nil
}

// work queues a job for each unit and waits for all of them. It has a
// connection of its own, so that no signal waits behind somebody else's, and
// listens before it asks: a short job is over before the answer to the call.
func (b *Bus) work(ctx context.Context, verb, method string, units []string) error {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, jobLimit)
		defer cancel()
	}
	conn, signals, err := b.listen(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing more is asked of it
	var errs []error
	jobs := map[dbus.ObjectPath]string{} // the unit of each
	for _, unit := range units {
		var job dbus.ObjectPath
		manager := conn.Object(managerName, managerPath)
		if err := manager.CallWithContext(ctx, managerInterface+"."+method, 0, unit, "replace").Store(&job); err != nil {
			errs = append(errs, refused(verb, unit, err))
			continue
		}
		jobs[job] = unit
	}
	return errors.Join(append(errs, await(ctx, verb, jobs, signals)...)...)
}

// listen opens a connection of its own, on which the manager's signals come.
func (b *Bus) listen(ctx context.Context) (*dbus.Conn, <-chan *dbus.Signal, error) {
	conn, door, err := b.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	if err := subscribe(ctx, conn, door); err != nil {
		conn.Close() //nolint:errcheck // it was of no use
		return nil, nil, refused("listen to", "the service manager", err)
	}
	return conn, signals, nil
}

// subscribe asks for the manager's signals. Its private socket sends them
// anyway; there a refusal means nothing.
func subscribe(ctx context.Context, conn *dbus.Conn, d door) error {
	if d.bus {
		err := conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(managerInterface), dbus.WithMatchMember("JobRemoved"))
		if err != nil {
			return err
		}
	}
	call := conn.Object(managerName, managerPath).CallWithContext(ctx, managerInterface+".Subscribe", 0)
	if d.bus || ctx.Err() != nil {
		return call.Err
	}
	return nil
}

// await reads signals until every job is gone, and says which went badly.
func await(ctx context.Context, verb string, jobs map[dbus.ObjectPath]string, signals <-chan *dbus.Signal) (errs []error) {
	for len(jobs) > 0 {
		select {
		case s, open := <-signals:
			if !open {
				return append(errs, broken(verb, jobs)...)
			}
			job, result := removed(s)
			unit, ours := jobs[job]
			if !ours {
				continue
			}
			delete(jobs, job)
			if result != "done" {
				errs = append(errs, unhappy(verb, unit, result))
			}
		case <-ctx.Done():
			return append(errs, unfinished(verb, jobs, ctx.Err())...)
		}
	}
	return errs
}

// removed reads a JobRemoved signal: id, job, unit, result.
func removed(s *dbus.Signal) (job dbus.ObjectPath, result string) {
	if s.Name != managerInterface+".JobRemoved" {
		return "", ""
	}
	var id uint32
	var unit string
	if err := dbus.Store(s.Body, &id, &job, &unit, &result); err != nil {
		return "", ""
	}
	return job, result
}

func unfinished(verb string, jobs map[dbus.ObjectPath]string, err error) (errs []error) {
	for _, unit := range jobs {
		errs = append(errs, fault.New(fault.Unavailable, "job_unfinished", "%s %s: systemd was still at it", verb, unit).
			Because(err).Try("`systemctl list-jobs` and `journalctl -u %s -n 50` say where it is", unit))
	}
	return errs
}

// broken words jobs of which nobody tells any more how they end.
func broken(verb string, jobs map[dbus.ObjectPath]string) (errs []error) {
	for _, unit := range jobs {
		errs = append(errs, fault.New(fault.Unavailable, "no_systemd", "%s %s: the connection to systemd broke", verb, unit).
			Try("`systemctl is-system-running` says how systemd is, `systemctl status %s` how the unit is", unit))
	}
	return errs
}

// unhappy words a job's result; see the D-Bus interface of systemd for the list.
func unhappy(verb, unit, result string) error {
	meaning := map[string]string{
		"failed":     "it failed",
		"timeout":    "it took too long",
		"canceled":   "another job took its place",
		"dependency": "a unit that it needs failed",
		"skipped":    "it does not run",
		"invalid":    "it does not run",
		"assert":     "an assertion of the unit does not hold",
		"once":       "it may be started once only",
		"collected":  "the unit went away",
	}[result]
	if meaning == "" {
		meaning = "systemd says " + result
	}
	code := "job_failed"
	if result == "canceled" {
		code = "job_canceled"
	}
	return fault.New(fault.Unavailable, code, "%s %s: %s", verb, unit, meaning).
		Try("`systemctl status %s` and `journalctl -u %s -n 50` say why", unit, unit)
}

// refused words an error that systemd or the bus answered with.
func refused(verb, unit string, err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	var e dbus.Error
	if !errors.As(err, &e) {
		return fault.New(fault.Unavailable, "no_systemd", "%s %s: systemd did not answer", verb, unit).Because(err).
			Try("`systemctl is-system-running` says how systemd is")
	}
	name := e.Name[strings.LastIndex(e.Name, ".")+1:]
	switch name {
	case "NoSuchUnit", "LoadFailed":
		return fault.New(fault.NotFound, "no_unit", "%s %s: there is no such unit", verb, unit).Because(err).
			Try("`systemctl cat %s` shows what is there; `systemctl daemon-reload` after unit files were changed", unit)
	case "UnitMasked":
		return fault.New(fault.Conflict, "unit_masked", "%s %s: it is masked", verb, unit).Because(err).
			Try("`systemctl unmask %s`", unit)
	case "AccessDenied", "InteractiveAuthorizationRequired", "AuthFailed":
		return fault.New(fault.Forbidden, "not_allowed", "%s %s: systemd does not allow it to this user", verb, unit).Because(err).
			Try("do it as root")
	}
	return fault.New(fault.Unavailable, "job_failed", "%s %s: systemd refuses", verb, unit).Because(err).
		Try("`systemctl status %s` and `journalctl -u %s -n 50` say why", unit, unit)
}
