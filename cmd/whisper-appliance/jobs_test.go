package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/paths"
)

// TestJobs is a job's life, as somebody sees it who types.
func TestJobs(t *testing.T) {
	newJobsRig(t, nil)
	file := put(t, filepath.Join(t.TempDir(), "talk.wav"), "sound", 0o600)
	code, out, errOut := command(t.Context(), "jobs", "add", "--language", "en", "--priority", "background", file)
	id := strings.TrimSpace(out)
	if code != exitOK || len(id) != wholeID {
		t.Fatalf("exit code %d, %q %q", code, out, errOut)
	}
	end := shortID(id)
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"jobs wait " + end, exitOK, []string{id, "done"}},
		{"jobs wait " + id + " " + id, exitOK, []string{id, "done"}},
		{"jobs list", exitOK, []string{"ID ", "STATE", end, "done", "100 %", "took 0:00", "talk.wav"}},
		{"jobs list --state failed", exitOK, []string{"There are no such jobs", "--all"}},
		{"jobs list --state odd", exitData, []string{"state"}},
		{"jobs list --limit 0", exitUsage, []string{"--limit"}},
		{"jobs list --all", exitNoPerm, []string{"admin"}},
		{"jobs show " + end, exitOK, []string{"id ", id, "done, 100 %", "priority", "background", "language", "Hello there."}},
		{"jobs text " + end, exitOK, []string{"Hello there.\n"}},
		{"jobs text --format srt " + end, exitOK, []string{"00:00:00,000 --> 00:00:02,000\nHello there."}},
		{"jobs text --format odd " + end, exitData, []string{"--format", "odd"}[1:]},
		{"jobs cancel " + end, exitBusy, []string{"done already"}},
		{"jobs retry " + end, exitBusy, []string{"is done"}},
		{"jobs show abc", exitData, []string{"too short"}},
		{"jobs show 0000000000", exitNoInput, []string{"no job of yours", "jobs list"}},
		{"jobs show " + strings.Repeat("0", wholeID), exitNoInput, []string{"no job"}},
		{"jobs rm " + end, exitOK, []string{id, "removed"}},
		{"jobs wait " + id, exitNoInput, []string{"no job"}},
	} {
		code, out, errOut := command(t.Context(), strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", c.args, code, c.code, out, errOut)
		}
		for _, says := range c.says {
			if !strings.Contains(out+errOut, says) {
				t.Errorf("%s does not say %q:\n%s%s", c.args, says, out, errOut)
			}
		}
	}
}

// TestJobsJSON: with --json every command prints one document.
func TestJobsJSON(t *testing.T) {
	newJobsRig(t, nil)
	file := put(t, filepath.Join(t.TempDir(), "talk.wav"), "sound", 0o600)
	var added []api.Job
	document(t, &added, "jobs", "add", "--json", file)
	document(t, &added, "jobs", "wait", "--json", added[0].ID)
	if len(added) != 1 || added[0].State != "done" {
		t.Fatalf("%+v", added)
	}
	var details []api.JobDetail
	if document(t, &details, "jobs", "add", "--json", "--wait", file, file); len(details) != 2 || details[1].Text != "Hello there." {
		t.Errorf("%+v", details)
	}
	var one api.JobDetail
	if document(t, &one, "jobs", "show", "--json", added[0].ID); one.Text != "Hello there." {
		t.Errorf("%+v", one)
	}
	var all []api.Job
	if document(t, &all, "jobs", "list", "--json", "--limit", "2"); len(all) != 2 {
		t.Errorf("%+v", all)
	}
	if document(t, &all, "jobs", "rm", "--json", all[0].ID, all[1].ID); len(all) != 2 || all[0].State != "removed" {
		t.Errorf("%+v", all)
	}
	if document(t, &all, "jobs", "list", "--json"); len(all) != 1 {
		t.Errorf("%+v", all)
	}
}

// document runs a command that prints one.
func document(t *testing.T, out any, args ...string) {
	t.Helper()
	code, said, errOut := command(t.Context(), args...)
	if err := json.Unmarshal([]byte(said), out); code != exitOK || err != nil {
		t.Fatalf("%v: exit code %d, %v\n%s%s", args, code, err, said, errOut)
	}
}

