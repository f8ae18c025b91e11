package measure

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestWaiting(t *testing.T) {
	const good = "some avg10=1.00 avg60=2.00 avg300=3.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
	stat := "cpu  1 2 3 4 5 6 7 200 0 0\ncpu0 1 2 3 4 5 6 7 200 0 0\n"
	share := 2 * time.Second / time.Duration(runtime.NumCPU())
	for _, c := range []struct {
		pressure, stat string
		want           time.Duration
	}{
		{good, stat, 1500*time.Millisecond + share}, {good, "", 1500 * time.Millisecond}, {"", stat, share}, {"", "", 0},
		{"full total=5\n", "intr 1 2 3 4 5 6 7 8 9\n", 0}, {"some total=x", "cpu 1 2", 0},
	} {
		proc := t.TempDir()
		if err := os.Mkdir(filepath.Join(proc, "pressure"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"pressure/cpu": c.pressure, "stat": c.stat} {
			if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := waiting(proc); got != c.want {
			t.Errorf("%q and %q: %v, want %v", c.pressure, c.stat, got, c.want)
		}
	}
	if got := waiting(filepath.Join(t.TempDir(), "none")); got != 0 {
		t.Errorf("of nothing %v", got)
	}
}
