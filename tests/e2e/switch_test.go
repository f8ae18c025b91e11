//go:build e2e

package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/e2e/load"
)

const (
	switches     = 10
	switchLimit  = 90 * time.Second
	leastAsked   = 50_000
	longLasts    = 24 * time.Second // of speech, so that a transcription spans a switch
	crashes      = 5
	loopWatched  = 30 * time.Second
	fewestWorker = 4
)

// longClip is the reference clip over and over.
func longClip(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(spoken(t, longLasts))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// spoken is a file with the reference clip over and over, until it was spoken
// for so long.
func spoken(t *testing.T, lasts time.Duration) (path string) {
	t.Helper()
	sound, err := clips.Read(t.Context(), filepath.Join(checkout(t), "tests", "testdata", "reference.wav"))
	if err != nil {
		t.Fatal(err)
	}
	var parts []clips.Sound
	for d := time.Duration(0); d < lasts; d += sound.Duration() {
		parts = append(parts, sound)
	}
	path = filepath.Join(t.TempDir(), "long.wav")
	// So far apart that no window has the sentence twice: what repeats itself is
	// decoded again and again.
	if err := clips.Join(parts, 6*time.Second, 7*time.Second, 1).WriteWAV(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// while keeps the appliance busy until do returns and gives what came of it.
func (b *box) while(l load.Load, do func()) load.Counts {
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	done := make(chan load.Counts, 1)
	go func() { done <- l.Run(ctx) }()
	do()
	cancel()
	return <-done
}

// serving is the slot that `current` names.
func (b *box) serving() string {
	b.t.Helper()
	return filepath.Base(b.must(`readlink /opt/whisper-appliance/current`))
}

// bothSlots has the package's release in both.
func (b *box) bothSlots() {
	b.t.Helper()
	if b.must(`ls /opt/whisper-appliance/slots/a/manifest.json /opt/whisper-appliance/slots/b/manifest.json 2>/dev/null | wc -l`) == "2" {
		return
	}
	b.must(`cp -a /opt/whisper-appliance/slots/"$1" /opt/whisper-appliance/slots/"$2"`, b.serving(), other(b.serving()))
}

func other(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}

// TestSwitchesLoseNothing: ten switches under load from all sides, with a
// transcription under way, and no request fails.
func TestSwitchesLoseNothing(t *testing.T) {
	b := shared(t)
	b.bothSlots()
	wav, _ := reference(t)
	l := load.Load{Dial: b.Dial, URL: plain, Small: "/livez", Kept: fewestWorker, Fresh: fewestWorker, Pace: 10 * time.Millisecond,
		Short: wav, Long: longClip(t), Expect: "window", Seen: new(atomic.Int64)}
	begin := time.Now()
	var slowest time.Duration
	counts := b.while(l, func() {
		for range switches {
			to, started := other(b.serving()), time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), switchLimit)
			r := b.Run(ctx, "whisper-appliance", "slot", "switch", to)
			cancel()
			if r.Code != 0 || b.serving() != to {
				t.Errorf("switch to %s: %v", to, r)
				return
			}
			slowest = max(slowest, time.Since(started))
		}
		b.until("enough requests", 2*time.Minute, func() bool { return l.Seen.Load() >= leastAsked })
	})
	figure(t, "%d switches, the slowest %.1f s: %v in %.0f s", switches, slowest.Seconds(), counts, time.Since(begin).Seconds())
	asks, failed := counts.Total()
	if failed != 0 {
		t.Errorf("failed:\n%s", strings.Join(counts.First, "\n"))
	}
	if asks < leastAsked || counts.Long.Asked == 0 || counts.Short.Asked == 0 {
		t.Errorf("only %d requests; %d are wanted, of every kind", asks, leastAsked)
	}
}

// TestServerCrash: a server that is killed costs what it was holding and
// nothing else: no connection is refused.
func TestServerCrash(t *testing.T) {
	b := shared(t)
	l := load.Load{Dial: b.Dial, URL: plain, Small: "/livez", Fresh: fewestWorker}
	counts := b.while(l, func() {
		for range crashes {
			before := b.property(server, "MainPID")
			b.must(`kill -9 "$1"`, before)
			b.until("another server answers", 30*time.Second, func() bool {
				pid := b.property(server, "MainPID")
				status, _ := b.get(plain + "/livez")
				return pid != "0" && pid != before && status == http.StatusOK
			})
		}
	})
	figure(t, "%d crashes: %v", crashes, counts)
	for _, words := range counts.First {
		if strings.Contains(words, "refused") {
			t.Errorf("refused: %s", words)
		}
	}
	if _, failed := counts.Total(); failed > crashes*fewestWorker {
		t.Errorf("%d requests failed, at most those held by a crashing server: %d", failed, crashes*fewestWorker)
	}
}

// TestCrashLoop: a server that cannot start while a connection waits is
// started less than once a second, and answers when the cause is gone.
func TestCrashLoop(t *testing.T) {
	b := shared(t)
	const dropIn = "/run/systemd/system/whisper-appliance.service.d/99-e2e.conf"
	b.must(`mkdir -p "$(dirname "$1")"
		printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >"$1"
		systemctl daemon-reload
		systemctl stop whisper-appliance.service
		systemctl start whisper-appliance.socket`, dropIn)
	mend := func() { b.must(`rm -f "$1"; systemctl daemon-reload`, dropIn) }
	defer mend()
	since := b.must(`date +%s`)
	conn, err := b.Dial(t.Context(), "tcp", "127.0.0.1:5001")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /livez HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	watched := time.NewTimer(loopWatched)
	defer watched.Stop()
	<-watched.C
	entries, err := b.Journal(t.Context(), "_PID=1", "UNIT="+server, "--since=@"+since)
	if err != nil {
		t.Fatal(err)
	}
	starts := 0
	for _, e := range entries {
		if strings.HasPrefix(e["MESSAGE"], "Starting ") {
			starts++
		}
	}
	figure(t, "crash loop with a waiting connection: %d starts in %v", starts, loopWatched)
	if starts < 2 || starts > int(loopWatched.Seconds()) {
		t.Errorf("%d starts in %v", starts, loopWatched)
	}
	if got := b.property(socketUnit, "ActiveState"); got != "active" {
		t.Errorf("the socket is %s", got)
	}
	mend()
	took := b.until("it serves when the cause is gone", 60*time.Second, func() bool {
		status, _ := b.get(plain + "/livez")
		return status == http.StatusOK
	})
	figure(t, "served again %.1f s after the cause was gone", took.Seconds())
}
