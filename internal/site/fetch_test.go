package site

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/fetch"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/update"
)

const target = "whisper-appliance_1.1.0_amd64.tar.zst"

// leave writes a result as the fetcher does.
func leave(t *testing.T, m *Machine, r fetch.Result) {
	t.Helper()
	data, err := json.Marshal(r)
	if err == nil {
		err = errors.Join(os.MkdirAll(m.Paths.Fetched, 0o755), durable.WriteFile(filepath.Join(m.Paths.Fetched, resultFile), data, 0o644))
	}
	if err != nil {
		t.Error(err)
	}
}

func TestFetch(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	failed := errors.New("the unit failed")
	bad := func(code, message, hint string) *fetch.Failure {
		return &fetch.Failure{Code: code, Message: message, Hint: hint}
	}
	for _, tt := range []struct {
		name          string
		before, after *fetch.Result
		unit          error
		code          string
		kind          fault.Kind
		says          string
	}{
		{name: "done", after: &fetch.Result{Target: target, At: now}},
		{name: "done, by a clock that was set back", before: &fetch.Result{Target: target, At: now, Error: bad("interrupted", "x", "y")}, after: &fetch.Result{Target: target, At: now.AddDate(-10, 0, 0)}},
		{name: "done, whatever the unit says", after: &fetch.Result{Target: target, At: now}, unit: failed},
		{name: "an old success", before: &fetch.Result{Target: target, At: now.AddDate(10, 0, 0)}, unit: failed, code: "fetcher_failed", kind: fault.Unavailable, says: "the unit failed"},
		{name: "no new result", before: &fetch.Result{Target: target, At: now}, code: "fetcher_failed", kind: fault.Unavailable, says: "no new result"},
		{name: "no result at all", unit: failed, code: "fetcher_failed", kind: fault.Unavailable},
		{name: "of another order", after: &fetch.Result{Target: "other", At: now}, code: "fetcher_failed", kind: fault.Unavailable, says: "another order"},
		{name: "disk full", after: &fetch.Result{Target: target, At: now, Error: bad("disk_full", "7 bytes are missing", "free some")}, unit: failed, code: "disk_full", kind: fault.NoSpace, says: "7 bytes"},
		{name: "wrong signature", after: &fetch.Result{Target: target, At: now, Error: bad("bad_signature", "x", "y")}, unit: failed, code: "bad_signature", kind: fault.BadInput},
		{name: "no line", after: &fetch.Result{Target: target, At: now, Error: bad("source_unreachable", "x", "y")}, unit: failed, code: "source_unreachable", kind: fault.Unavailable},
		{name: "told to stop", after: &fetch.Result{Target: target, At: now, Error: bad("canceled", "x", "y")}, unit: failed, code: "canceled", kind: fault.Canceled},
		{name: "a code that decides over releases", after: &fetch.Result{Target: target, At: now, Error: bad("bad_archive", "it\x1b[2J is\nbad"+strings.Repeat("é", 400), "do")}, code: "fetcher_failed", kind: fault.Unavailable, says: "it [2J is; bad"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &fakeBus{}
			m := newMachine(t, b)
			if tt.before != nil {
				leave(t, m, *tt.before)
			}
			b.start = func(context.Context, string) error {
				if tt.after != nil {
					leave(t, m, *tt.after)
				}
				return tt.unit
			}
			order := update.Order{Sources: []string{"https://a.example/r"}, Target: target, Rate: 7}
			err := m.fetch(t.Context(), order, nil)
			wantCode(t, tt.name, err, tt.code)
			if fault.KindOf(err) != tt.kind && err != nil || err != nil && !strings.Contains(err.Error(), tt.says) || len(errWords(err)) > 1000 {
				t.Errorf("kind %d, %v", fault.KindOf(err), err)
			}
			var r fetch.Request
			data, rerr := os.ReadFile(m.Paths.Order())
			if rerr != nil || json.Unmarshal(data, &r) != nil || !slices.Equal(r.Sources, order.Sources) || r.Target != target || r.Most != 7 {
				t.Errorf("request %s, %v", data, rerr)
			}
			if got := b.notes(); got != "stop "+systemd.Fetch+", start "+systemd.Fetch {
				t.Errorf("it did: %s", got)
			}
		})
	}
}

