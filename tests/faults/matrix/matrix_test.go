//go:build e2e && faults

package matrix

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fast is the part that make test has: a cell of each kind, every SIGKILL, every
// twentieth cut.
func fast() bool { return os.Getenv("FAULTS") != "all" }

// cell makes what happens in a row's column, nil where the table has N.
func (w *world) cell(r row, column string) func() string {
	staged, slotB := filepath.Join(w.Home, ".staging", "*", "share/doc/README"), filepath.Join(w.Home, "slots/b/bin/whisper-appliance-server")
	special := map[string]func() string{
		"3 plan/" + corrupt:   func() string { return w.damagedSource("metadata/timestamp.json") },
		"3 plan/" + forged:    func() string { return w.unsigned(true) },
		"3 plan/" + downgrade: w.downgraded,
		"5 fetch/" + killed:   func() string { return w.halfFetched(r) },
		"5 fetch/" + corrupt:  func() string { return w.damagedSource("targets/*_" + next + "_*") },
		"6 verify/" + corrupt: func() string {
			return w.corrupted(next, "update.verify", filepath.Join(w.paths().Updater, "artefact", "*"))
		},
		"6 verify/" + forged:      func() string { return w.unsigned(false) },
		"6 verify/" + downgrade:   w.replayed,
		"7 stage/" + corrupt:      w.evilStage,
		"8 publish/" + corrupt:    func() string { return w.corrupted(next, "update.publish", staged) },
		"9 preflight/" + corrupt:  func() string { return w.corrupted(next, "update.preflight", slotB) },
		"11 overlap/" + corrupt:   func() string { return w.corrupted(next, "slot.overlapped", slotB) },
		"13 take over/" + corrupt: func() string { return w.corrupted(next, "slot.activated", slotB) },
		"rollback: link/" + corrupt: func() string {
			return w.corrupted(fails, "update.rolling_back", filepath.Join(w.Home, "slots/a/share/doc/README"))
		},
		"rollback: start/" + corrupt: func() string {
			return w.corrupted(fails, "slot.rolling_back", filepath.Join(w.Home, "slots/a/bin/whisper-appliance-server"))
		},
		"rollback: link/" + downgrade: w.wayDown,
		"rollback: start/" + crashes:  func() string { return w.oldFails("crash") },
		"rollback: start/" + hangs:    func() string { return w.oldFails("hang") },
		"rollback: start/" + smokes:   func() string { return w.oldFails("not-ready") },
		"14 trial/" + degrades:        func() string { return w.each("2.4.4", "2.4.5", "2.4.6") },
	}
	if do := special[r.name+"/"+column]; do != nil {
		return do
	}
	series := map[string]string{"9 preflight": "2.1.", "11 overlap": "2.2.", "13 take over": "2.3.", "14 trial": "2.4."}[r.name]
	switch column {
	case killed:
		return func() string { return w.kill(r) }
	case full:
		return func() string { return w.full(r) }
	case crashes:
		return func() string { return w.behaves(series + "1") }
	case hangs:
		return func() string { return w.behaves(series + "2") }
	case smokes:
		return func() string { return w.behaves(series + "3") }
	case busDown:
		return func() string { return w.bus(r) }
	case two:
		return func() string { return w.race(r) }
	case clocks:
		return func() string { return w.clock(r) }
	}
	return nil
}

func (w *world) each(versions ...string) string {
	w.Helper()
	seen := &letters{}
	for _, v := range versions {
		seen.add(w.behaves(v))
	}
	return seen.String()
}

// inFast are the cells of the fast part, beside all kills.
func inFast(r row, column string) bool {
	return column == killed || slices.Contains([]string{
		"7 stage/" + full, "8 publish/" + corrupt, "3 plan/" + forged, "3 plan/" + downgrade, "9 preflight/" + crashes, "13 take over/" + hangs,
		"11 overlap/" + smokes, "11 overlap/" + busDown, "8 publish/" + two, "13 take over/" + clocks, "rollback: link/" + full, "rollback: start/" + crashes,
	}, r.name+"/"+column)
}

// TestRows: the steps that are made are the table's.
func TestRows(t *testing.T) {
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
	}
	if !slices.Equal(names, Steps()) {
		t.Errorf("%q\n%q", names, Steps())
	}
}

// TestMatrix makes every cell of the design's table but for those of the power
// cut, which TestCuts makes.
func TestMatrix(t *testing.T) {
	w := newWorld(t)
	table := Wants()
	for _, r := range rows() {
		for _, column := range Columns() {
			want := table[r.name][column]
			if column == powerCut || slices.Contains(want, None) || fast() && !inFast(r, column) {
				continue
			}
			t.Run(r.name+"/"+column, func(t *testing.T) {
				here := *w
				here.TB = t
				do := here.cell(r, column)
				if do == nil {
					t.Fatal("nobody makes this cell")
				}
				got := do()
				note(r.name, column, got)
				if !Fits(got, want) {
					t.Errorf("it came to %s, want %s", got, strings.Join(want, " or "))
				}
			})
		}
	}
}
