package score

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func manifest(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clips.tsv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestManifest(t *testing.T) {
	path := manifest(t, "language\tfile\tsource\treference\n"+
		"en\ta.wav\there\t \"Hello\" there \n"+
		"\n"+
		"zh\tsub/b.flac\tthere\t广州\tmore\n"+
		"en\tc.wav\there\tLEFT: One. RIGHT: Two.\n")
	clips, err := Manifest(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(clips) != 3 {
		t.Fatalf("%d clips, want 3", len(clips))
	}
	want := Clip{File: "a.wav", Path: filepath.Join(filepath.Dir(path), "a.wav"), Language: "en", Reference: `"Hello" there`}
	if clips[0] != want {
		t.Errorf("got %+v, want %+v", clips[0], want)
	}
	if clips[1].Excluded != "" || clips[1].Reference != "广州" {
		t.Errorf("got %+v, want it counted", clips[1])
	}
	if clips[2].Excluded == "" {
		t.Error("two voices at once are counted")
	}
}

func TestManifestRefuses(t *testing.T) {
	const head = "file\tlanguage\treference\n"
	tests := []struct{ name, text, want string }{
		{"empty", "", `line 1: no column "file"`},
		{"no reference column", "file\tlanguage\n", `line 1: no column "reference"`},
		{"too few columns", head + "a.wav\ten\n", "line 2: 2 columns are too few"},
		{"outside", head + "a.wav\ten\tx\n../b.wav\ten\tx\n", `line 3: file "../b.wav" is not beside the table`},
		{"no file", head + "\ten\tx\n", `line 2: file "" is not beside the table`},
		{"language", head + "a.wav\txx\tx\n", `line 2: language "xx" is not one`},
		{"no reference", head + "a.wav\ten\t \n", "line 2: the reference is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Manifest(manifest(t, tt.text))
			if fault.KindOf(err) != fault.BadInput || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a fault that says %q", err, tt.want)
			}
			if fault.Hint(err) == "" {
				t.Error("no hint")
			}
		})
	}
}

func TestManifestNotThere(t *testing.T) {
	if _, err := Manifest(filepath.Join(t.TempDir(), "none.tsv")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want a file that is not there", err)
	}
}

// shared is the named file in the directory of material that may lie beside
// the checkout.
func shared(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "shared", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skipf("no shared/%s beside the checkout", name)
	return ""
}

func TestManifestOfSharedSpeech(t *testing.T) {
	clips, err := Manifest(shared(t, filepath.Join("speech", "transcripts.tsv")))
	if err != nil {
		t.Fatal(err)
	}
	excluded := 0
	for _, c := range clips {
		if _, err := os.Stat(c.Path); err != nil {
			t.Errorf("clip: %v", err)
		}
		if c.Excluded != "" {
			excluded++
		}
		if got := Compare(c.Language, c.Reference, c.Reference); got.Errors() != 0 || got.Ref == 0 {
			t.Errorf("%s against itself: %+v", c.File, got)
		}
	}
	if len(clips) < 20 || excluded != 1 {
		t.Errorf("%d clips with %d excluded, want at least 20 with 1", len(clips), excluded)
	}
}