// TestJobsAddAndWait: the text is that of transcribe, byte for byte.
func TestJobsAddAndWait(t *testing.T) {
	newJobsRig(t, nil)
	dir := t.TempDir()
	a, b := put(t, filepath.Join(dir, "a.wav"), "sound", 0o600), put(t, filepath.Join(dir, "b.wav"), "sound", 0o600)
	for _, args := range []string{a, a + " " + b, "--format verbose_json " + a, "--format words " + a, "--format srt " + a + " " + b} {
		_, want, _ := command(t.Context(), append([]string{"transcribe"}, strings.Fields(args)...)...)
		for _, how := range []string{"--resumable", "--resumable=false"} {
			code, got, errOut := command(t.Context(), append([]string{"jobs", "add", "--wait", how}, strings.Fields(args)...)...)
			if code != exitOK || got != want || want == "" {
				t.Errorf("%s %s: exit code %d, %q, want %q\n%s", how, args, code, got, want, errOut)
			}
		}
	}
	to := filepath.Join(dir, "texts")
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := command(t.Context(), "jobs", "add", "--wait", "--format", "srt", "--output", to, a, b); code != exitOK {
		t.Errorf("exit code %d %s", code, errOut)
	}
	for _, name := range []string{"a.srt", "b.srt"} {
		if text, err := os.ReadFile(filepath.Join(to, name)); err != nil || !strings.Contains(string(text), "Hello there.") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for args, want := range map[string]int{
		"--wait --format srt --output " + to + " " + a: exitBusy, // it is there
		"--output " + to + " " + a:                     exitUsage,
		"--idempotency-key k " + a + " " + b:           exitUsage,
		"--format odd " + a:                            exitData,
		"--priority high " + a:                         exitData,
		"--resumable --priority high " + a:             exitData,
		"--deadline never " + a:                        exitData,
		filepath.Join(dir, "none"):                     exitNoInput,
		"--resumable " + filepath.Join(dir, "none"):    exitNoInput,
		"--resumable " + dir:                           exitData,
		dir:                                            exitData,
	} {
		if code, out, errOut := command(t.Context(), append([]string{"jobs", "add"}, strings.Fields(args)...)...); code != want {
			t.Errorf("%s: exit code %d, want %d\n%s%s", args, code, want, out, errOut)
		}
	}
	var same []string
	for range 2 {
		_, out, _ := command(t.Context(), "jobs", "add", "--idempotency-key", "k", a)
		same = append(same, out)
	}
	_, out, _ := command(t.Context(), "jobs", "add", "--idempotency-key", "k", "--resumable", a)
	if same = slices.Compact(append(same, out)); len(same) != 1 {
		t.Errorf("one key, jobs %q", same)
	}
}

// TestJobsOutcome: the exit code says what came of a job.
func TestJobsOutcome(t *testing.T) {
	reached, hold := make(chan bool, 9), make(chan bool)
	newJobsRig(t, func(ctx context.Context) error {
		reached <- true
		select {
		case <-hold:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	dir := t.TempDir()
	bad, good := put(t, filepath.Join(dir, "bad.wav"), "bad", 0o600), put(t, filepath.Join(dir, "good.wav"), "sound", 0o600)
	if code, _, errOut := command(t.Context(), "jobs", "add", "--wait", bad); code != exitError || !strings.Contains(errOut, "not sound") {
		t.Errorf("failed: exit code %d, %s", code, errOut)
	}
	_, out, _ := command(t.Context(), "jobs", "add", good)
	id := strings.TrimSpace(out)
	<-reached
	ended := make(chan int)
	go func() {
		code, _, _ := command(t.Context(), "jobs", "wait", id)
		ended <- code
	}()
	if code, out, _ := command(t.Context(), "jobs", "cancel", id); code != exitOK || !strings.Contains(out, "cancel") {
		t.Errorf("cancel: exit code %d, %s", code, out)
	}
	if code := <-ended; code != exitCanceled {
		t.Errorf("cancelled: exit code %d", code)
	}
	if code, out, _ := command(t.Context(), "jobs", "retry", id); code != exitOK || !strings.Contains(out, "queued") {
		t.Errorf("retry: exit code %d, %s", code, out)
	}
	<-reached
	if code, out, errOut := command(t.Context(), "jobs", "rm", id); code != exitOK || !strings.Contains(out, "removed") {
		t.Errorf("rm of one that runs: exit code %d, %s%s", code, out, errOut)
	}
	close(hold)
}

// TestJobsWaitInterrupted: who stops waiting does not stop the job, and learns it.
func TestJobsWaitInterrupted(t *testing.T) {
	reached, hold := make(chan bool, 9), make(chan bool)
	r := newJobsRig(t, func(context.Context) error { reached <- true; <-hold; return nil })
	following := make(chan bool, 9)
	r.between = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, "/events") {
				following <- true
			}
			next.ServeHTTP(w, req)
		})
	}
	r.down()
	r.up(t)
	file := put(t, filepath.Join(t.TempDir(), "talk.wav"), "sound", 0o600)
	ctx, interrupt := context.WithCancel(t.Context())
	var errOut said
	ended := make(chan int)
	go func() { ended <- run(ctx, []string{"jobs", "add", "--wait", file}, &said{}, &errOut) }()
	<-reached
	<-following // it knows its job
	interrupt()
	if code := <-ended; code != exitCanceled {
		t.Errorf("exit code %d", code)
	}
	all, err := r.desk.Store.List(t.Context(), job.Filter{Everyone: true})
	if err != nil || len(all) != 1 || all[0].State != job.Running || !strings.Contains(errOut.String(), "The job goes on. To wait for it again: whisper-appliance jobs wait "+all[0].ID) {
		t.Errorf("%+v, %v\n%s", all, err, errOut.String())
	}
	close(hold)
	if code, out, errOut := command(t.Context(), "jobs", "wait", all[0].ID); code != exitOK || !strings.Contains(out, "done") {
		t.Errorf("again: exit code %d, %s%s", code, out, errOut)
	}
}

