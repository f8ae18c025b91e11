package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

func put(t *testing.T, path, text string, perm os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), perm); err != nil {
		t.Fatal(err)
	}
	return path
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func TestTargets(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, tt := range []struct {
		output string
		files  []string
		want   []string // nil = refused
	}{
		{"", []string{"a.wav", "b.wav"}, []string{"", ""}},
		{"-", []string{"a.wav", "b.wav"}, []string{"", ""}},
		{in("x.srt"), []string{"a.wav"}, []string{in("x.srt")}},
		{in("x.srt"), []string{"a.wav", "b.wav"}, nil},
		{dir, []string{"p/a.wav", "q/b.mp3"}, []string{in("a.srt"), in("b.srt")}},
		{dir, []string{"p/a.wav", "q/a.wav"}, nil},
		{dir, []string{"a.wav", "b.wav", "a.mp3"}, nil},
		{dir + "/", []string{"a.wav", "a.wav"}, nil},
	} {
		got, err := order{output: tt.output}.targets(tt.files, transcript.SRT)
		if tt.want == nil {
			if !errors.As(err, new(usageError)) {
				t.Errorf("%q of %v: %v, %v", tt.output, tt.files, got, err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q of %v: %v, %v", tt.output, tt.files, got, err)
		}
	}
}

func TestRefuse(t *testing.T) {
	dir := t.TempDir()
	recording := put(t, filepath.Join(dir, "talk.txt"), "x", 0o600)
	there := put(t, filepath.Join(dir, "there.txt"), "x", 0o600)
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.Symlink("there.txt", link), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		target string
		force  bool
		code   string
	}{
		{"", false, ""},
		{filepath.Join(dir, "new.txt"), false, ""},
		{there, false, "file_exists"},
		{there, true, ""},
		{link, false, "file_exists"},
		{fifo, false, ""},
		{os.DevNull, false, ""},
		{recording, true, "file_is_recording"},
	} {
		err := order{force: tt.force}.refuse(recording, tt.target)
		f, _ := errors.AsType[*fault.Error](err)
		if (err != nil) != (tt.code != "") || err != nil && (f == nil || f.Code != tt.code) {
			t.Errorf("%s, force %v: %v, want %q", tt.target, tt.force, err, tt.code)
		}
	}
}

func TestWriteKeepsWhatTheTargetIs(t *testing.T) {
	dir := t.TempDir()
	real := put(t, filepath.Join(dir, "real"), "old", 0o600)
	link, dangling, made := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "made")
	if err := errors.Join(os.Symlink("real", link), os.Symlink(made, dangling)); err != nil {
		t.Fatal(err)
	}
	for target, file := range map[string]string{link: real, dangling: made, filepath.Join(dir, "plain"): filepath.Join(dir, "plain")} {
		if err := write(target, text("new")); err != nil {
			t.Errorf("%s: %v", target, err)
		}
		if data, err := os.ReadFile(file); err != nil || string(data) != "new" {
			t.Errorf("%s holds %q, %v", file, data, err)
		}
	}
	for _, l := range []string{link, dangling} {
		if st, err := os.Lstat(l); err != nil || st.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is no link any more: %v, %v", l, st.Mode(), err)
		}
	}
	if st, err := os.Stat(real); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the mode became %v, %v", st.Mode(), err)
	}
}

func TestWriteIntoPipesAndDevices(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		data, _ := os.ReadFile(fifo)
		got <- string(data)
	}()
	if err := write(fifo, text("through")); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "through" {
		t.Errorf("%q came through", s)
	}
	if err := write(os.DevNull, text("away")); err != nil {
		t.Error(err)
	}
	for path, kind := range map[string]os.FileMode{fifo: os.ModeNamedPipe, os.DevNull: os.ModeDevice} {
		if st, err := os.Lstat(path); err != nil || st.Mode()&kind == 0 {
			t.Errorf("%s is no %v any more: %v", path, kind, err)
		}
	}
}

func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	if err := errors.Join(os.Symlink(two, one), os.Symlink(one, two)); err != nil {
		t.Fatal(err)
	}
	if err := write(one, text("x")); fault.KindOf(err) != fault.BadInput || !strings.Contains(err.Error(), "too many links") {
		t.Errorf("a loop: %v", err)
	}
	if err := write(filepath.Join(dir, "none", "x"), text("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := write(dir, text("x")); fault.KindOf(err) != fault.BadInput {
		t.Errorf("a directory: %v", err)
	}
	broken := errors.New("broken")
	file := put(t, filepath.Join(dir, "file"), "old", 0o600)
	if err := write(file, func(io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if data, _ := os.ReadFile(file); string(data) != "old" {
		t.Errorf("the file holds %q", data)
	}
}
