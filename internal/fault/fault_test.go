package fault

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestKindAndHintSurviveWrapping(t *testing.T) {
	inner := New(NotFound, "no_file", "no file %s", "f").On("file").Because(io.EOF)
	outer := New(BadInput, "bad", "bad").Because(fmt.Errorf("step: %w", inner.Try("look elsewhere")))
	err := fmt.Errorf("doing it: %w", outer)
	if KindOf(err) != BadInput {
		t.Errorf("kind %v, want the outermost, %v", KindOf(err), BadInput)
	}
	if Hint(err) != "look elsewhere" {
		t.Errorf("hint %q, want the first there is", Hint(err))
	}
	if !errors.Is(err, io.EOF) {
		t.Error("the cause is lost")
	}
	if KindOf(io.EOF) != Internal || Hint(io.EOF) != "" {
		t.Error("an error without words has kind or hint")
	}
}

// TestStatusesAreApart: each kind has its status, and the status leads back to it.
func TestStatusesAreApart(t *testing.T) {
	seen := map[int]Kind{}
	for k := Internal; k <= NoSpace; k++ {
		s := k.Status()
		if other, taken := seen[s]; taken {
			t.Errorf("kinds %d and %d share status %d", k, other, s)
		}
		seen[s] = k
		if OfStatus(s) != k {
			t.Errorf("status %d leads to kind %d, want %d", s, OfStatus(s), k)
		}
	}
	if OfStatus(418) != Internal || Kind(99).Status() != 500 {
		t.Error("what is not known is not Internal")
	}
}

func TestShort(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("ü", 10_000), "\xff\xfe", strings.Repeat("a", 80)} {
		got := Short(s)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > 81 {
			t.Errorf("Short of %d bytes is %q", len(s), got)
		}
	}
	if got := Short("just so"); got != "just so" {
		t.Errorf("%q was changed", got)
	}
}

func TestPlain(t *testing.T) {
	for words, want := range map[string]string{
		"just so, ünd 漢字": "just so, ünd 漢字", "": "",
		"it\x1b[2J is\nbad\r\n":                "it [2J is; bad",
		"a\u009b31mb\tc\x00d\x7f":              "a 31mb c d ",
		"left\u202eto right\u200b\ufeff":       "leftto right",
		"one\u2028two":                         "one; two",
		"\xff\xfe":                             " ",
		strings.Repeat("é", 100):               strings.Repeat("é", 20) + "…",
		strings.Repeat("\u200b", 1000) + "end": "…",
	} {
		if got := Plain(words, 40); got != want || !utf8.ValidString(got) {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
	}
}

func TestAddress(t *testing.T) {
	for address, want := range map[string]string{
		"https://user:secret@example.org/x":    "https://…@example.org/x",
		"https://token@example.org:8443/x":     "https://…@example.org:8443/x",
		"https://user:se cret@example.org/x":   "https://…@example.org/x",
		"https://user:p%zz@ss@example.org/x":   "https://…@example.org/x",
		"https://example.org/x@y":              "https://example.org/x@y",
		"https://example.org/a%2Fb":            "https://example.org/a%2Fb",
		"/srv/my releases@home":                "/srv/my releases@home",
		"https://us%20er:secret@[::1]:9/x?a=b": "https://…@[::1]:9/x?a=b",
	} {
		if got := Address(address); got != want {
			t.Errorf("%s is shown as %s", address, got)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 5: "5 bytes", 1023: "1023 bytes", 2048: "2 KiB", 77_691_713: "74.1 MiB", 1<<20 - 1: "1024 KiB",
		1000 << 20: "1000 MiB", 3 << 29: "1.5 GiB", 4 << 30: "4 GiB", 5 << 40: "5 TiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestNear(t *testing.T) {
	choices := []string{"listen", "max_upload", "large-v1", "large-v3", "file"}
	for given, want := range map[string]string{
		"lisen": "listen", "max_uplaod": "max_upload", "large-v4": "large-v1 large-v3", "large-v3": "large-v3 large-v1",
		"": "", "xyzzyxyzzy": "", "fiel": "file", "\xff\xfe": "",
	} {
		near := Near(given, choices)
		if got := strings.Join(near, " "); got != want {
			t.Errorf("Near(%q) = %q, want %q", given, got, want)
		}
		first, _, _ := strings.Cut(want, " ")
		if got := Nearest(given, choices); got != first {
			t.Errorf("Nearest(%q) = %q, want %q", given, got, first)
		}
	}
}

// TestNearOfALongName: the time must not grow with what a stranger sends.
func TestNearOfALongName(t *testing.T) {
	long := strings.Repeat("a", 9<<20)
	if got := testing.AllocsPerRun(1, func() { Near(long, []string{long, "aaaa"}) }); got > 0 {
		t.Errorf("%v allocations: the name was looked at", got)
	}
	if Near(long, []string{long}) != nil {
		t.Error("a name of 9 MiB is near something")
	}
}
