//go:build e2e

package conformance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// setting is what the environment must say; without it the run proves nothing.
func setting(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is not set; run this by: make conformance", name)
	}
	return v
}

func base(t *testing.T) string { return strings.TrimSuffix(setting(t, "WA_URL"), "/") }

// client is the library as anybody would set it up, without its retries.
func client(t *testing.T, opts ...option.RequestOption) openai.Client {
	t.Helper()
	return openai.NewClient(append([]option.RequestOption{
		option.WithBaseURL(base(t) + "/v1"),
		option.WithAPIKey(setting(t, "WA_KEY")),
		option.WithMaxRetries(0),
	}, opts...)...)
}

// clip is a recording with its name, as the library uploads it.
type clip struct {
	name string
	text string // what is said, normalised; "" where the test knows only a part
	data []byte
}

// reader gives the recording anew. The library takes the file's name from it.
func (c clip) reader() *named { return &named{bytes.NewReader(c.data), c.name} }

type named struct {
	*bytes.Reader
	name string
}

// Name is what the library sends as the file's name.
func (n *named) Name() string { return n.name }

// reference is the project's own clip.
func reference(t *testing.T) clip {
	t.Helper()
	c := load(t, filepath.Join("..", "testdata", "reference.wav"))
	text, err := os.ReadFile(filepath.Join("..", "testdata", "reference.txt"))
	if err != nil {
		t.Fatal(err)
	}
	c.text = normalise(string(text))
	return c
}

func load(t *testing.T, path string) clip {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return clip{name: filepath.Base(path), data: data}
}

// shared gives a clip of the collection beside the checkout, where it is.
func shared(t *testing.T, name string) (clip, bool) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		path := filepath.Join(parent, "shared", "speech", name)
		if _, err := os.Stat(path); err == nil {
			return load(t, path), true
		}
	}
	return clip{}, false
}

// as is the clip in another container.
func (c clip) as(t *testing.T, extension string) clip {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, c.name), filepath.Join(dir, "clip."+extension)
	if err := os.WriteFile(in, c.data, 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.CommandContext(t.Context(), "ffmpeg", "-v", "error", "-i", in, out).CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg cannot make .%s: %v: %s", extension, err, msg)
	}
	other := load(t, out)
	other.text = c.text
	return other
}

// normalise leaves the words: lower case, without punctuation.
func normalise(s string) string {
	keep := func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r):
			return unicode.ToLower(r)
		case r == '\'' || r == '’':
			return -1
		}
		return ' '
	}
	return strings.Join(strings.Fields(strings.Map(keep, s)), " ")
}

// wantSaid compares what was understood with what was said.
func wantSaid(t *testing.T, got string, c clip) {
	t.Helper()
	if normalise(got) != c.text {
		t.Errorf("understood %q, want %q", got, c.text)
	}
}

// wantMostly is wantSaid for settings that make the text vary: half the words.
func wantMostly(t *testing.T, got string, c clip) {
	t.Helper()
	heard := map[string]bool{}
	for word := range strings.FieldsSeq(normalise(got)) {
		heard[word] = true
	}
	words, hits := strings.Fields(c.text), 0
	for _, w := range words {
		if heard[w] {
			hits++
		}
	}
	if hits*2 < len(words) {
		t.Errorf("understood %q, want most of %q", got, c.text)
	}
}
