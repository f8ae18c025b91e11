package update

import (
	"os"
	"testing"

	"whisper-appliance/internal/slot"
)

// TestLeftPackageKeepsNothing: the release of the package before goes where what
// serves is committed, and golden whole.
func TestLeftPackageKeepsNothing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prepare func(w *world)
		kept    bool
	}{
		"it serves and is committed": {func(*world) {}, false},
		"a trial runs":               {func(w *world) { tree(t, w.u.Slots.Path(slot.B), "1.1.0"); point(t, w.u.Slots.Current, slot.B) }, true},
		"golden serves":              {func(w *world) { point(t, w.u.Slots.Current, slot.Golden); point(t, w.u.Slots.Stable, slot.Golden) }, true},
		"there is no golden":         {func(w *world) { must(t, os.RemoveAll(w.u.Slots.Golden)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tree(t, w.u.Slots.GoldenBefore, "0.9.0")
			tt.prepare(w)
			w.u.cleanLeft()
			if _, err := os.Stat(w.u.Slots.GoldenBefore); (err == nil) != tt.kept {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestLeftPackageCleansUp, be it the same as before or a newer one.
func TestLeftPackageCleansUp(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.0.0", "1.0.5"} {
		w := newWorld(t)
		w.onTrial("1.1.0")
		w.proves()
		want := w.configured(version, "1.0.0")
		tree(t, w.u.Slots.GoldenBefore, "1.0.0")
		if res := w.apply(want, Already); res.Left == "" {
			t.Errorf("%s: %+v", version, res)
		}
		if _, err := os.Stat(w.u.Slots.GoldenBefore); err == nil {
			t.Errorf("%s: the release of the package before stays", version)
		}
		w.stands(slot.B, slot.B, slot.B)
		w.idles()
	}
}
