package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"
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

// serverUser is who the server runs as.
const serverUser = "whisper-appliance"

func printLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

func daemonCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "daemon", Short: "Answer on D-Bus and watch trials, as the updater's unit does", Args: cobra.NoArgs, Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.open(true)
			if err != nil {
				return err
			}
			a.machine.Watching = true
			return (&daemon{u: u, app: a}).run(c.Context())
		},
	}
}

// daemon is the updater while it is asked for, or a trial runs. It does one
// piece of work at a time.
type daemon struct {
	u   *update.Updater
	app *app
	bus *updaterd.Server

	mu   sync.Mutex
	busy string             // what goes on, "" for nothing
	stop context.CancelFunc // ends it
	jobs sync.WaitGroup
}

// run settles what was left, and is ready then. It ends by itself when nobody
// has asked for anything for a while and no trial runs.
func (d *daemon) run(ctx context.Context) error {
	log := d.app.machine.Log
	if _, err := d.u.Recover(ctx, false); err != nil && fault.KindOf(err) != fault.Busy {
		log.Error("what an earlier run has left is not settled", logging.Err(err))
	}
	d.bus = &updaterd.Server{Socket: paths.MachineAt("").SystemBus, Handler: handler{d}, Log: log, ServerUID: serverUID}
	ctx, end := context.WithCancel(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		d.bus.Run(ctx)
	}()
	systemd.Notify("READY=1") //nolint:errcheck // nobody listens without systemd
	d.attend(ctx)
	systemd.Notify("STOPPING=1") //nolint:errcheck // as above
	d.interruptAll()
	end()
	<-served
	d.jobs.Wait()
	return nil
}

// attend shows what goes on and begins what nobody has to ask for, until there
// is nothing left to stay for.
func (d *daemon) attend(ctx context.Context) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	var shown time.Time
	for n := 0; ; n++ {
		if s, err := deployment.ReadStatus(d.u.Run); err == nil && !s.Updated.Equal(shown) {
			shown = s.Updated
			d.bus.Publish(s)
			systemd.NotifyStatus(s.Message) //nolint:errcheck // nobody listens without systemd
		}
		if n%4 == 0 {
			systemd.Notify("WATCHDOG=1") //nolint:errcheck // as above
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

// mayEnd begins to watch a trial that runs, and tells whether there is nothing
// to be done.
func (d *daemon) mayEnd() bool {
	trial, err := d.u.Trial()
	if err != nil || trial {
		d.begin("the trial", d.u.Watch) //nolint:errcheck // it runs already
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.busy == "" && d.bus.Idle() > update.Stay
}

// begin does work beside everything else; one piece at a time.
func (d *daemon) begin(what string, work func(context.Context) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy != "" {
		return fault.New(fault.Busy, "updater_busy", "the updater is at work: %s", d.busy).Try("wait until that has ended, or cancel it")
	}
	ctx, stop := context.WithCancel(context.Background())
	d.busy, d.stop = what, stop
	d.jobs.Go(func() {
		err := work(ctx)
		stop()
		d.mu.Lock()
		d.busy = ""
		d.mu.Unlock()
		if err != nil && !errors.Is(err, context.Canceled) {
			d.app.machine.Log.Error("not done", "what", what, logging.Err(err))
		}
	})
	return nil
}

// interrupt ends a watch, so that something else can be done; the trial goes on.
func (d *daemon) interrupt(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy == what {
		d.stop()
	}
}

// interruptAll ends what goes on, at a point where it can be taken up again.
func (d *daemon) interruptAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy != "" {
		d.stop()
	}
}

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

func (h handler) Download(_ context.Context, _ updaterd.Caller, version string) error {
	return h.d.begin("a download", func(ctx context.Context) error {
		_, err := h.d.u.Download(ctx, version)
		return err
	})
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
	return h.transact(ctx, "an update", func(ctx context.Context, begun func(string)) error {
		_, err := h.d.u.Apply(ctx, update.Want{Door: door(c), Version: version, Trial: true, Begun: begun})
		return err
	})
}

func (h handler) InstallFile(ctx context.Context, c updaterd.Caller, path string) (string, error) {
	return h.transact(ctx, "an installation", func(ctx context.Context, begun func(string)) error {
		_, err := h.d.u.Apply(ctx, update.Want{Door: door(c), Bundle: path, Trial: true, Begun: begun})
		return err
	})
}

// transact begins a transaction and waits until it has a name, or is over.
func (h handler) transact(ctx context.Context, what string, work func(context.Context, func(string)) error) (string, error) {
	id := make(chan string, 1)
	over := make(chan error, 1)
	h.d.interrupt("the trial")
	err := h.d.beginSoon(ctx, what, func(ctx context.Context) error {
		err := work(ctx, func(transaction string) { id <- transaction })
		over <- err
		return err
	})
	if err != nil {
		return "", err
	}
	select {
	case transaction := <-id:
		return transaction, nil
	case err := <-over:
		return "", err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// beginSoon is begin, after what was interrupted has ended.
func (d *daemon) beginSoon(ctx context.Context, what string, work func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 100 {
		d.mu.Lock()
		watching := d.busy == "the trial"
		d.mu.Unlock()
		if !watching {
			break
		}
		d.interrupt("the trial")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return d.begin(what, work)
}

func (h handler) Rollback(ctx context.Context, c updaterd.Caller) (string, error) {
	s, err := h.d.u.Status()
	if err != nil {
		return "", err
	}
	begun := func(report func(string)) {
		if s.Transaction != "" {
			report(s.Transaction)
		}
	}
	return h.transact(ctx, "a rollback", func(ctx context.Context, report func(string)) error {
		begun(report)
		_, err := h.d.u.Rollback(ctx, door(c))
		return err
	})
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

func hasCode(err error, code string) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Code == code
}

// analysisWords is what the record teaches.
func analysisWords(a deployment.Analysis) string {
	words := a.Says + "\n"
	for _, f := range a.Failures {
		words += fmt.Sprintf("failed   %d×  %s\n", f.Count, f.Says)
	}
	for _, p := range a.Phases {
		words += fmt.Sprintf("%-12s median %.1f s, p95 %.1f s\n", p.Phase, p.Median, p.P95)
	}
	for _, r := range a.Regressions {
		words += "regression: " + r.Says + "\n"
	}
	return words
}
