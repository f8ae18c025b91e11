package cut

import (
	"slices"
	"testing"
)

func TestPoints(t *testing.T) {
	for _, c := range []struct {
		log  []string
		want []int
	}{
		{nil, nil}, {[]string{"a"}, []int{1}}, {[]string{"a", "a"}, []int{1, 2}},
		{[]string{"a", "w", "w", "w", "w", "b", "b", "b"}, []int{1, 2, 5, 6, 8}},
	} {
		if got := (Result{Log: c.log}).Points(); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.log, got, c.want)
		}
	}
}
