package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/update"
	"whisper-appliance/internal/updaterd"
)

func daemonCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "daemon", Short: "Answer on D-Bus and watch trials, as the updater's unit does", Args: cobra.NoArgs, Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.openFor(true, true)
			if err != nil {
				return err
			}
			return newDaemon(u, a.log, paths.MachineAt("").SystemBus, serverUID).run(c.Context())
		},
	}
}

// daemon is the updater while it is asked for, or a trial runs. It does one
// piece of work at a time. A trial is watched beside that: whoever may ask for
// work could else keep a bad release from its judge.
type daemon struct {
	u    *update.Updater
	log  *slog.Logger
	bus  *updaterd.Server
	stay time.Duration // without work, before it ends

	mu       sync.Mutex
	ending   bool
	busy     string                  // the work under way, "" for none
	stop     context.CancelCauseFunc // ends it
	over     chan struct{}           // closed when it has ended
	watching bool
	unwatch  context.CancelFunc // ends the watch
	patience time.Time          // a watch that failed does not begin again before
	work     sync.WaitGroup     // all of it
}

func newDaemon(u *update.Updater, log *slog.Logger, socket string, serverUID func() (uint32, bool)) *daemon {
	d := &daemon{u: u, log: log, stay: update.Stay}
	d.bus = &updaterd.Server{Socket: socket, Handler: handler{d}, Log: log, ServerUID: serverUID}
	return d
}

// run settles what was left, and is ready then. It ends by itself when nobody
// has asked for anything for a while and no trial runs.
func (d *daemon) run(ctx context.Context) error {
	if _, err := d.u.Recover(ctx, false); err != nil && fault.KindOf(err) != fault.Busy {
		d.log.Error("what an earlier run has left is not settled", logging.Err(err))
	}
	shown := d.show(time.Time{}) // before anybody can ask
	serving, end := context.WithCancel(ctx)
	defer end()
	served := make(chan struct{})
	go func() {
		defer close(served)
		d.bus.Run(serving)
	}()
	systemd.Notify("READY=1") //nolint:errcheck // nobody listens without systemd
	d.attend(ctx, shown)
	systemd.Notify("STOPPING=1") //nolint:errcheck // as above
	d.interrupt()
	end()
	<-served
	d.work.Wait()
	return d.leave(ctx)
}

// leave is an error where a trial came up while the daemon was ending by itself:
// whoever began it has found a daemon that ran. systemd starts another then.
func (d *daemon) leave(ctx context.Context) error {
	if trial, err := d.u.Trial(); err != nil || !trial || ctx.Err() != nil {
		return nil //nolint:nilerr // a state that cannot be read has no trial
	}
	return fault.New(fault.Unavailable, "nobody_watches", "a trial began while the updater was ending").Try("systemctl start %s", systemd.Updater)
}

// glances between two looks at whether there is anything left to stay for.
const glances = 4

// attend shows what goes on and begins what nobody has to ask for, until there
// is nothing left to stay for.
func (d *daemon) attend(ctx context.Context, shown time.Time) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for n := 0; ; n++ {
		shown = d.show(shown)
		if n%glances == 0 {
			systemd.Notify("WATCHDOG=1") //nolint:errcheck // nobody listens without systemd
			if d.mayEnd() {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// show tells the bus of a status that is newer than the one of that time, and
// gives its time.
func (d *daemon) show(shown time.Time) time.Time {
	s, err := deployment.ReadStatus(d.u.Run)
	if err != nil || s.Updated.Equal(shown) {
		return shown
	}
	d.bus.Publish(s)
	systemd.NotifyStatus(s.Message) //nolint:errcheck // nobody listens without systemd
	return s.Updated
}

// mayEnd begins to watch a trial that runs, and tells whether there is nothing
// to be done. From then on no work begins.
func (d *daemon) mayEnd() bool {
	if trial, err := d.u.Trial(); err == nil && trial {
		d.watch()
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ending = d.busy == "" && !d.watching && d.bus.Idle() > d.stay
	return d.ending
}

// again is how long a watch that failed is let be.
const again = 30 * time.Second

// watch begins to watch the trial, and what comes after it, unless that is done.
func (d *daemon) watch() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watching || d.ending || time.Now().Before(d.patience) {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	d.watching, d.unwatch = true, stop
	d.work.Go(func() {
		defer stop()
		err := d.u.Watch(ctx)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.watching = false
		if err != nil && ctx.Err() == nil {
			d.patience = time.Now().Add(again)
			d.log.Error("the trial, or what waits for its end, fails", logging.Err(err))
		}
	})
}

// working tells whether work is under way that somebody asked for.
func (d *daemon) working() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.busy != ""
}

// Names of work, as people read them.
const (
	download     = "a download" // nothing waits for it
	updating     = "an update"
	installation = "an installation"
	wayBack      = "a rollback"
)

// yieldLimit is how long a download may take to end, and an update that waits for
// one: it has its end to write down.
const yieldLimit = 15 * time.Second

// yields tells whether the work under way ends for what is about to begin: a
// download for whatever is more; an update that still waits for its source for
// what needs none, as it does for root's command line.
func yields(busy, what string, waits bool) bool {
	switch busy {
	case download:
		return what != download
	case updating:
		return waits && (what == installation || what == wayBack)
	}
	return false
}

// waiting tells whether the update of this process has not got any further than
// its source.
func (d *daemon) waiting() bool {
	s, err := deployment.ReadStatus(d.u.Run)
	if err != nil || s.PID != os.Getpid() {
		return false
	}
	_, kept := downloading(s)
	return kept || s.State == deployment.Checking || s.State == deployment.Updating && (s.Phase == deployment.Plan || s.Phase == deployment.Fetch)
}

// yield ends what is under way, where that yields.
func (d *daemon) yield(what string) {
	d.mu.Lock()
	busy, stop, over := d.busy, d.stop, d.over
	d.mu.Unlock()
	if busy == "" || !yields(busy, what, busy == updating && d.waiting()) {
		return
	}
	stop(update.Yielded())
	limit := time.NewTimer(yieldLimit)
	defer limit.Stop()
	select {
	case <-over:
	case <-limit.C:
	}
}

// begin does work beside everything else; one piece at a time.
func (d *daemon) begin(what string, work func(context.Context) error) error {
	d.yield(what)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.ending:
		return fault.New(fault.Busy, "updater_ends", "the updater is ending").Try("ask again in a moment")
	case d.busy != "":
		return fault.New(fault.Busy, "updater_busy", "the updater is at work: %s", d.busy).
			Try("wait until that has ended, or `whisper-appliance update cancel`")
	}
	ctx, stop := context.WithCancelCause(context.Background())
	over := make(chan struct{})
	d.busy, d.stop, d.over = what, stop, over
	d.work.Go(func() {
		defer close(over)
		defer stop(nil)
		err := work(ctx)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.busy = ""
		if err != nil && !errors.Is(err, context.Canceled) && fault.KindOf(err) != fault.Canceled && !errors.Is(err, update.Yielded()) {
			d.log.Error("not done", "what", what, logging.Err(err))
		}
	})
	return nil
}

// interrupt ends what goes on, where it can be taken up again, and lets nothing
// more begin.
func (d *daemon) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ending = true
	if d.busy != "" {
		d.stop(nil)
	}
	if d.watching {
		d.unwatch()
	}
}