// TestJobsWaitOverRestart: the server goes away while somebody waits, and comes back.
func TestJobsWaitOverRestart(t *testing.T) {
	reached, hold := make(chan bool, 9), make(chan bool)
	r := newJobsRig(t, func(context.Context) error { reached <- true; <-hold; return nil })
	file := put(t, filepath.Join(t.TempDir(), "talk.wav"), "sound", 0o600)
	var out, errOut said
	ended := make(chan int)
	go func() { ended <- run(t.Context(), []string{"jobs", "add", "--wait", file}, &out, &errOut) }()
	<-reached
	r.down()
	close(hold)
	r.up(t)
	if code := <-ended; code != exitOK || out.String() != "Hello there.\n" {
		t.Errorf("exit code %d, %q %s", code, out.String(), errOut.String())
	}
}

// breaking breaks the connection of the first pieces off after so many bytes each.
func breaking(times int, after int64, received *atomic.Int64) func(http.Handler) http.Handler {
	var broken atomic.Int32
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPatch {
				next.ServeHTTP(w, r)
				return
			}
			body := &counted{ReadCloser: r.Body, all: received}
			r.Body = body
			if int(broken.Add(1)) <= times {
				body.most = after
			}
			next.ServeHTTP(w, r)
			if body.cut {
				panic(http.ErrAbortHandler)
			}
		})
	}
}

// counted is a body of which at most most bytes come; 0 = all.
type counted struct {
	io.ReadCloser
	all  *atomic.Int64
	n    int64
	most int64
	cut  bool
}

func (c *counted) Read(b []byte) (int, error) {
	if c.most > 0 && c.n >= c.most {
		c.cut = true
		return 0, errors.New("the connection broke")
	}
	if c.most > 0 {
		b = b[:min(int64(len(b)), c.most-c.n)]
	}
	n, err := c.ReadCloser.Read(b)
	c.n += int64(n)
	c.all.Add(int64(n))
	return n, err
}

// stalled is a body that stops after so many bytes, until it is let go on.
type stalled struct {
	io.ReadCloser
	left int64
	told chan bool
}

func (s *stalled) Read(b []byte) (int, error) {
	if s.left <= 0 {
		select {
		case s.told <- true:
		default:
		}
		<-s.told
		return s.ReadCloser.Read(b)
	}
	n, err := s.ReadCloser.Read(b[:min(int64(len(b)), s.left)])
	s.left -= int64(n)
	return n, err
}

