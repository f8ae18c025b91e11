package update

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// Files in the run directory are orders to whoever holds the lock. Whoever obeys
// one removes it. Those who give one of the last two wait for what it does, and
// hold a lock on it: it ends with them.
const (
	cancelFile  = "cancel" // stop, whatever it is that you do
	yieldPrefix = "yield-" // stop if you only look or download; each who asks has a file
	haltPrefix  = "halt-"  // stop as well if it is an update that you download for
)

// asideFile is locked by an update that waits for its source without the lock.
// It is made, looked at and removed by whoever holds that.
const asideFile = "aside.lock"

var (
	errCanceled = fault.New(fault.Canceled, "canceled", "somebody cancelled the update")
	errYielded  = fault.New(fault.Busy, "yielded", "it was ended for a change that does not wait for a look or a download").Try("ask again when that is done")
)

const (
	// patience is how long somebody waits for the lock. A trial takes it for
	// moments, now and then.
	patience = 500 * time.Millisecond
	// yieldLimit is how long one who has heard that somebody waits may take to
	// end: the fetcher has to be stopped.
	yieldLimit = 15 * time.Second
	// haltLimit is yieldLimit for an update, which has its end to write down, too:
	// dpkg waits no longer than 90 seconds in all.
	haltLimit = 45 * time.Second
	// obeyEvery is how often orders are looked for, some times within patience.
	obeyEvery = 100 * time.Millisecond
	lockEvery = 20 * time.Millisecond
)

