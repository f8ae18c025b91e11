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
	a.Service.Engine = &patientEngine{Client: a.Engine, down: a.unit.down}
	return a
}

// engineUnit is the state of the engine's unit, asked for when somebody wants
// to know and kept for a moment.
type engineUnit struct {
	name string
	ask  func(ctx context.Context, unit string) (systemd.Unit, error)

	mu    sync.Mutex
	seen  systemd.Unit
	known bool
	at    time.Time
}

// How long an answer of systemd's counts, and how long it may take to come.
const (
	unitKept = time.Second
	unitWait = time.Second
)

func (u *engineUnit) state() (systemd.Unit, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.at) < unitKept {
		return u.seen, u.known
	}
	ctx, cancel := context.WithTimeout(context.Background(), unitWait)
	defer cancel()
	seen, err := u.ask(ctx, u.name)
	u.seen, u.known, u.at = seen, err == nil, time.Now()
	return u.seen, u.known
}

// running tells whether asking the engine would start one; where systemd does
// not say, it might.
func (u *engineUnit) running() bool {
	seen, known := u.state()
	return known && seen.Active == "active"
}

// tries is how many starts of the engine may fail in a row before it counts as
// one that cannot be started.
const tries = 3

// down is why no engine can be had, "" where one runs, may be started, or
// nothing is known.
func (u *engineUnit) down() string {
	seen, known := u.state()
	switch {
	case !known || seen.Active == "active" || seen.Result == "" || seen.Result == "success":
		return ""
	case seen.Active == "failed", seen.Restarts >= tries:
		return fmt.Sprintf("%s has failed %d times in a row (%s): journalctl -u %s", u.name, max(1, seen.Restarts), seen.Result, u.name)
	case seen.Load == "masked", seen.Load == "not-found":
		return fmt.Sprintf("%s is %s", u.name, seen.Load)
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
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var heard atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		tick := time.NewTicker(unitKept)
		defer tick.Stop()
		for !heard.Load() {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if why := e.down(); why != "" && !heard.Load() {
				cancel(&engine.Failure{Code: engine.CodeDown, Message: why})
				return
			}
		}
	})
	return e.Client.Transcribe(ctx, req, pcm, func(ev engine.Event) {
		heard.Store(true)
		observe(ev)
	})
}
