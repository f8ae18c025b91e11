package peer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSegmentText(t *testing.T) {
	for _, c := range []struct{ name, printed, want string }{
		{"nothing", "", ""},
		{"one", "\n[00:00:00.000 --> 00:00:11.000]   And so, my fellow Americans\n\n", "And so, my fellow Americans"},
		{"two", "[00:00:00.000 --> 00:00:02.480]   One.\n[01:00:02.480 --> 01:00:04.000]   Two.\n", "One. Two."},
		{"without spaces", "[00:00:00.000 --> 00:00:02.480]  広州\n[00:00:02.480 --> 00:00:04.000]  市\n", "広州市"},
		{"brackets of the text stay", "[00:00:00.000 --> 00:00:02.000]   [Music]\n", "[Music]"},
	} {
		if got := segmentText(c.printed); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestBringCopiesWhatChanged(t *testing.T) {
	p, dir := Peer{Root: t.TempDir()}, t.TempDir()
	path := filepath.Join(dir, "clip.wav")
	put := func(content string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		inside, err := p.bring(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(p.Root, inside)); err != nil || string(got) != content {
			t.Errorf("the copy holds %q, %v; want %q", got, err, content)
		}
	}
	now := time.Now()
	put("one", now)
	put("one", now)
	put("two", now.Add(time.Second))
	put("three", now.Add(time.Second))
	if _, err := p.bring(path + ".none"); err == nil {
		t.Error("a file that is not there was copied")
	}
	if list, _ := os.ReadDir(filepath.Join(p.Root, inbox)); len(list) != 1 {
		t.Errorf("the root holds %d files, want the copy alone", len(list))
	}
}

func TestOpen(t *testing.T) {
	root := t.TempDir()
	if _, err := Open(root); err == nil || !strings.Contains(err.Error(), "peer.sh") {
		t.Errorf("an empty root: %v; want the script to run", err)
	}
	versions := filepath.Join(root, "versions")
	for _, c := range []struct{ versions, want string }{
		{"libc6 2.43-7\nlibwhisper1 1.9.5+dfsg-1\n", "1.9.5+dfsg-1"},
		{"libc6 2.43-7\n", ""},
	} {
		if err := os.WriteFile(versions, []byte(c.versions), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := (Peer{Root: root}).Version(); got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("Version = %q, %v; want %q", got, err, c.want)
		}
	}
}

// TestPrograms needs the real root; it asks the programs for nothing but what
// they do with a model that is none.
func TestPrograms(t *testing.T) {
	p, err := Open(filepath.Join("..", "..", "build", "peer"))
	if err != nil {
		t.Skip(err)
	}
	model := filepath.Join(t.TempDir(), "ggml-broken-for-test.bin")
	if err := os.WriteFile(model, []byte("no model"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(filepath.Join(p.Root, inbox, filepath.Base(model)))
	if _, _, err := p.CLI(t.Context(), model, model, "-l", "en"); err == nil || !strings.Contains(err.Error(), "whisper-cli on") {
		t.Errorf("whisper-cli with a broken model: %v", err)
	}
	s, err := p.Server(t.Context(), model)
	if err == nil {
		s.Stop()
	}
	if err == nil || !strings.Contains(err.Error(), "ended at once") {
		t.Errorf("whisper-server with a broken model: %v", err)
	}
}