// tryLock takes the lock, unless an update has set it aside.
func (u *Updater) tryLock(what string) (release func(), err error) {
	release, err = u.tryState(what)
	if err != nil {
		return nil, err
	}
	if err := u.aside(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// tryState is tryLock for what does not mind an update that waits for its source.
func (u *Updater) tryState(what string) (release func(), err error) {
	return slot.Lock(filepath.Join(u.Dir, "lock"), what)
}

// aside is a fault of kind Busy while an update has set its lock aside, which
// names it. The lock must be held.
func (u *Updater) aside() error {
	path := filepath.Join(u.Dir, asideFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	free, err := slot.Lock(path, "a glance")
	if err != nil {
		return err
	}
	defer free()
	os.Remove(path) //nolint:errcheck // it was left by one that was killed; the next glance meets it again
	return nil
}

// lock takes the one lock of everything that changes slots.
func (u *Updater) lock(what string) (release func(), err error) { return u.wait(what, u.tryLock) }

// lockState is lock for a change of what is kept beside a transaction.
func (u *Updater) lockState(what string) (release func(), err error) {
	return u.wait(what, u.tryState)
}

func (u *Updater) wait(what string, try func(string) (func(), error)) (release func(), err error) {
	for begun := u.Clock(); ; time.Sleep(lockEvery) {
		release, err = try(what)
		if !hasCode(err, "slots_busy") || u.Clock()-begun > patience {
			return release, err
		}
	}
}

// lockFirst is lock for what must not wait for a look or a download: a source
// decides how long those take. Whoever is at one is asked to end it, and waited
// for; others are not.
func (u *Updater) lockFirst(what string) (release func(), err error) {
	return u.insist(what, yieldPrefix, yieldLimit, u.tryLock)
}

// lockOver is lockFirst for what needs no source: it does not wait for the
// download of an update either.
func (u *Updater) lockOver(what string) (release func(), err error) {
	return u.insist(what, haltPrefix, haltLimit, u.tryLock)
}

// lockBeside is lockFirst for what can be done while an update is downloaded.
func (u *Updater) lockBeside(what string) (release func(), err error) {
	return u.insist(what, yieldPrefix, yieldLimit, u.tryState)
}

// insist leaves the order to end with whoever holds the lock, and waits up to the
// limit for one who has heard it.
func (u *Updater) insist(what, order string, limit time.Duration, try func(string) (func(), error)) (release func(), err error) {
	release, err = try(what)
	if !hasCode(err, "slots_busy") {
		return release, err
	}
	file, takeBack, oerr := u.give(order)
	if oerr != nil {
		return u.wait(what, try) // nobody can be asked
	}
	defer takeBack()
	heard := func() bool { _, err := os.Lstat(file); return err != nil }
	for begun := u.Clock(); ; time.Sleep(lockEvery) {
		release, err = try(what)
		waited := u.Clock() - begun
		if !hasCode(err, "slots_busy") || waited > limit || waited > patience && !heard() {
			return release, err
		}
	}
}

// Yielded is why an update, a look or a download ends that waits for a source,
// where something comes that needs none.
func Yielded() error { return errYielded }

// cancellable is ctx, ended as well when somebody asks for it in the run
// directory.
func (u *Updater) cancellable(ctx context.Context) (context.Context, func()) {
	return u.obeying(ctx, map[string]error{cancelFile: errCanceled})
}

// yielding is cancellable for what only looks or downloads: it ends as well when
// somebody needs the lock for more.
func (u *Updater) yielding(ctx context.Context) (context.Context, func()) {
	return u.obeying(ctx, map[string]error{cancelFile: errCanceled, yieldPrefix + "*": errYielded, haltPrefix + "*": errYielded})
}

// obeying is ctx, ended by orders: names of files in the run directory, or
// patterns of them, each with the reason that it gives.
func (u *Updater) obeying(ctx context.Context, orders map[string]error) (context.Context, func()) {
	u.takeOrder(cancelFile) // one that came too late for who held the lock before
	ctx, cancel := context.WithCancelCause(ctx)
	stop := u.obey(ctx, orders, cancel)
	return ctx, func() {
		cancel(nil)
		stop()
		u.takeOrder(cancelFile)
	}
}

// obey looks for orders until ctx ends or stop is called, and calls end with the
// reason of each.
func (u *Updater) obey(ctx context.Context, orders map[string]error, end context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(obeyEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for order, why := range orders {
				if u.takeOrder(order) {
					end(why)
				}
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// give leaves an order in a file that is locked for as long as its giver lives. It
// is so before anybody can find it.
func (u *Updater) give(order string) (path string, takeBack func(), err error) {
	f, err := os.CreateTemp(u.Run, "."+order+"*")
	if err != nil {
		return "", nil, err
	}
	f.Close()
	unlock, err := slot.Lock(f.Name(), "an order")
	if err == nil {
		path = filepath.Join(u.Run, strings.TrimPrefix(filepath.Base(f.Name()), "."))
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // sweep meets it again
		return "", nil, err
	}
	return path, func() {
		os.Remove(path) //nolint:errcheck // mostly it was obeyed
		unlock()
	}, nil
}

// abandoned tells of an order whose giver was killed: it would be obeyed by
// somebody who is in nobody's way.
func abandoned(path string) bool {
	if filepath.Base(path) == cancelFile {
		return false // whoever gives it need not wait for what it does
	}
	unlock, err := slot.Lock(path, "a glance")
	if err != nil {
		return false
	}
	unlock()
	return true
}

// takeOrder removes the orders of a pattern and tells whether there were any of
// somebody who lives.
func (u *Updater) takeOrder(pattern string) (taken bool) {
	list, err := filepath.Glob(filepath.Join(u.Run, pattern))
	if err != nil {
		return false // no pattern here is bad
	}
	for _, path := range list {
		dead := abandoned(path)
		taken = os.Remove(path) == nil && !dead || taken
	}
	return taken
}

// askToStop leaves the order to cancel.
func (u *Updater) askToStop() error {
	if err := os.WriteFile(filepath.Join(u.Run, cancelFile), nil, 0o600); err != nil {
		return cannotWrite(u.Run, err)
	}
	return nil
}

// askAndSee leaves the order to cancel, and tells whether somebody has heard it.
// One that nobody listens to is taken back.
func (u *Updater) askAndSee() (heard bool, err error) {
	if err := u.askToStop(); err != nil {
		return false, err
	}
	order := filepath.Join(u.Run, cancelFile)
	for begun := u.Clock(); u.Clock()-begun < patience; time.Sleep(lockEvery) {
		if _, err := os.Lstat(order); errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
	}
	return !u.takeOrder(cancelFile), nil
}
