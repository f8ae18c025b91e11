package inbox

import (
	"context"
	"hash/fnv"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/fault"
)

// holder is who has an upload's lock in this process.
type holder struct {
	release func()        // asks it to give the lock back
	gone    chan struct{} // closed when it has
}

// lockPoll is how often a lock is tried that another process holds.
const lockPoll = 50 * time.Millisecond

// Lock takes the lock of an upload, in this process and among those that share
// the directory. Whoever has it here is asked to give it back: it reads from a
// connection that its client has left, most likely. release is asked in turn; it
// must not block. Fault: upload_busy (Conflict), where ctx ends first.
func (b *Inbox) Lock(ctx context.Context, id string, release func()) (unlock func(), err error) {
	for {
		other := b.enter(id, release)
		if other == nil {
			break
		}
		other.release()
		select {
		case <-ctx.Done():
			return nil, busy(id)
		case <-other.gone:
		}
	}
	for {
		file, ok, err := b.lockFile(id)
		if err != nil {
			b.leave(id)
			return nil, err
		}
		if ok {
			return b.unlock(id, file), nil
		}
		select {
		case <-ctx.Done():
			b.leave(id)
			return nil, busy(id)
		case <-time.After(lockPoll):
		}
	}
}

// TryLock is Lock that disturbs nobody: ok is false where somebody has it.
func (b *Inbox) TryLock(id string) (unlock func(), ok bool) {
	if b.enter(id, func() {}) != nil {
		return nil, false
	}
	file, ok, err := b.lockFile(id)
	if err != nil || !ok {
		b.leave(id)
		return nil, false
	}
	return b.unlock(id, file), true
}

func busy(id string) error {
	return fault.New(fault.Conflict, "upload_busy", "upload %s is being written to", id).On("id").
		Try("wait a moment, ask with HEAD where it is, and go on there")
}

// enter takes the lock in this process, or gives who has it.
func (b *Inbox) enter(id string, release func()) *holder {
	b.mu.Lock()
	defer b.mu.Unlock()
	if other := b.locks[id]; other != nil {
		return other
	}
	if b.locks == nil {
		b.locks = map[string]*holder{}
	}
	b.locks[id] = &holder{release, make(chan struct{})}
	return nil
}

func (b *Inbox) leave(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.locks[id].gone)
	delete(b.locks, id)
}

func (b *Inbox) unlock(id string, file *os.File) func() {
	return sync.OnceFunc(func() {
		file.Close() // and with it the lock
		b.leave(id)
	})
}

// lockFile locks one byte of the file of locks, which the id chooses: a file for
// each lock would have to be removed while others wait for it. The lock belongs
// to the open file, and ends with the process. Where the file system knows no
// such locks the process is alone with its own.
func (b *Inbox) lockFile(id string) (file *os.File, ok bool, err error) {
	file, err = os.OpenFile(filepath.Join(b.Dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, worded(err)
	}
	sum := fnv.New64a()
	sum.Write([]byte(id)) //nolint:errcheck // it never fails
	at := int64(sum.Sum64() >> 2)
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1})
	switch err {
	case unix.EAGAIN, unix.EACCES:
		file.Close()
		return nil, false, nil
	}
	return file, true, nil
}
