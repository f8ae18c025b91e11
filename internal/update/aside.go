package update

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// held is the lock of an update or a download, which sets it aside while it waits
// for a source: that may take hours, and meanwhile others have a look at the state, or
// change what is none of its business. What would change slots is refused, or
// has it end.
type held struct {
	u       *Updater
	what    string
	release func()
}

// lockFor takes the lock for what is wanted. What needs no source does not wait
// for one.
func (u *Updater) lockFor(w Want) (*held, error) {
	lock := u.lockFirst
	if w.Tree != "" || w.Slot != "" || w.Bundle != "" {
		lock = u.lockOver
	}
	release, err := lock(w.String())
	return &held{u, w.String(), release}, err
}

// drop ends it.
func (h *held) drop() { h.release() }

// aside does work without the lock, and takes it again, however long that takes:
// those who have it meanwhile are quick. end is called where somebody does not
// want to wait. An error of the lock itself is in lost: then it is not held.
func (h *held) aside(ctx context.Context, end context.CancelCauseFunc, work func() error) (err, lost error) {
	path := filepath.Join(h.u.Dir, asideFile)
	free, err := slot.Lock(path, h.what)
	if err != nil {
		return err, nil
	}
	defer free()
	stop := h.u.obey(ctx, map[string]error{haltPrefix + "*": errYielded}, end)
	h.release()
	h.release = func() {}
	err = work()
	stop()
	for {
		release, lost := h.u.tryState(h.what)
		if hasCode(lost, "slots_busy") {
			time.Sleep(lockEvery)
			continue
		}
		if lost == nil {
			h.release = release
			os.Remove(path) //nolint:errcheck // who glances at it next finds it free
		}
		return err, lost
	}
}

// apart has the transaction set its lock aside while the fetcher works. ctx ends
// as well where somebody does not want to wait for that.
func (t *transaction) apart(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	end := func() { cancel(nil) }
	fetch := t.u.Fetch
	if t.want.held == nil || fetch == nil {
		return ctx, end
	}
	u := *t.u
	u.Fetch = func(ctx context.Context, o Order, progress func(done int64)) error {
		return t.want.held.fetch(ctx, t.st, cancel, t.again, func() error { return fetch(ctx, o, following(progress, t.follow)) })
	}
	t.u = &u
	return ctx, end
}

// fetch does work, which fetches, with the lock set aside. again holds the world
// against what it was, once the lock is held anew.
func (h *held) fetch(ctx context.Context, st *state, end context.CancelCauseFunc, again func(context.Context) error, work func() error) error {
	err, lost := h.aside(ctx, end, work)
	if lost == nil {
		lost = again(ctx)
	} else {
		st.lost = true
	}
	if lost != nil {
		end(lost) // another source would find it no better
		return lost
	}
	return err
}

// lend is the updater for a download that is no transaction: its lock is set aside
// while the fetcher works, and what others change meanwhile is taken over into
// st. ctx ends as well where somebody does not want to wait for that.
func (h *held) lend(ctx context.Context, st *state) (*Updater, context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	end := func() { cancel(nil) }
	fetch := h.u.Fetch
	if fetch == nil {
		return h.u, ctx, end
	}
	again := func(context.Context) error {
		if err := h.refresh(st); err != nil {
			st.lost = true
			return overtaken("another process goes on with it").Because(err)
		}
		return nil
	}
	follow := func() { h.refresh(st) } //nolint:errcheck // the end of it finds that out
	u := *h.u
	u.Fetch = func(ctx context.Context, o Order, progress func(done int64)) error {
		return h.fetch(ctx, st, cancel, again, func() error { return fetch(ctx, o, following(progress, follow)) })
	}
	return &u, ctx, end
}

// refresh takes over into st what others have changed, but for what a download
// alone knows. Where another transaction has begun, or this one gone on, that is
// an error.
func (h *held) refresh(st *state) error {
	is, err := h.u.load()
	if err != nil {
		return err
	}
	if is.Step != st.Step || is.Attempt.Transaction != st.Attempt.Transaction {
		return fmt.Errorf("it was %s, and is %s", st.Step, is.Step)
	}
	is.Check, is.now = st.Check, st.now
	*st = *is
	return nil
}

// following is progress, told with what others have changed meanwhile.
func following(progress func(done int64), follow func()) func(done int64) {
	if progress == nil {
		return nil
	}
	return func(done int64) {
		follow()
		progress(done)
	}
}

// follow takes over what others have changed while the transaction waits.
func (t *transaction) follow() {
	if st, err := t.u.load(); err == nil && t.ours(st) {
		t.adopt(st)
	}
}

// ours tells whether the state is still that of this transaction.
func (t *transaction) ours(st *state) bool {
	return st.Step == preparing && st.Attempt.Transaction == t.st.Attempt.Transaction
}

// adopt takes over a state that was read, but for what the transaction alone
// knows.
func (t *transaction) adopt(st *state) {
	st.Attempt, st.now = t.st.Attempt, t.st.now
	*t.st = *st
}

// again holds the world, which others may have changed, against the one that the
// transaction was planned for, and plans anew.
func (t *transaction) again(ctx context.Context) error {
	st, err := t.u.load()
	if err != nil || !t.ours(st) {
		t.st.lost = true
		return overtaken("another process has given it up").Because(err)
	}
	t.adopt(st)
	serving, _ := t.u.links()
	if from := t.st.Attempt.From; t.u.release(serving) != from {
		return overtaken("version %s does not serve any more", from.Version)
	}
	if t.c == nil || t.c.offer == nil || t.c.slot == "" {
		return nil // it is not planned yet
	}
	return t.replan(ctx)
}

func overtaken(format string, args ...any) *fault.Error {
	return fault.New(fault.Conflict, "overtaken", "the appliance has changed while the release was downloaded: "+format, args...).
		Try("try again: what was downloaded is kept")
}

// replan is plan once more, with all that may stand against the release by now.
func (t *transaction) replan(ctx context.Context) error {
	set, err := t.u.Settings()
	if err != nil {
		return err
	}
	if err := unpinned(t.st, set, t.c.offer.Version); err != nil {
		return err
	}
	if t.want.Auto || t.want.Version == "" {
		if err := t.u.against(t.st, set, *t.c.offer); err != nil {
			return err
		}
	}
	c := *t.c
	c.slot, c.there = "", false
	if err := t.u.plan(ctx, t.st, &c); err != nil {
		return err
	}
	t.c.slot, t.st.Attempt.To.Slot, t.res.To.Slot = c.slot, c.slot, c.slot
	return nil
}
