package job

import (
	"bufio"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/database"
	"whisper-appliance/internal/fault"
)

// childVariable names the database, a file or an address, in which a child
// process stores windows.
const childVariable = "WA_TEST_JOB_CHILD"

// shortLease is that of a child, and of those who wait for its end.
const shortLease = 300 * time.Millisecond

// child takes up the job in a database and stores windows until it is killed. It
// says the number of each when it is stored.
func child(where string) {
	err := func() error {
		o := database.Options{File: where}
		if strings.HasPrefix(where, "postgres:") {
			o = database.Options{URL: where}
		}
		db, err := database.Open(ctx, o)
		if err != nil {
			return err
		}
		s, w := NewStore(db, Options{Lease: shortLease}), NewWorker("host")
		if _, err := s.Free(ctx, w); err != nil {
			return err
		}
		j, found, err := s.Claim(ctx, w)
		if err != nil || !found {
			return fmt.Errorf("found %v: %w", found, err)
		}
		for i := j.WindowsDone; ; i++ {
			if _, err := s.Window(ctx, j.ID, w, window(i), ""); err != nil {
				return err
			}
			fmt.Println(i)
		}
	}()
	fmt.Fprintln(os.Stderr, "child:", err)
	os.Exit(1)
}

// TestKilled: a process that stores windows is killed at twenty random moments.
func TestKilled(t *testing.T) {
	p := file(t)
	id := p.store(t, Options{}).add(t, New{Name: "long"}).ID
	random := rand.New(rand.NewPCG(5, 20))
	for range 20 {
		said := struck(t, p.options.File, time.Duration(random.IntN(15_000))*time.Microsecond, func(p *os.Process) error { return p.Kill() })
		whole(t, p, id, said)
	}
}

// struck starts a child and strikes it some time after its first window. It
// gives the last number that the child said.
func struck(t *testing.T, file string, after time.Duration, strike func(*os.Process) error) (last int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^$")
	cmd.Env = append(os.Environ(), childVariable+"="+file)
	out, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	defer cmd.Wait()
	lines := bufio.NewReader(out)
	struck := make(chan error, 1)
	for first := true; ; first = false {
		line, err := lines.ReadString('\n')
		if err != nil { // half a line was not said
			if first {
				t.Fatal("the child stored nothing")
			}
			must(t, <-struck)
			return last
		}
		last, err = strconv.Atoi(strings.TrimSpace(line))
		must(t, err)
		if first {
			time.AfterFunc(after, func() { struck <- strike(cmd.Process) })
		}
	}
}

// whole sees that the windows are there up to the one that was said to be stored,
// or one more, each once, and that the database is whole.
func whole(t *testing.T, p place, id string, said int) {
	t.Helper()
	db, err := database.Open(ctx, p.options)
	must(t, err)
	defer db.Close()
	s := NewStore(db, Options{})
	all, err := s.Windows(ctx, id, 0)
	must(t, err)
	for i, v := range all {
		if v.Index != i || string(v.Result) != string(window(i).Result) {
			t.Fatalf("number %d is %+v", i, v)
		}
	}
	if j := s.got(t, id); j.WindowsDone != len(all) || len(all) < said+1 || len(all) > said+2 || j.Covered != time.Duration(len(all))*time.Second {
		t.Errorf("number %d was said to be stored, %d are there, progress %d", said, len(all), j.WindowsDone)
	}
	must(t, db.Read(ctx, func(tx *sql.Tx) error {
		var says string
		err := tx.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&says)
		if err == nil && says != "ok" {
			t.Error(says)
		}
		return err
	}))
}

// TestAnApplianceDies: another one, on the same PostgreSQL, takes its job up once
// the lease has run out, and goes on at the next window.
func TestAnApplianceDies(t *testing.T) {
	p := server(t)
	s, w := p.store(t, Options{Lease: shortLease}), NewWorker("another")
	id := s.add(t, New{}).ID
	said := struck(t, p.options.URL, 20*time.Millisecond, func(p *os.Process) error { return p.Kill() })
	again := time.NewTicker(shortLease / 20)
	defer again.Stop()
	var j Job
	for tries := 0; j.ID == "" && tries < 1000; tries++ {
		<-again.C
		j = s.claimed(t, w)
	}
	if j.ID != id || j.Attempts != 2 || j.WindowsDone < said+1 || j.WindowsDone > said+2 {
		t.Fatalf("%+v after window %d", j, said)
	}
	_, err := s.Window(ctx, id, w, window(j.WindowsDone), "")
	must(t, err, s.Finish(ctx, id, w, nil))
	all, err := s.Windows(ctx, id, 0)
	if err != nil || len(all) != j.WindowsDone+1 || all[j.WindowsDone].Index != j.WindowsDone {
		t.Errorf("%d windows, %v", len(all), err)
	}
}

// TestPostgresRestarts in the middle of a job.
func TestPostgresRestarts(t *testing.T) {
	p := server(t)
	s, w := p.store(t, Options{}), NewWorker("host")
	id := s.add(t, New{Claim: w}).ID
	for i := range 3 {
		_, err := s.Window(ctx, id, w, window(i), "")
		must(t, err)
	}
	must(t, p.server.Pause())
	for range 3 {
		if _, err := s.Window(ctx, id, w, window(3), ""); code(err) != "database_unreachable" || fault.Hint(err) == "" {
			t.Errorf("while it is away: %v", err)
		}
	}
	if _, _, err := s.Add(ctx, New{}); code(err) != "database_unreachable" || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("while it is away: %v", err)
	}
	must(t, p.server.Resume())
	for i := 3; i < 6; i++ {
		_, err := s.Window(ctx, id, w, window(i), "")
		must(t, err)
	}
	must(t, s.Finish(ctx, id, w, nil))
	if all, err := s.Windows(ctx, id, 0); err != nil || len(all) != 6 {
		t.Errorf("%d windows, %v", len(all), err)
	}
}

// TestPostgresRestartsUnderLoad: workers repeat what failed for the connection,
// and every window is stored once.
func TestPostgresRestartsUnderLoad(t *testing.T) {
	p := server(t)
	s := p.store(t, Options{})
	const workers, windows = 4, 150
	half := make(chan bool, workers)
	var wg sync.WaitGroup
	var ids [workers]string
	for n := range ids {
		w := NewWorker(fmt.Sprint(n))
		ids[n] = s.add(t, New{Claim: w}).ID
		wg.Go(func() {
			for i := range windows {
				if i == windows/2 {
					half <- true
				}
				persist(t, s, ids[n], w, i)
			}
		})
	}
	<-half
	must(t, p.server.Pause(), p.server.Resume())
	wg.Wait()
	for _, id := range ids {
		if j := s.got(t, id); j.WindowsDone != windows {
			t.Errorf("%d windows", j.WindowsDone)
		}
	}
}

// persist stores a window as a worker does that waits for its database.
func persist(t *testing.T, s *Store, id string, w Worker, i int) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for tries := 0; tries < 1000; tries++ {
		_, err := s.Window(ctx, id, w, window(i), "")
		if err == nil || tries > 0 && strings.Contains(err.Error(), ErrStored.Error()) { // a commit that broke off was done
			return
		}
		if code(err) != "database_unreachable" {
			t.Errorf("window %d: %v (%s)", i, err, code(err))
			return
		}
		<-again.C
	}
	t.Error("PostgreSQL does not come back")
}
