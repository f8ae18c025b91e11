package transcript

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// bits are what random texts are made of: what breaks formats and joins.
func bits() []string {
	return []string{" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", "a", "word", "it's", ".", "-->", "--->",
		"&", "<i>", "谢", "\xe8", "\xb0", "\xa2", "\xf0\x9f", "\x91\xa9", "\xff", "\x00", "\x1b", "\u0085", "שלום", "[00:01.00]", "42"}
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	all := bits()
	for range r.IntN(6) {
		b.WriteString(all[r.IntN(len(all))])
	}
	return b.String()
}

// randomSegments are in order of Start, as a transcript's are; they overlap
// and end early at will.
func randomSegments(r *rand.Rand) []Segment {
	var list []Segment
	var start time.Duration
	for range r.IntN(8) {
		start += time.Duration(r.IntN(3_000_000_000))
		s := Segment{Start: start, End: start + time.Duration(r.IntN(4_000_000_000)) - sec, Text: randomText(r)}
		for range r.IntN(4) {
			s.Words = append(s.Words, Word{s.Start, s.End, randomText(r), r.Float64()})
		}
		list = append(list, s)
	}
	return list
}

func TestStreamedIsRendered(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		tr := &Transcript{Segments: randomSegments(r)}
		for _, f := range Formats() {
			if !f.Streams() {
				continue
			}
			got, want := stream(t, f, tr.Segments, r.IntN(2) == 0), render(t, f, tr, Options{})
			if got != want {
				t.Fatalf("%s: streamed %q, rendered %q", f, got, want)
			}
			if !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\r\x1b") {
				t.Fatalf("%s: bytes that no text has: %q", f, got)
			}
		}
	}
}

func stream(t *testing.T, f Format, segments []Segment, header bool) string {
	t.Helper()
	var b strings.Builder
	s, err := NewStreamer(&b, f)
	if err != nil {
		t.Fatal(err)
	}
	if header {
		err = s.Header()
	}
	for _, seg := range segments {
		if err == nil {
			err = s.Segment(seg)
		}
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestStreamerKeepsCuesInOrder(t *testing.T) {
	got := stream(t, VTT, []Segment{seg(3*sec, 4*sec, "b"), seg(sec, 2*sec, "a"), seg(2*sec, 9*sec, "c")}, true)
	want := "WEBVTT\n\n00:00:03.000 --> 00:00:04.000\nb\n\n00:00:03.000 --> 00:00:03.020\na\n\n00:00:03.000 --> 00:00:09.000\nc\n\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// plainText is Text by the shortest way: everything joined, then cleaned.
func plainText(segments []Segment) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteString(s.Text)
	}
	var out []rune
	for _, c := range b.String() { // a byte that is no UTF-8 is U+FFFD
		switch {
		case c != '\n' && c != '\t' && unicode.IsControl(c) && unicode.IsSpace(c):
			c = ' '
		case c != '\n' && c != '\t' && unicode.IsControl(c):
			continue
		}
		out = append(out, c)
	}
	return strings.TrimSpace(string(out))
}

func TestJoinerAddsUpToText(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		segments := randomSegments(r)
		var j Joiner
		var b strings.Builder
		for _, s := range segments {
			piece := j.Add(s)
			if !utf8.ValidString(piece) {
				t.Fatalf("piece %q is not UTF-8", piece)
			}
			b.WriteString(piece)
			if got := b.String(); got != strings.TrimSpace(got) {
				t.Fatalf("%q has space at an end", got)
			}
		}
		b.WriteString(j.Close())
		tr := &Transcript{Segments: segments}
		if got, want := b.String(), plainText(segments); got != want || tr.Text() != want {
			t.Fatalf("joined %q, Text %q, want %q", got, tr.Text(), want)
		}
	}
}

func TestJoinerPieces(t *testing.T) {
	tests := []struct {
		name  string
		texts []string
		want  []string // one for each text, then Close's
	}{
		{"nothing", nil, []string{""}},
		{"leading space", []string{" a", " b"}, []string{"a", " b", ""}},
		{"trailing space waits", []string{"a ", "b "}, []string{"a", " b", ""}},
		{"space alone", []string{"  ", " a", "  ", " b", " "}, []string{"", "a", "", "   b", "", ""}},
		{"character cut in two", []string{"谢\xe8\xb0", "\xa2!"}, []string{"谢", "谢!", ""}},
		{"character never finished", []string{"a \xe8\xb0"}, []string{"a", " \ufffd\ufffd"}},
		{"not UTF-8", []string{"\xffa", "\x80"}, []string{"\ufffda", "\ufffd", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var j Joiner
			var got []string
			for _, text := range tt.texts {
				got = append(got, j.Add(Segment{Text: text}))
			}
			got = append(got, j.Close())
			if strings.Join(got, "|") != strings.Join(tt.want, "|") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if again := j.Add(Segment{Text: " x"}); again != "x" {
				t.Errorf("after Close the next text gives %q, want a fresh start", again)
			}
		})
	}
}
