package outbound

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrStalled is why a watched transfer ends for which nothing comes.
var ErrStalled = errors.New("no byte came for too long")

// Watch ends a transfer that stands still.
type Watch struct {
	Limit time.Duration // after so long; counts from the next Wake on

	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// Watched is a context that ends with ErrStalled where nothing wakes the watch for
// so long; it counts from now on.
func Watched(ctx context.Context, limit time.Duration) (context.Context, *Watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &Watch{limit, time.AfterFunc(limit, func() { cancel(ErrStalled) }), cancel}
}

// Rest has the watch wait, without an end, until it is woken.
func (w *Watch) Rest() { w.timer.Stop() }

// Wake begins to count anew.
func (w *Watch) Wake() { w.timer.Reset(w.Limit) }

// End ends the watch and its context.
func (w *Watch) End() {
	w.timer.Stop()
	w.cancel(nil)
}

// Reader is r, each of whose bytes wakes w.
func (w *Watch) Reader(r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if n > 0 {
			w.Wake()
		}
		return n, err
	})
}

// readFunc is a reader made of a function.
type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
