package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
)

// onDisk puts a directory of w on a small disk of its own, with what is in it.
func (w *world) onDisk(name, size string) string {
	w.t.Helper()
	dir := filepath.Join(w.home, name)
	kept := dir + ".kept"
	must(w.t, os.Rename(dir, kept))
	must(w.t, os.Mkdir(dir, 0o755))
	if err := unix.Mount("disk", dir, "tmpfs", 0, "mode=0755,size="+size); err != nil {
		w.t.Skip("a disk takes root:", err)
	}
	w.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			w.t.Error(err)
		}
	})
	must(w.t, copyAll(kept, dir))
	return dir
}

// copyAll is os.CopyFS with links.
func copyAll(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o755)
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, filepath.Join(to, rel))
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, info.Mode())
	})
}

// fill takes the last byte of a disk. free gives them back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for chunk := make([]byte, 64<<10); len(chunk) > 0; {
		if _, err = f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() { must(t, os.Remove(path)) }
}

func ballasted(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() == ballastBytes
}

// TestFullDisk: the ballast is what a state is written with, and it comes back.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	dir := w.onDisk("state", "24m")
	w.u.Slots.Room = 1
	must(t, w.u.takeBallast())
	free := fill(t, dir)
	st := w.state()
	st.Pinned = "1.0.0"
	must(t, w.u.save(st))
	if ballasted(w.u.ballasts()[1]) || w.state().Pinned != "1.0.0" {
		t.Error("the ballast stays, or nothing was written")
	}
	fill(t, dir)
	if err := w.u.save(st); err == nil {
		t.Error("a full disk was written on")
	} else {
		wantCode(t, err, "disk_full")
	}
	if w.state().Pinned != "1.0.0" {
		t.Error("the state before is lost")
	}
	w.refused(w.deploy("1.1.0"), "disk_full")
	w.stands(slot.A, slot.A, slot.A)
	free()
	w.onTrial("1.1.0")
	w.proves()
	for _, path := range w.u.ballasts() {
		if !ballasted(path) {
			t.Errorf("%s did not come back", path)
		}
	}
	w.idles()
}

// TestFullDiskInTrial: a commit waits for room, and a rollback needs none.
func TestFullDiskInTrial(t *testing.T) {
	for _, bad := range []bool{false, true} {
		w := newWorld(t)
		state, opt := w.onDisk("state", "24m"), w.onDisk("opt", "24m")
		w.u.Slots.Room = 1
		w.onTrial("1.1.0")
		frees := []func(){fill(t, state), fill(t, opt)}
		st := w.state()
		judge := trial.New(st.Baseline, rulesOf(w.set), st.Credit)
		s := good(1)
		if bad {
			s.Watchdog = 1
		}
		v := judge.Look(s)
		if !bad {
			v.Word = deployment.Good
		}
		_, err := w.u.act(t.Context(), w.state(), judge, v)
		if err == nil {
			t.Errorf("bad %v: all was written on a full disk", bad)
		}
		if current, _ := w.u.links(); bad && (current != slot.A || w.m.runs() != slot.A) {
			t.Errorf("current %s, runs %s", current, w.m.runs())
		}
		for _, free := range frees {
			free()
		}
		if bad {
			_, err := w.u.Recover(t.Context(), false)
			must(t, err)
			w.stands(slot.A, slot.A, slot.A)
		} else {
			w.proves()
			w.stands(slot.B, slot.B, slot.B)
		}
		w.idles()
		w.last(1)
	}
}

// TestFullDiskBeforeTheSwitch: where somebody fills a disk in the midst of an
// update the link does not move, and the candidate is not to blame.
func TestFullDiskBeforeTheSwitch(t *testing.T) {
	for _, c := range []struct {
		disk, at string
		phase    deployment.Phase
	}{{"state", "rehearse", deployment.Arm}, {"opt", "start next-b", deployment.Overlap}} {
		w := newWorld(t)
		dir := w.onDisk(c.disk, "24m")
		w.u.Slots.Room = 1
		var free func()
		w.u.Site.Rehearse = func(context.Context, string, slot.Manifest) (trial.Finding, error) {
			if c.at == "rehearse" {
				free = fill(t, dir)
			}
			return trial.Finding{}, nil
		}
		w.m.after = func(verb, unit string) {
			if free == nil && strings.Contains(verb+" "+unit, "start") && unit != server {
				free = fill(t, dir)
			}
		}
		w.refused(w.deploy("1.1.0"), "disk_full")
		w.m.after = nil
		w.stands(slot.A, slot.A, slot.A)
		if r := w.last(1); r.At != c.phase || r.Blame != deployment.Environment || len(w.state().Banned) > 0 {
			t.Errorf("%s: at %s, blame %s, quarantined %+v", c.disk, r.At, r.Blame, w.state().Banned)
		}
		free()
		w.onTrial("1.1.0")
	}
}