// TestJobsResumable: a recording is sent on where the connection broke.
func TestJobsResumable(t *testing.T) {
	r := newJobsRig(t, nil)
	var received atomic.Int64
	r.down()
	r.between = breaking(3, 200_000, &received)
	r.up(t)
	content := strings.Repeat("0123456789", 100_000)
	file := put(t, filepath.Join(t.TempDir(), "long.wav"), content, 0o600)
	code, out, errOut := command(t.Context(), "jobs", "add", "--wait", "--resumable", file)
	if code != exitOK || out != "Hello there.\n" {
		t.Fatalf("exit code %d, %q %s", code, out, errOut)
	}
	all, err := r.desk.Store.List(t.Context(), job.Filter{Everyone: true})
	if err != nil || len(all) != 1 || all[0].Bytes != int64(len(content)) || received.Load() != int64(len(content)) {
		t.Errorf("%+v, %v; %d bytes were sent", all, err, received.Load())
	}
	if notes, err := filepath.Glob(filepath.Join(os.Getenv("CACHE_DIRECTORY"), "uploads", "*")); err != nil || len(notes) > 0 {
		t.Errorf("left behind: %v, %v", notes, err)
	}
}

// TestJobsResumedByTheSameCommand after an interrupt, and by no other.
func TestJobsResumedByTheSameCommand(t *testing.T) {
	r := newJobsRig(t, nil)
	var received atomic.Int64
	stall := make(chan bool)
	count := breaking(0, 0, &received)
	r.down()
	r.between = func(next http.Handler) http.Handler {
		first := true
		return count(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.Method == http.MethodPatch && first {
				first = false
				q.Body = &stalled{q.Body, 300_000, stall}
			}
			next.ServeHTTP(w, q)
		}))
	}
	r.up(t)
	content := strings.Repeat("0123456789", 100_000)
	file := put(t, filepath.Join(t.TempDir(), "long.wav"), content, 0o600)
	ctx, interrupt := context.WithCancel(t.Context())
	var errOut said
	ended := make(chan int)
	go func() { ended <- run(ctx, []string{"jobs", "add", "--resumable", file}, &said{}, &errOut) }()
	<-stall
	eventually(t, "the first bytes", func() bool {
		all, err := r.desk.Inbox.List()
		return err == nil && len(all) == 1 && all[0].Offset >= 300_000
	})
	interrupt()
	if code := <-ended; code != exitCanceled || !strings.Contains(errOut.String(), "The same command goes on.") {
		t.Errorf("exit code %d, %s", code, errOut.String())
	}
	close(stall)
	if code, out, errOut := command(t.Context(), "jobs", "add", "--resumable", file); code != exitOK || len(strings.TrimSpace(out)) != wholeID {
		t.Errorf("again: exit code %d, %q %s", code, out, errOut)
	}
	if got := received.Load(); got < int64(len(content)) || got > int64(len(content))+300_000 {
		t.Errorf("%d bytes were sent of %d: it began anew", got, len(content))
	}
	all, err := r.desk.Store.List(t.Context(), job.Filter{Everyone: true})
	if err != nil || len(all) != 1 {
		t.Errorf("jobs %+v, %v", all, err)
	}
}

// TestJobsUploadForgotten: an upload that the server has removed is begun anew.
func TestJobsUploadForgotten(t *testing.T) {
	newJobsRig(t, nil)
	file := put(t, filepath.Join(t.TempDir(), "a.wav"), "sound", 0o600)
	a := &app{environ: os.Environ(), paths: paths.Paths{Cache: os.Getenv("CACHE_DIRECTORY")}}
	c, err := a.server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	q := api.NewJob{Request: api.Request{Path: file}}
	note := a.uploadNote(c, q, st)
	for _, id := range []string{"0190b5a0-0000-7000-8000-000000000000", ""} {
		remember(note, begunUpload{ID: id})
		if _, err := a.sendPieces(t.Context(), c, q, api.Sending{Sent: func(int64, int64) {}}); err != nil {
			t.Error(err)
		}
	}
	remember(note, begunUpload{ID: "../jobs"})
	if _, err := a.sendPieces(t.Context(), c, q, api.Sending{Sent: func(int64, int64) {}}); err == nil {
		t.Error("an id that is none was used")
	}
	for name, other := range map[string]api.NewJob{"language": {Request: api.Request{Path: file, Language: "de"}}, "file": {Request: api.Request{Path: file + "2"}}} {
		if a.uploadNote(c, other, st) == note {
			t.Errorf("another %s goes on with the same upload", name)
		}
	}
	old := time.Now().Add(-2 * forgotten)
	if err := os.Chtimes(note, old, old); err != nil {
		t.Fatal(err)
	}
	if a.notesDir(); remembered(note) != "" {
		t.Error("an old note is kept")
	}
}

