package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
)

// Supervised assembles the parts where systemd starts engine and decoders: they
// are reached by its sockets, and ask tells what it knows of the engine's unit.
func Supervised(p paths.Paths, c func() *config.Config, log *slog.Logger,
	ask func(ctx context.Context, unit string) (systemd.Unit, error)) *Appliance {
	a := assemble(p, c, log)
	a.unit = &engineUnit{name: systemd.EngineService(p.SlotName), ask: ask}
	a.Service.Decoder = socketDecoder(p)
	patient := &patientEngine{Client: a.Engine, down: a.unit.down}
	a.Service.Engine, a.Service.Detector = patient, patient
	return a
}

// engineUnit is the state of the engine's unit, asked for when somebody wants
// to know and kept for a moment.
type engineUnit struct {
	name string
	ask  func(ctx context.Context, unit string) (systemd.Unit, error)

	mu     sync.Mutex
	seen   systemd.Unit
	known  bool
	at     time.Time
	before uint32 // restarts that a minute of work has made up for
}

// How long an answer of systemd's counts, how long it may take to come, and
// after how long at work an engine's restarts no longer count against it.
const (
	unitKept = time.Second
	unitWait = time.Second
	unitWell = time.Minute
)

// state is what systemd knows of the unit, not older than age.
func (u *engineUnit) state(age time.Duration) (unit systemd.Unit, restarts uint32, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.at) >= age {
		ctx, cancel := context.WithTimeout(context.Background(), unitWait)
		defer cancel()
		seen, err := u.ask(ctx, u.name)
		u.seen, u.known, u.at = seen, err == nil, time.Now()
		// systemd counts on until somebody starts the unit himself.
		if well := seen.Active == "active" && time.Since(seen.Since) > unitWell; well || seen.Restarts < u.before {
			u.before = seen.Restarts
		}
	}
	return u.seen, u.seen.Restarts - u.before, u.known
}

// running tells whether asking the engine would start none: it asks anew, for
// one that has just left would be woken.
func (u *engineUnit) running() bool {
	seen, _, known := u.state(0)
	return known && seen.Active == "active" && seen.MainPID != 0
}

// tries is how many starts of the engine may fail in a row before it counts as
// one that cannot be started.
const tries = 3

// down is why no engine can be had, "" where one runs, may be started, or
// nothing is known.
func (u *engineUnit) down() string {
	seen, restarts, known := u.state(unitKept)
	switch {
	case !known || seen.Active == "active":
		return ""
	case seen.Load == "masked", seen.Load == "not-found":
		return fmt.Sprintf("%s is %s", u.name, seen.Load)
	case seen.Result == "" || seen.Result == "success":
		return ""
	case seen.Active == "failed", restarts >= tries:
		return fmt.Sprintf("%s has failed %d times in a row (%s): journalctl -u %s", u.name, max(1, restarts), seen.Result, u.name)
	}
	return ""
}

// patientEngine waits in the engine's socket for as long as systemd tries to
// start one, and no longer.
type patientEngine struct {
	*engine.Client
	down func() string
}

// Transcribe is engine.Client's. The error is an engine.Failure with the code
// CodeDown where systemd has given up for now.
func (e *patientEngine) Transcribe(ctx context.Context, req engine.WindowRequest, pcm []float32, observe func(engine.Event)) (engine.Done, error) {
	ctx, heard, end := patience(ctx, e.down)
	defer end()
	return e.Client.Transcribe(ctx, req, pcm, func(ev engine.Event) {
		heard.Store(true)
		observe(ev)
	})
}

// Detect is engine.Client's, with the same error.
func (e *patientEngine) Detect(ctx context.Context, req engine.VADRequest, pcm []float32) (engine.VADResponse, error) {
	ctx, _, end := patience(ctx, e.down)
	defer end()
	return e.Client.Detect(ctx, req, pcm)
}

// patience ends ctx, with a Failure that says why, when no engine can be had
// and none has been heard.
func patience(ctx context.Context, down func() string) (patient context.Context, heard *atomic.Bool, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	heard = new(atomic.Bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(unitKept)
		defer tick.Stop()
		for !heard.Load() {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if why := down(); why != "" && !heard.Load() {
				cancel(&engine.Failure{Code: engine.CodeDown, Message: why})
				return
			}
		}
	})
	return ctx, heard, func() {
		cancel(nil)
		wg.Wait()
	}
}
