package inbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"whisper-appliance/internal/fault"
)

// childVariable names the directory of an inbox in which a child process takes a
// recording from its standard input.
const childVariable = "WA_TEST_INBOX_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child goes on with the one upload of an inbox, and says the offset that it
// begins at.
func child(dir string) {
	b := &Inbox{Dir: dir, Log: slog.New(slog.DiscardHandler)}
	err := func() error {
		all, err := b.List()
		if err != nil || len(all) != 1 {
			return fmt.Errorf("%d uploads: %w", len(all), err)
		}
		unlock, err := b.Lock(context.Background(), all[0].ID, func() {})
		if err != nil {
			return err
		}
		defer unlock()
		u, err := b.Get(all[0].ID)
		if err != nil {
			return err
		}
		fmt.Println(u.Offset)
		_, err = b.Write(u.ID, u.Offset, os.Stdin)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func newInbox(t *testing.T) *Inbox {
	t.Helper()
	return &Inbox{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Free: func(string) (int64, error) { return 1 << 40, nil }}
}

// begun is an upload of so many bytes.
func begun(t *testing.T, b *Inbox, size int64) string {
	t.Helper()
	id, err := NewID()
	if err == nil {
		err = b.Create(Upload{ID: id, Owner: "ann", Size: size, Fields: map[string]string{"filename": "ü"}, Wish: []byte(`{"a":1}`)})
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestLife(t *testing.T) {
	b := newInbox(t)
	id := begun(t, b, 10)
	if n, err := b.Write(id, 0, strings.NewReader("12345")); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	u, err := b.Get(id)
	if err != nil || u.Offset != 5 || u.Whole() || u.Owner != "ann" || u.Fields["filename"] != "ü" || string(u.Wish) != `{"a":1}` || time.Until(b.Expires(u)) < 23*time.Hour {
		t.Fatalf("%+v, %v", u, err)
	}
	_, err = b.Write(id, 4, strings.NewReader("x"))
	wantCode(t, err, "wrong_offset")
	if n, err := b.Write(id, 5, io.MultiReader(strings.NewReader("678"), iotest.ErrReader(io.ErrUnexpectedEOF))); n != 3 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(n, err)
	}
	if _, err := b.Write(id, 8, strings.NewReader("90")); err != nil {
		t.Error(err)
	}
	f, err := b.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); string(got) != "1234567890" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if st, err := f.Stat(); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v: the decoder could not read it", st.Mode(), err)
	}
	if err := b.Settle(id, "the job"); err != nil {
		t.Fatal(err)
	}
	if u, err := b.Get(id); err != nil || u.Job != "the job" || !u.Whole() || u.Offset != 10 {
		t.Errorf("settled: %+v, %v", u, err)
	}
	if _, err := b.Open(id); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the recording is still here: %v", err)
	}
	if err := errors.Join(b.Settle(id, "the job"), b.Remove(id), b.Remove(id)); err != nil {
		t.Error("again:", err)
	}
	_, err = b.Get(id)
	wantCode(t, err, "unknown_upload")
}

// TestUnknown: an id becomes a file's name, and nothing else may.
func TestUnknown(t *testing.T) {
	b := newInbox(t)
	for _, id := range []string{"", ".", "..", ".lock", "../x", "0190B5A0-0000-7000-8000-000000000000", "0190b5a0-0000-7000-8000-000000000000"} {
		_, err := b.Get(id)
		wantCode(t, err, "unknown_upload")
	}
	for _, id := range []string{"..", ".lock"} {
		_, openErr := b.Open(id)
		wantCode(t, openErr, "unknown_upload")
		wantCode(t, b.Remove(id), "unknown_upload")
		wantCode(t, b.Create(Upload{ID: id}), "unknown_upload")
		wantCode(t, b.Settle(id, "j"), "unknown_upload")
	}
}

// TestKilled: the process that takes a recording is killed at twenty random
// moments; what comes out is what was sent.
func TestKilled(t *testing.T) {
	b := newInbox(t)
	sent := make([]byte, 8<<20)
	for i := range sent {
		sent[i] = byte(rand.IntN(256))
	}
	id := begun(t, b, int64(len(sent)))
	kills := 0
	for at := 0; at < len(sent); {
		cmd := exec.Command(os.Args[0], "-test.run", "^$")
		cmd.Env = append(os.Environ(), childVariable+"="+b.Dir)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The child reads nothing before it has the lock and has said where it is,
		// but the pipe takes 64 kB ahead: at is where it begins, all the same.
		more := len(sent) - at
		if kills < 20 {
			more = min(more, 1+rand.IntN(600_000))
		}
		in.Write(sent[at : at+more]) //nolint:errcheck // the child's exit tells
		if kills < 20 {
			kills++
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		in.Close()
		cmd.Wait() //nolint:errcheck // it was killed
		if s := strings.TrimSpace(said.String()); s != "" && s != fmt.Sprint(at) {
			t.Fatalf("the child began at %s, want %d", s, at)
		}
		u, err := b.Get(id)
		if err != nil || u.Offset < int64(at) || u.Offset > int64(at+more) {
			t.Fatalf("at %d after %d to %d, %v", u.Offset, at, at+more, err)
		}
		at = int(u.Offset)
	}
	got, err := os.ReadFile(b.data(id))
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes, the same: %t, %v", len(got), bytes.Equal(got, sent), err)
	}
}