func TestJobOf(t *testing.T) {
	jobs := []api.Job{{ID: "0190b5a0-0000-7000-8000-00000000abcd"}, {ID: "0190b5a0-0000-7000-8000-11110000abcd"}, {ID: "0190b5a0-0000-7000-8000-000000001234"}}
	for end, want := range map[string]string{
		"1234": jobs[2].ID, "11110000abcd": jobs[1].ID, "11110000ABCD": jobs[1].ID,
		"abcd": "ambiguous_id", "234": "id_too_short", "0190b5a0": "unknown_job", "ffff": "unknown_job",
	} {
		got, err := jobOf(jobs, end)
		if err != nil {
			got = err.(*fault.Error).Code
		}
		if got != want {
			t.Errorf("%s: %s, want %s", end, got, want)
		}
	}
}

func TestPlaceOf(t *testing.T) {
	n, left, none := 3, 65.0, 0
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, j := range map[string]api.Job{
		"3 before it": {Ahead: &n}, "next": {Ahead: &none}, "1:05 left": {Left: &left}, "decoding": {Phase: "decoding"},
		"undecodable": {Error: &api.Error{Code: "undecodable"}}, "took 0:07": {Started: at, Ended: at.Add(7 * time.Second)}, "": {},
	} {
		if got := placeOf(j); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 59 * time.Second: "59 s", 61 * time.Second: "1 min", 47 * time.Hour: "47 h", 50 * time.Hour: "2 days"} {
		if got := age(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestJobsCompletion(t *testing.T) {
	r := newJobsRig(t, nil)
	file := put(t, filepath.Join(t.TempDir(), "talk.wav"), "sound", 0o600)
	_, out, _ := command(t.Context(), "jobs", "add", file)
	id := strings.TrimSpace(out)
	if code, _, errOut := command(t.Context(), "jobs", "wait", id); code != exitOK {
		t.Fatal(errOut)
	}
	for args, want := range map[string]string{
		"jobs text ":                   shortID(id) + "\tdone talk.wav",
		"jobs show ":                   shortID(id),
		"jobs rm ":                     shortID(id),
		"jobs retry ":                  "",
		"jobs wait ":                   "",
		"jobs show " + id + " ":        "",
		"jobs list --state ":           "queued",
		"jobs text --format ":          "verbose_json",
		"jobs add --priority ":         "background",
		"jobs add --task ":             "translate",
		"jobs add --language ":         "german",
		"jobs text --url http://[::1 ": "",
	} {
		code, out, _ := command(t.Context(), append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if code != exitOK || !strings.Contains(out, want) || want == "" && strings.Contains(out, shortID(id)) {
			t.Errorf("%s: exit code %d, offers %q; want %q", args, code, out, want)
		}
	}
	r.down()
	if code, out, _ := command(t.Context(), "__complete", "jobs", "show", ""); code != exitOK || strings.Contains(out, "\t") {
		t.Errorf("without a server: exit code %d, %q", code, out)
	}
}

// TestJobsWithoutServer says that there is none, for every command.
func TestJobsWithoutServer(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"STATE_DIRECTORY", "CONFIGURATION_DIRECTORY", "CACHE_DIRECTORY", "RUNTIME_DIRECTORY"} {
		t.Setenv(name, dir)
	}
	file := put(t, filepath.Join(dir, "talk.wav"), "sound", 0o600)
	for _, args := range []string{"add " + file, "list", "show abcd", "wait abcd", "text abcd", "cancel abcd", "retry abcd", "rm abcd"} {
		if code, _, errOut := command(t.Context(), append([]string{"jobs"}, strings.Fields(args)...)...); code != exitUnavailable || !strings.Contains(errOut, "no server runs") {
			t.Errorf("%s: exit code %d, %s", args, code, errOut)
		}
	}
}
