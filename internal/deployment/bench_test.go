package deployment

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

func TestBenches(t *testing.T) {
	state := t.TempDir()
	if all, err := Benches(state, "1.0.0"); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	for i := range mostBenches + 2 {
		b := Bench{Version: "1.0.0+dev", Model: "tiny", At: day(1).Add(time.Duration(i) * time.Hour), Figures: Figures{RealTime: float64(i)}}
		if err := SaveBench(state, b); err != nil {
			t.Fatal(err)
		}
	}
	all, err := Benches(state, "1.0.0+dev")
	if err != nil || len(all) != mostBenches || all[0].Figures.RealTime != mostBenches+1 || all[mostBenches-1].Figures.RealTime != 2 {
		t.Errorf("%d measurements, %v: %+v", len(all), err, all)
	}
	if all, _ := Benches(state, "1.0.0"); len(all) != 0 {
		t.Error("another version's are taken for its")
	}
	info, err := os.Stat(filepath.Join(state, "bench-1.0.0+dev.json"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestBenchesRefuse(t *testing.T) {
	state := t.TempDir()
	for _, version := range []string{"", "../1", "1/2", "1 2", "1\x00", strings.Repeat("1", 101)} {
		if err := SaveBench(state, Bench{Version: version}); fault.KindOf(err) != fault.BadInput {
			t.Errorf("%q: %v", version, err)
		}
	}
	file := filepath.Join(state, "bench-1.json")
	if err := os.WriteFile(file, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Benches(state, "1"); fault.Hint(err) == "" {
		t.Errorf("error %v", err)
	}
	if err := SaveBench(state, Bench{Version: "1"}); err == nil {
		t.Error("measurements that cannot be read were written over")
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "[{" {
		t.Errorf("%q, %v", data, err)
	}
	if _, _, err := FiguresOf(state, "1", ""); err == nil {
		t.Error("figures of a file that cannot be read")
	}
}

func TestFiguresOf(t *testing.T) {
	state := t.TempDir()
	for _, b := range []Bench{
		{Version: "1", Model: "tiny", Figures: Figures{RealTime: 0.2}}, {Version: "1", Model: "tiny", Figures: Figures{RealTime: 0.4}},
		{Version: "1", Model: "base", Figures: Figures{RealTime: 9}},
	} {
		if err := SaveBench(state, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := Append(state, attempt(1, "1", "2", Committed).with(Figures{RealTime: 0.7})); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		version, model string
		want           float64
	}{{"1", "tiny", 0.3}, {"1", "base", 9}, {"1", "", 0.4}, {"1", "small", 0}, {"2", "tiny", 0.7}, {"3", "tiny", 0}} {
		got, ok, err := FiguresOf(state, c.version, c.model)
		if d := got.RealTime - c.want; err != nil || d > 1e-9 || d < -1e-9 || ok != (c.want > 0) {
			t.Errorf("%s with %q: %v, %v, %v, want %v", c.version, c.model, got.RealTime, ok, err, c.want)
		}
	}
	if got := MeasuredVersions(state); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("versions %v", got)
	}
}

func TestOr(t *testing.T) {
	all := Figures{1, 2, 3, 4, 5, 6, 7}
	if got := (Figures{}).Or(all); got != all {
		t.Errorf("%+v", got)
	}
	if got := all.Or(Figures{9, 9, 9, 9, 9, 9, 9}); got != all {
		t.Errorf("%+v", got)
	}
	if got := (Figures{MemoryBytes: 8, Runs: 1}).Or(all); got != (Figures{1, 2, 3, 8, 5, 6, 7}) {
		t.Errorf("%+v", got)
	}
}
