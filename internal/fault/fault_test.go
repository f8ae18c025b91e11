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
