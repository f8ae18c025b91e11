package model

import (
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

func TestMemory(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64 // -1: not known
	}{
		"nothing": {nil, -1},
		"kernel alone": {map[string]string{
			"proc/meminfo": "MemTotal: 8000 kB\nMemAvailable:    4000 kB\n",
		}, 4000 << 10},
		"group without a limit": {map[string]string{
			"proc/meminfo": "MemAvailable: 4000 kB\n", "proc/self/cgroup": "0::/a\n",
			"cg/a/memory.max": "max\n", "cg/a/memory.current": "5\n",
		}, 4000 << 10},
		"limit of the group": {map[string]string{
			"proc/meminfo": "MemAvailable: 4000 kB\n", "proc/self/cgroup": "1:name=systemd:/x\n0::/a/b\n",
			"cg/a/b/memory.max": "1000000\n", "cg/a/b/memory.current": "400000\n",
		}, 600_000},
		"limit above the group": {map[string]string{
			"proc/meminfo": "MemAvailable: 4000 kB\n", "proc/self/cgroup": "0::/a/b\n",
			"cg/a/memory.max": "500000\n", "cg/a/memory.current": "600000\n",
		}, 0},
		"limit of the container": {map[string]string{
			"proc/meminfo": "MemAvailable: 4000 kB\n", "proc/self/cgroup": "0::/\n",
			"cg/memory.max": "7000\n", "cg/memory.current": "0\n",
		}, 7000},
		"old hierarchy": {map[string]string{
			"proc/meminfo": "MemAvailable: 4000 kB\n", "proc/self/cgroup": "4:memory:/x\n",
		}, 4000 << 10},
		"unreadable": {map[string]string{"proc/meminfo": "MemAvailable: many kB\n"}, -1},
	} {
		dir := t.TempDir()
		for file, data := range c.files {
			write(t, filepath.Join(dir, file), []byte(data))
		}
		s := &Store{Dir: dir, Proc: filepath.Join(dir, "proc"), Cgroup: filepath.Join(dir, "cg")}
		got, ok := s.MemoryAvailable()
		if ok != (c.want >= 0) || ok && got != c.want {
			t.Errorf("%s: %d, %v and has to be %d", name, got, ok, c.want)
		}
	}
}

func TestMemoryWarning(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "meminfo"), []byte("MemAvailable: 1000000 kB\n"))
	s := &Store{Proc: dir}
	if w := s.memoryWarning("tiny", 200e6); w != "" {
		t.Error(w)
	}
	if w := s.memoryWarning("large-v3", 3.6e9); !strings.Contains(w, "large-v3 needs about 3.35 GiB") || !strings.Contains(w, "977 MiB") {
		t.Error(w)
	}
	if w := (&Store{}).memoryWarning("large-v3", 3.6e9); w != "" {
		t.Error("a warning where nothing is known: ", w)
	}
}

func TestDisk(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	if err := s.checkDisk(1); err != nil {
		t.Skip("this disk is full: ", err)
	}
	wantFault(t, s.checkDisk(1<<60), fault.NoSpace, "disk_full")
	wantFault(t, s.cannotWrite(&fs.PathError{Err: syscall.ENOSPC}), fault.NoSpace, "disk_full")
	wantFault(t, s.cannotWrite(&fs.PathError{Err: syscall.EACCES}), fault.Forbidden, "models_not_writable")
	wantFault(t, s.cannotWrite(&fs.PathError{Err: syscall.EROFS}), fault.Forbidden, "models_not_writable")
}

func TestMeter(t *testing.T) {
	var seen []Progress
	now := time.Unix(1000, 0)
	m := newMeter(func(p Progress) { seen = append(seen, p) })
	m.now = func() time.Time { return now }
	m.phase(Downloading, 500, 2500)
	for range 100 { // 1000 bytes in a second, in steps too small to be shown
		now = now.Add(10 * time.Millisecond)
		m.add(10)
	}
	if len(seen) < 4 || len(seen) > 6 {
		t.Errorf("%d reports of a second", len(seen))
	}
	last := seen[len(seen)-1]
	if last.Bytes != 1500 || !closeTo(last.Rate, 1000, 1) || !closeTo(last.Left.Seconds(), 1, 0.01) {
		t.Errorf("%+v", last)
	}
	now = now.Add(time.Second) // nothing came for a second: the rate sinks, and not to nothing
	m.add(0)
	if p := seen[len(seen)-1]; p.Rate >= 900 || p.Rate <= 300 || p.Left <= last.Left {
		t.Errorf("%+v", p)
	}
}
