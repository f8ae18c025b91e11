package matrix

import (
	"slices"
	"testing"
)

func TestTable(t *testing.T) {
	table := Wants()
	if len(table) != 16 || len(Steps()) != 16 {
		t.Fatalf("%d steps, %d rows", len(Steps()), len(table))
	}
	made := 0
	for _, step := range Steps() {
		if len(table[step]) != len(Columns()) {
			t.Errorf("%s has %d cells", step, len(table[step]))
		}
		for column, want := range table[step] {
			if !slices.Contains(want, None) {
				made++
			}
			if slices.Contains(want, "") {
				t.Errorf("%s, %s is empty", step, column)
			}
		}
	}
	if made != 127 {
		t.Errorf("%d cells are made", made)
	}
	if got := table["13 take over"][full]; !slices.Equal(got, []string{"B", "F"}) {
		t.Errorf("%q", got)
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		got  string
		want []string
		fits bool
	}{
		{"O", []string{"O"}, true}, {"OQ¹", []string{"OQ"}, true}, {"O", []string{"OQ"}, false}, {"", []string{"O"}, false},
		{"B or BP", []string{"B", "BP"}, true}, {"B or ? nothing", []string{"B", "BP"}, false},
	} {
		if Fits(c.got, c.want) != c.fits {
			t.Errorf("%q in %q: want %v", c.got, c.want, c.fits)
		}
	}
}
