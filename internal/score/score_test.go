package score

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestWER(t *testing.T) {
	tests := []struct {
		name, ref, hyp string
		want           Counts
		rate           float64
	}{
		{"same", "a b c", "a b c", Counts{Ref: 3}, 0},
		{"one heard wrong", "a b c d", "a x c d", Counts{Sub: 1, Ref: 4}, 0.25},
		{"one missed", "a b c d", "a b d", Counts{Del: 1, Ref: 4}, 0.25},
		{"one invented", "a b c d", "a b b c d", Counts{Ins: 1, Ref: 4}, 0.25},
		{"one of each", "a b c d e", "x b d e f", Counts{Sub: 1, Del: 1, Ins: 1, Ref: 5}, 0.6},
		{"nothing heard", "a b", "", Counts{Del: 2, Ref: 2}, 1},
		{"nothing said, nothing heard", "", "", Counts{}, 0},
		{"nothing said, something heard", "", "a b", Counts{Ins: 2}, 1},
		{"more errors than words", "a", "x y z", Counts{Sub: 1, Ins: 2, Ref: 1}, 3},
		{"all wrong", "a b c", "x y z", Counts{Sub: 3, Ref: 3}, 1},
		{"shifted", "a b c d", "b c d e", Counts{Del: 1, Ins: 1, Ref: 4}, 0.5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := WER(strings.Fields(tt.ref), strings.Fields(tt.hyp))
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if math.Abs(got.Rate()-tt.rate) > 1e-9 {
				t.Errorf("rate %v, want %v", got.Rate(), tt.rate)
			}
		})
	}
}

func TestCER(t *testing.T) {
	tests := []struct {
		ref, hyp string
		want     Counts
	}{
		{"kitten", "sitting", Counts{Sub: 2, Ins: 1, Ref: 6}},
		{"广州市房地产", "广州是房地产", Counts{Sub: 1, Ref: 6}},
		{"房地产中介", "房产中介", Counts{Del: 1, Ref: 5}},
		{"", "", Counts{}},
	}
	for _, tt := range tests {
		if got := CER(tt.ref, tt.hyp); got != tt.want {
			t.Errorf("CER(%q, %q) = %+v, want %+v", tt.ref, tt.hyp, got, tt.want)
		}
	}
}

// distance is Levenshtein's by its definition.
func distance(a, b []rune) int {
	switch {
	case len(a) == 0 || len(b) == 0:
		return len(a) + len(b)
	case a[0] == b[0]:
		return distance(a[1:], b[1:])
	}
	return 1 + min(distance(a[1:], b[1:]), distance(a[1:], b), distance(a, b[1:]))
}

func TestEditsAreTheFewest(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	word := func() string {
		w := make([]byte, r.IntN(7))
		for i := range w {
			w[i] = "abc"[r.IntN(3)]
		}
		return string(w)
	}
	for range 500 {
		ref, hyp := word(), word()
		got := CER(ref, hyp)
		if want := distance([]rune(ref), []rune(hyp)); got.Errors() != want {
			t.Fatalf("CER(%q, %q) = %+v, the distance is %d", ref, hyp, got, want)
		}
		if len(hyp)-len(ref) != got.Ins-got.Del {
			t.Fatalf("CER(%q, %q) = %+v, which does not add up to the lengths", ref, hyp, got)
		}
	}
}

func TestCompare(t *testing.T) {
	tests := []struct {
		language, ref, hyp string
		want               Counts
	}{
		{"en", "MEND THE COAT BEFORE YOU GO OUT", " Mend the coat before you go out.", Counts{Ref: 7}},
		{"en", "IN EIGHTEEN THIRTEEN", " In 1813,", Counts{Ref: 2}},
		{"en", "in the middle of the fifteenth century", "in the middle of the 15th century", Counts{Ref: 7}},
		{"en", "and mister john dashwood", "And Mr. John Dashwoods", Counts{Sub: 1, Ref: 4}},
		{"en", "eight of spades four of clubs seven of hearts", "8 of spades, 4 of clubs, 7 of hearts.", Counts{Ref: 9}},
		{"fr", "conservateur des eaux et forêts", "Conservateur des eaux et forets.", Counts{Sub: 1, Ref: 5}},
		{"zh", "广州市房地产中介协会分析", " 广州市 房地产，中介协会分析。", Counts{Ref: 12}},
		{"ja", "客観的実在の判断的知識が成立するのである", "客観的実在の判断的知識が成立するのであり", Counts{Sub: 1, Ref: 20}},
	}
	for _, tt := range tests {
		if got := Compare(tt.language, tt.ref, tt.hyp); got != tt.want {
			t.Errorf("%s: Compare(%q, %q) = %+v, want %+v", tt.language, tt.ref, tt.hyp, got, tt.want)
		}
	}
}

func TestAddWeighsByLength(t *testing.T) {
	sum := Counts{Sub: 1, Ref: 2}.Add(Counts{Del: 1, Ins: 1, Ref: 6})
	if want := (Counts{1, 1, 1, 8}); sum != want || sum.Rate() != 0.375 {
		t.Errorf("got %+v with rate %v, want %+v with 0.375", sum, sum.Rate(), want)
	}
}

func TestEditsLeaveInputAlone(t *testing.T) {
	ref, hyp := []string{"a", "b"}, []string{"b"}
	WER(ref, hyp)
	if !slices.Equal(ref, []string{"a", "b"}) || !slices.Equal(hyp, []string{"b"}) {
		t.Error("WER changed its input")
	}
}
