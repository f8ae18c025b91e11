//go:build e2e

package programs

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/database"
	"whisper-appliance/internal/engine"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/faults/disk"
)

// Moments at which a job loses its power: in short, and where FAULTS=all asks
// for all that there is.
const (
	fewMoments = 3
	allMoments = 10
)

// stateRoom is the size of the disk that the state directory is on: beside what
// a job needs the appliance leaves a reserve.
const stateRoom = 640 << 20

// TestJobsOutliveThePower takes the power from the disk of the state directory at
// moments in all of a job: with it back, the job comes to the same transcript,
// and nothing is decoded anew but the window that was interrupted.
func TestJobsOutliveThePower(t *testing.T) {
	d := disk.New(t, stateRoom)
	a := start(t, appliance.Options{State: filepath.Join(d.Dir, "state")})
	const windows = 6
	moments := fewMoments
	if os.Getenv("FAULTS") == "all" {
		moments = allMoments
	}
	u := undisturbed(t, a, apart(t, windows), windows)
	again := 0
	for i := range moments {
		t.Run(fmt.Sprintf("%d of %d", i+1, moments), func(t *testing.T) {
			id, seen := u.cut(t, a, d, i*windows/moments, u.pace*time.Duration(1+2*(i%4))/8)
			if u.compare(t, a, id, seen) {
				again++
			}
		})
	}
	if again < moments-1 {
		t.Errorf("only %d of %d were interrupted at all", again, moments)
	}
	wantNoRecordings(t, a)
	wantWholeDatabase(t, filepath.Join(a.State, "database", "appliance.db"))
	if err := a.End(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.Check(); err != nil {
		t.Error(err)
	}
	if err := a.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// run is a job as it goes where nothing disturbs it.
type run struct {
	path  string
	whole api.JobDetail
	pace  time.Duration // of a window
	looks int64         // that the engine had at all of them
}

// undisturbed has a recording of so many windows done, with the model loaded.
func undisturbed(t *testing.T, a *appliance.Appliance, path string, windows int) run {
	t.Helper()
	finished(t, a, submit(t, a, path).ID)
	before, began := decoded(t, a), time.Now()
	whole := finished(t, a, submit(t, a, path).ID)
	u := run{path, whole, time.Since(began) / time.Duration(windows), decoded(t, a) - before}
	if whole.State != "done" || len(whole.Segments) != windows || u.looks < int64(windows) {
		t.Fatalf("undisturbed: %+v after %d looks at windows\n%s", whole, u.looks, a.Log())
	}
	return u
}

// cut has the job done until the power goes, when so many windows are done and a
// while after, and gives the power back. It tells how the job was when it was
// last seen.
func (u run) cut(t *testing.T, a *appliance.Appliance, d *disk.Disk, done int, after time.Duration) (id string, seen api.JobDetail) {
	t.Helper()
	id = submit(t, a, u.path).ID
	var since time.Time
	until(t, time.Minute, "the moment", func() bool {
		seen = jobOf(t, a, id)
		if since.IsZero() && windowsIn(seen) >= done {
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) >= after
	})
	// Until the server is ended it meets with a disk that takes nothing.
	for _, step := range []func() error{
		d.Cut, func() error { return a.End(syscall.SIGKILL) }, d.Revive, func() error { return a.Again(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return id, seen
}

// compare waits for the end of a job and holds it against the undisturbed one. It
// tells whether the job was begun more than once.
func (u run) compare(t *testing.T, a *appliance.Appliance, id string, seen api.JobDetail) (again bool) {
	t.Helper()
	j := finished(t, a, id)
	if j.State != "done" || j.Text != u.whole.Text || !reflect.DeepEqual(j.Segments, u.whole.Segments) {
		t.Errorf("%s, %+v\nwant  %+v\n%s", j.State, j.Segments, u.whole.Segments, a.Log())
	}
	times := begun(t, a.Log(), id)
	if len(times) < 2 {
		return false
	}
	// The engine is a new one, too: it has looked at what was missing and no more.
	last, windows, looks := times[len(times)-1], len(u.whole.Segments), int64(0)
	if last < windows {
		looks = decoded(t, a)
	}
	t.Logf("begun after %v of %d windows; %d looks since then, undisturbed %d at all of them", times, windows, looks, u.looks)
	if last < windowsIn(seen) {
		t.Errorf("begun again after %d windows, though %d were done", last, windowsIn(seen))
	}
	if most := u.looks - int64(last); looks > most {
		t.Errorf("%d looks at %d windows, at most %d", looks, windows-last, most)
	}
	return true
}

// decoded is how often the engine that runs has looked at a window.
func decoded(t *testing.T, a *appliance.Appliance) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	socket := engine.Client{Socket: filepath.Join(filepath.Dir(a.Run), "engine.sock")}
	status, err := socket.Status(ctx)
	if err != nil {
		t.Fatalf("%v\n%s", err, a.Log())
	}
	return status.Windows
}

// wantWholeDatabase checks a database file, and that its jobs have the windows
// that they count.
func wantWholeDatabase(t *testing.T, file string) {
	t.Helper()
	db, err := database.Open(t.Context(), database.Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Read(t.Context(), func(tx *sql.Tx) error {
		var says string
		var wrong int
		if err := tx.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&says); err != nil {
			return err
		}
		const miscounted = "SELECT count(*) FROM jobs WHERE windows_done <> (SELECT count(*) FROM windows WHERE job_id = id)"
		err := tx.QueryRowContext(t.Context(), miscounted).Scan(&wrong)
		if says != "ok" || wrong > 0 {
			t.Errorf("the database is %s, and %d jobs are miscounted", says, wrong)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