// TestRoom: uploads that arrive keep the room for what is still to come.
func TestRoom(t *testing.T) {
	b := newInbox(t)
	free := int64(reserve + 1000)
	b.Free = func(string) (int64, error) { return free, nil }
	id := begun(t, b, 900)
	if _, err := b.Write(id, 0, strings.NewReader("12345")); err != nil {
		t.Fatal(err)
	}
	if err := b.Room(100); err != nil {
		t.Error(err)
	}
	wantCode(t, b.Room(106), "disk_full")
	hour := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(b.data(id), hour, hour); err != nil {
		t.Fatal(err)
	}
	if err := b.Room(1000); err != nil {
		t.Errorf("somebody who has left keeps room: %v", err)
	}
	free = reserve - 1
	_, err := b.Write(id, 5, strings.NewReader("6"))
	wantCode(t, err, "disk_full")
	b.Free = func(string) (int64, error) { return 0, errors.ErrUnsupported }
	if err := b.Room(1 << 50); err != nil {
		t.Errorf("what cannot be known refuses: %v", err)
	}
}

func TestWorded(t *testing.T) {
	wantCode(t, worded(&os.PathError{Op: "write", Err: syscall.ENOSPC}), "disk_full")
	wantCode(t, worded(&os.PathError{Op: "write", Err: syscall.EDQUOT}), "disk_full")
	if err := worded(io.ErrClosedPipe); !errors.Is(err, io.ErrClosedPipe) || worded(nil) != nil {
		t.Error(err)
	}
}

// TestDamaged: what cannot be read is an error and no empty upload, and does not
// hide the others.
func TestDamaged(t *testing.T) {
	b := newInbox(t)
	bad, good := begun(t, b, 10), begun(t, b, 10)
	if err := os.WriteFile(b.info(bad), []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if u, err := b.Get(bad); err == nil || fault.KindOf(err) == fault.NotFound {
		t.Errorf("%+v, %v", u, err)
	}
	all, err := b.List()
	if err != nil || len(all) != 1 || all[0].ID != good {
		t.Errorf("%+v, %v", all, err)
	}
	old := time.Now().Add(-25 * time.Hour)
	for _, path := range []string{b.info(bad), b.data(bad)} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Sweep(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(b.Dir, bad+"*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestSweepLeavesWhatIsLocked and what has been written to since.
func TestSweepLeavesWhatIsLocked(t *testing.T) {
	b := newInbox(t)
	b.Keep = func() time.Duration { return time.Nanosecond }
	id := begun(t, b, 10)
	unlock, ok := b.TryLock(id)
	if !ok {
		t.Fatal("not locked")
	}
	if err := b.Sweep(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(b.data(id)); err != nil {
		t.Error(err)
	}
	unlock()
	if err := b.Sweep(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(b.info(id)); err == nil {
		t.Error("it is still there")
	}
	b.Dir = filepath.Join(b.Dir, "none")
	_, listErr := b.List()
	for _, err := range []error{b.Sweep(), listErr, b.Room(1), b.Create(Upload{ID: id, Size: 1})} {
		if err == nil {
			t.Error("a directory that is not there is none")
		}
	}
	if _, ok := b.TryLock(id); ok {
		t.Error("locked without a directory")
	}
	if _, err := b.Lock(t.Context(), id, func() {}); err == nil {
		t.Error("locked without a directory")
	}
}

// TestLock: one at a time, in this process and beside it; who comes asks who has it.
func TestLock(t *testing.T) {
	b := newInbox(t)
	other := &Inbox{Dir: b.Dir, Log: b.Log} // as another process: its file is opened anew
	id := begun(t, b, 10)
	var wg sync.WaitGroup
	holders, asked := 0, 0
	var mu sync.Mutex
	for i := range 20 {
		in := []*Inbox{b, other}[i%2]
		wg.Go(func() {
			release := make(chan struct{}, 20)
			unlock, err := in.Lock(t.Context(), id, func() { release <- struct{}{} })
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if holders++; holders != 1 {
				t.Errorf("%d have it", holders)
			}
			mu.Unlock()
			select {
			case <-release:
				mu.Lock()
				asked++
				mu.Unlock()
			case <-time.After(5 * time.Millisecond):
			}
			mu.Lock()
			holders--
			mu.Unlock()
			unlock()
			unlock()
		})
	}
	wg.Wait()
	if asked == 0 {
		t.Error("nobody was asked to give it back")
	}
	unlock, ok := other.TryLock(id)
	if !ok {
		t.Fatal("it is still locked")
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 2*lockPoll)
	defer cancel()
	_, err := b.Lock(ctx, id, func() {})
	wantCode(t, err, "upload_busy")
	_, err = other.Lock(ctx, id, func() {})
	wantCode(t, err, "upload_busy")
	if _, ok := b.TryLock(id); ok {
		t.Error("both have it")
	}
	if another, ok := b.TryLock(begun(t, b, 1)); !ok {
		t.Error("another upload is locked, too")
	} else {
		another()
	}
}
