package inbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

const (
	piece = 256 << 10
	// lookEvery is how many bytes are written between two looks at the disk.
	lookEvery = 16 << 20
	// reserve is what uploads leave free, in bytes: models and logs grow, too.
	reserve = 256 << 20
)

// Write appends what r gives to an upload, of which offset bytes are here, and
// syncs it. n is how many bytes came, also with an error. The caller holds its
// lock, and sees to it that no more comes than belongs to it.
//
// Faults: wrong_offset (Conflict), disk_full (NoSpace).
func (b *Inbox) Write(id string, offset int64, r io.Reader) (n int64, err error) {
	f, err := os.OpenFile(b.data(id), os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer func() {
		if n > 0 {
			err = worded(errors.Join(err, f.Sync()))
		}
		err = errors.Join(err, f.Close())
	}()
	if st, err := f.Stat(); err != nil || st.Size() != offset {
		return 0, errors.Join(err, fault.New(fault.Conflict, "wrong_offset", "the upload is not at %d", offset).On("Upload-Offset").
			Try("HEAD tells where to go on"))
	}
	for buf, looked := make([]byte, piece), int64(-lookEvery); ; {
		if n-looked >= lookEvery {
			if err := b.room(0); err != nil {
				return n, err
			}
			looked = n
		}
		got, readErr := r.Read(buf)
		put, err := f.WriteAt(buf[:got], offset+n)
		if n += int64(put); err != nil {
			return n, worded(err)
		}
		if readErr == io.EOF {
			return n, nil
		}
		if readErr != nil {
			return n, readErr
		}
	}
}

// recent is how long the room for the rest of an upload is kept for it.
const recent = time.Hour

// Room refuses an upload of so many bytes that the disk would not hold, beside
// what is still to come of those that arrive. Fault: disk_full (NoSpace).
func (b *Inbox) Room(size int64) error {
	all, err := b.List()
	if err != nil {
		return worded(err)
	}
	for _, u := range all {
		if time.Since(u.Active) < recent {
			size += u.Size - u.Offset
		}
	}
	return b.room(size)
}

func (b *Inbox) room(size int64) error {
	free := b.Free
	if free == nil {
		free = durable.Free
	}
	left, err := free(b.Dir)
	if err != nil {
		return nil //nolint:nilerr // the disk's end is met while writing
	}
	if need := size + reserve; left < need {
		return full("uploads need %s with their reserve, and %s are free", fault.Bytes(need), fault.Bytes(left))
	}
	return nil
}

func full(format string, args ...any) *fault.Error {
	return fault.New(fault.NoSpace, "disk_full", format, args...).Try("free some space where uploads and jobs are kept")
}

// worded gives a full disk its words.
func worded(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return full("there is no room left for the upload").Because(err)
	}
	return fmt.Errorf("keep the upload: %w", err)
}