func errWords(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestKnownCodes: what a fetch can end with comes back as it was.
func TestKnownCodes(t *testing.T) {
	for code, kind := range kinds() {
		err := said(fetch.Failure{Code: code, Message: "m", Hint: "h"})
		wantCode(t, code, err, code)
		if fault.KindOf(err) != kind {
			t.Errorf("%s: kind %d", code, fault.KindOf(err))
		}
	}
}

// TestResultOfAStranger: the fetcher's directory is not ours.
func TestResultOfAStranger(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink(os.DevNull, path) },
		"link to a result": func(path string) error {
			return errors.Join(os.WriteFile(path+".other", []byte(`{"target":"`+target+`"}`), 0o600), os.Symlink(path+".other", path))
		},
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"too long":  func(path string) error { return os.WriteFile(path, []byte(strings.Repeat(" ", mostResult+1)), 0o644) },
		"no JSON":   func(path string) error { return os.WriteFile(path, []byte("{"), 0o644) },
	} {
		b := &fakeBus{}
		m := newMachine(t, b)
		b.start = func(context.Context, string) error {
			return errors.Join(os.MkdirAll(m.Paths.Fetched, 0o755), put(filepath.Join(m.Paths.Fetched, resultFile)))
		}
		wantCode(t, name, m.fetch(t.Context(), update.Order{Target: target}, nil), "fetcher_failed")
	}
}

// TestFetchIsFollowed, by the file that grows and no other, and can be stopped.
func TestFetchIsFollowed(t *testing.T) {
	b := &fakeBus{}
	m := newMachine(t, b)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	file := strings.Repeat("a", 64) + "." + target
	part := filepath.Join(m.Paths.Fetched, "repository", "targets", file+".part")
	b.start = func(ctx context.Context, _ string) error {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) < 6*time.Hour {
			t.Errorf("a download has until %v", deadline)
		}
		put(t, part, "12345")
		put(t, part+".json", strings.Repeat(" ", 100))
		put(t, filepath.Join(filepath.Dir(part), strings.Repeat("b", 64)+"."+target), strings.Repeat(" ", 100))
		<-ctx.Done()
		return ctx.Err()
	}
	var mu sync.Mutex
	var told []int64
	err := m.fetch(ctx, update.Order{Target: target, File: file}, func(done int64) {
		mu.Lock()
		defer mu.Unlock()
		if told = append(told, done); len(told) == 1 {
			put(t, part, "1234567")
		} else {
			cancel(why)
		}
	})
	if !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(told, []int64{5, 7}) {
		t.Errorf("told %v", told)
	}
	if got := b.notes(); !strings.HasSuffix(got, "start "+systemd.Fetch+", stop "+systemd.Fetch) {
		t.Errorf("it did: %s", got)
	}
}

// TestOrderTellsNoSecrets: a password goes to the fetcher's group, or nowhere.
func TestOrderTellsNoSecrets(t *testing.T) {
	for _, source := range []string{"https://user:secret@a.example/r", "https://token@a.example/r"} {
		b := &fakeBus{}
		m := newMachine(t, b)
		order := update.Order{Sources: []string{source}}
		err := m.fetch(t.Context(), order, nil)
		wantCode(t, source, err, "open_order")
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "token")) {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(m.Paths.Order()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the order was written: %v", err)
		}
		if err := os.Chmod(filepath.Dir(m.Paths.Order()), 0o750|os.ModeSetgid); err != nil {
			t.Fatal(err)
		}
		wantCode(t, source, m.fetch(t.Context(), order, nil), "fetcher_failed") // it was asked
		if info, err := os.Stat(m.Paths.Order()); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("the order is %v, %v", info, err)
		}
	}
}

// TestMetadataAreNotWaitedForLong, for the lock is held meanwhile.
func TestMetadataAreNotWaitedForLong(t *testing.T) {
	b := &fakeBus{}
	m := newMachine(t, b)
	b.start = func(ctx context.Context, _ string) error {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 3*time.Minute || time.Until(deadline) < fetch.MetadataLimit {
			t.Errorf("metadata have until %v", deadline)
		}
		return errors.New("it takes its time")
	}
	wantCode(t, "metadata", m.fetch(t.Context(), update.Order{Sources: []string{"https://a.example/r"}}, nil), "fetcher_failed")
}

// TestFetcherThatStays: whoever does not let go of an old order gets no new one.
func TestFetcherThatStays(t *testing.T) {
	b := &fakeBus{stop: func(string) error { return fault.New(fault.Unavailable, "job_failed", "it stays").Try("kill it") }}
	m := newMachine(t, b)
	wantCode(t, "fetch", m.fetch(t.Context(), update.Order{}, nil), "job_failed")
	if _, err := os.Stat(m.Paths.Order()); err == nil {
		t.Error("it has an order")
	}
}
