//go:build e2e && faults

package matrix

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// held is what one place or process holds at a moment.
type held struct {
	files, bytes int64 // below a directory; not those of the record
	fds          int   // of the process
	pss          int64 // of the process, bytes
}

// TestSoak makes updates and rollbacks in a row, in one process as the daemon
// is one: each comes to what it should, and nothing grows. SOAK says how many;
// each second is a rollback.
func TestSoak(t *testing.T) {
	n := 3
	if s, err := strconv.Atoi(os.Getenv("SOAK")); err == nil && s > 0 {
		n = s
	}
	w := newWorld(t)
	w.fresh()
	d := w.daemon()
	end := w.load()
	began := time.Now()
	var seen []held
	var took []time.Duration
	for i := range n {
		job, want := "update "+next, next
		if i%2 == 1 {
			job, want = "rollback", first
		}
		start := time.Now()
		if answer := d.do(job); answer != "ok" {
			t.Fatalf("%d: %s: %s", i, job, answer)
		}
		took = append(took, time.Since(start))
		w.stands(want)
		if i%2 == 1 || n < 8 {
			seen = append(seen, w.held(d.cmd.Process.Pid))
		}
		if t.Failed() {
			t.Fatalf("after %d", i+1)
		}
	}
	tally := end()
	w.unharmed(tally, "")
	t.Logf("%d updates and rollbacks in %v, the slowest %v; %v", n, time.Since(began).Round(time.Second), slices.Max(took).Round(time.Millisecond), tally)
	noteLine("soak\t%d\t%v", n, tally)
	if len(seen) < 8 {
		return
	}
	// The first ones fill caches, and the record grows to its bound.
	early, late := seen[len(seen)/4], seen[len(seen)-1]
	t.Logf("early %+v\nlate %+v", early, late)
	noteLine("grown\t%d files\t%d bytes\t%d descriptors\t%d bytes of memory", late.files-early.files, late.bytes-early.bytes, late.fds-early.fds, late.pss-early.pss)
	if late.files > early.files || late.bytes > early.bytes+64<<10 {
		t.Errorf("the disks hold %d files, %d bytes; %d, %d before", late.files, late.bytes, early.files, early.bytes)
	}
	if late.fds > early.fds+2 {
		t.Errorf("%d descriptors are open, %d before", late.fds, early.fds)
	}
	if late.pss > early.pss+early.pss/4+4<<20 {
		t.Errorf("%d bytes of memory, %d before", late.pss, early.pss)
	}
}

// held measures.
func (w *world) held(pid int) (h held) {
	w.Helper()
	for _, dir := range []string{w.Home, w.State} {
		must(w, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || e.Name() == "deployments.jsonl" {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			h.files++
			h.bytes += st.Blocks * 512
			return nil
		}))
	}
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	must(w, err)
	h.fds = len(fds)
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	must(w, err)
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "Pss:" {
			kib, err := strconv.ParseInt(words[1], 10, 64)
			must(w, err)
			h.pss = kib << 10
		}
	}
	return h
}

// daemon is an updater that does one job after the other.
type daemon struct {
	w   *world
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func (w *world) daemon() *daemon {
	w.Helper()
	d := &daemon{w: w, cmd: exec.Command(os.Args[0])}
	d.cmd.Env = w.env("daemon")
	in, err := d.cmd.StdinPipe()
	must(w, err)
	out, err := d.cmd.StdoutPipe()
	must(w, err, d.cmd.Start())
	d.in, d.out = in, bufio.NewScanner(out)
	w.Cleanup(func() {
		in.Close()           //nolint:errcheck // it ends the daemon
		d.cmd.Process.Kill() //nolint:errcheck // it may have ended
		d.cmd.Wait()         //nolint:errcheck // it was killed
	})
	return d
}

// do is a job to its end; "ok" or what went wrong.
func (d *daemon) do(job string) string {
	d.w.Helper()
	if _, err := fmt.Fprintln(d.in, job); err != nil {
		return err.Error()
	}
	for d.out.Scan() {
		if answer, ok := strings.CutPrefix(d.out.Text(), "done "); ok {
			return answer
		}
	}
	return "it has ended"
}

// daemon reads jobs, a line each, until its input ends.
func (p place) daemon(work func(words []string) error) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer := "ok"
		if err := work(strings.Fields(lines.Text())); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Println("done", answer)
	}
	return lines.Err()
}
