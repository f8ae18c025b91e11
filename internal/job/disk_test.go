//go:build e2e

package job

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/database"
	"whisper-appliance/tests/faults/disk"
)

const size = 32 << 20

func onDisk(t *testing.T) (*disk.Disk, place) {
	d := disk.New(t, size)
	return d, place{options: database.Options{File: filepath.Join(d.Dir, "appliance.db")}}
}

// TestPowerCut: the power goes while a process stores windows, ten times.
func TestPowerCut(t *testing.T) {
	d, p := onDisk(t)
	db, err := database.Open(ctx, p.options)
	must(t, err)
	id := NewStore(db, Options{}).add(t, New{Name: "long"}).ID
	must(t, db.Close())
	random := rand.New(rand.NewPCG(1, 10))
	for range 10 {
		said := struck(t, p.options.File, time.Duration(random.IntN(40_000))*time.Microsecond, func(p *os.Process) error {
			return errors.Join(freeze(p), d.Cut(), p.Kill())
		})
		must(t, d.Revive())
		whole(t, p, id, said)
	}
}

// freeze stops a process, so that it says nothing after the cut: a sync that is
// under way just then may return as if it had been done, once the file system has
// given its transaction up, where after a power cut nothing returns.
func freeze(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return unix.Waitid(unix.P_PID, p.Pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
}

// TestNoRoom: what does not fit is refused, in words, and nothing else is lost.
func TestNoRoom(t *testing.T) {
	d, p := onDisk(t)
	db, err := database.Open(ctx, p.options)
	must(t, err)
	defer db.Close()
	s, w := NewStore(db, Options{}), NewWorker("host")
	id := s.add(t, New{Claim: w}).ID
	_, err = s.Window(ctx, id, w, window(0), "")
	must(t, err, d.Fill(0))
	large := window(1)
	large.Result = []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
	if _, err := s.Window(ctx, id, w, large, ""); code(err) != "database_full" {
		t.Errorf("on a full disk: %v", err)
	}
	if j := s.got(t, id); j.WindowsDone != 1 {
		t.Errorf("%d windows", j.WindowsDone)
	}
	must(t, d.Unfill())
	if _, err := s.Window(ctx, id, w, large, ""); err != nil {
		t.Errorf("with room again: %v", err)
	}
	must(t, s.Finish(ctx, id, w, nil), db.Close())
	must(t, d.ReadOnly(true))
	_, err = database.Open(ctx, p.options)
	if code(err) != "database_not_writable" {
		t.Errorf("on a disk that is read-only: %v", err)
	}
	must(t, d.ReadOnly(false))
}