// TestFullDiskAtTakeOver: it serves, and what could not be written down is found
// out by the next run.
func TestFullDiskAtTakeOver(t *testing.T) {
	w := newWorld(t)
	state := w.onDisk("state", "24m")
	var free func()
	w.m.after = func(verb, unit string) {
		if verb+unit == "restart"+server {
			free = fill(t, state)
		}
	}
	res, err := w.u.Apply(t.Context(), w.deploy("1.1.0"))
	wantCode(t, err, "disk_full")
	if res.Outcome != OnTrial || w.state().Step != armed {
		t.Errorf("%+v, step %s", res, w.state().Step)
	}
	w.stands(slot.B, slot.A, slot.B)
	free()
	w.m.after = nil
	_, err = w.u.Recover(t.Context(), false)
	must(t, err)
	w.proves()
	w.stands(slot.B, slot.B, slot.B)
	w.last(1)
}

// TestReadOnlyDisk: the slots cannot be changed, what serves serves, and the
// updater says why.
func TestReadOnlyDisk(t *testing.T) {
	w := newWorld(t)
	opt := w.onDisk("opt", "24m")
	w.u.Slots.Room = 1
	must(t, unix.Mount("", opt, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	w.refused(w.deploy("1.1.0"), "read_only")
	if _, err := w.u.Recover(t.Context(), true); err != nil {
		t.Error(err)
	}
	w.stands(slot.A, slot.A, slot.A)
	must(t, unix.Mount("", opt, "", unix.MS_REMOUNT, ""))
	w.onTrial("1.1.0")
	state := w.onDisk("state", "24m")
	must(t, unix.Mount("", state, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if _, err := w.u.Apply(t.Context(), w.deploy("1.2.0")); err == nil {
		t.Error("what cannot be written down was begun")
	}
	if s, err := w.u.Status(); err != nil || s.Current.Version != "1.1.0" {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestScrub heals what nobody runs, and tells of the rest.
func TestScrub(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version string // that the idle slot b holds, beside golden's 1.0.0
		offered bool
		spoil   string // slot
		healed  string
		alarm   bool
	}{
		{"nothing", "1.1.0", true, "", "", false},
		{"the idle slot, from the package", "1.0.0", false, slot.B, "the package's release", false},
		{"the idle slot, from its source", "1.1.0", true, slot.B, "its source", false},
		{"the idle slot, which nobody has", "1.1.0", false, slot.B, "", false},
		{"the slot that serves", "1.1.0", true, slot.A, "", true},
		{"golden", "1.1.0", true, slot.Golden, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tree(t, w.u.Slots.Path(slot.B), tt.version)
			if tt.offered {
				w.offers("1.1.0")
			}
			if tt.spoil != "" {
				spoil(t, filepath.Join(w.u.Slots.Path(tt.spoil), slot.EnginePath))
			}
			list, err := w.u.Scrub(t.Context(), nil)
			must(t, err)
			for _, s := range list {
				if damaged := s.Slot == tt.spoil; damaged != (s.Problem != "") || damaged && s.Healed != tt.healed {
					t.Errorf("%+v", s)
				}
			}
			if alarm := w.state().Alarm; (alarm != nil) != tt.alarm {
				t.Errorf("alarm %+v", alarm)
			}
			w.stands(slot.A, slot.A, slot.A)
			if tt.healed != "" {
				must(t, w.u.whole(t.Context(), slot.B, false))
			}
			if _, err := slot.Read(w.u.Slots.Path(slot.B)); tt.name == "the idle slot, which nobody has" && err == nil {
				t.Error("what is damaged is still a way back")
			}
			if tt.alarm { // made whole again
				must(t, os.RemoveAll(w.u.Slots.Path(slot.A)))
				tree(t, w.u.Slots.Path(slot.A), "1.0.0")
				must(t, os.RemoveAll(w.u.Slots.Golden))
				tree(t, w.u.Slots.Golden, "1.0.0")
				if _, err := w.u.Scrub(t.Context(), nil); err != nil || w.state().Alarm != nil {
					t.Errorf("%v, alarm %+v", err, w.state().Alarm)
				}
			}
			w.tidy()
		})
	}
}
