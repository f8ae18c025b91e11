//go:build e2e

package vm

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const slice = "whisperappliance.slice"

// inSlice is a file of a control group below that of all our units.
func inSlice(name string) string { return "/sys/fs/cgroup/" + slice + "/" + name }

// number is that of a file of one.
func (b *box) number(path string) int64 {
	b.t.Helper()
	n, err := strconv.ParseInt(b.must(`cat "$1"`, path), 10, 64)
	if err != nil {
		b.t.Fatalf("%s: %v", path, err)
	}
	return n
}

// TestSlice: the limits of all our processes together are the kernel's, and
// every one of them is under these.
func TestSlice(t *testing.T) {
	b := installed(t)
	b.transcribes("clip.wav") // server and engine run
	var total int64
	if _, err := fmt.Sscan(b.must(`awk '/^MemTotal/ {print $2 * 1024}' /proc/meminfo`), &total); err != nil {
		t.Fatal(err)
	}
	if got, want := b.number(inSlice("memory.max")), total*90/100; got < want-1<<20 || got > want+1<<20 {
		t.Errorf("memory.max is %d, want 90 %% of %d", got, total)
	}
	// A limit that only slows a runaway down keeps it from the one that ends it.
	if got := b.must(`cat "$1"`, inSlice("memory.high")); got != "max" {
		t.Errorf("memory.high is %s", got)
	}
	if got := b.number(inSlice("pids.max")); got != 2048 {
		t.Errorf("pids.max is %d", got)
	}
	if got := b.number(inSlice("cpu.weight")); got != 80 {
		t.Errorf("cpu.weight is %d", got)
	}
	outside := b.must(`for pid in $(pgrep -f '^(whisper-appliance|/opt/whisper-appliance|/usr/lib/whisper-appliance)'); do
		grep -H -v 'whisperappliance[.]slice' /proc/$pid/cgroup || true; done`)
	if outside != "" {
		t.Errorf("outside the slice:\n%s", outside)
	}
	figure(t, "all of it: %.1f MB of at most %.1f MB, %d processes and threads of at most %d",
		float64(b.number(inSlice("memory.current")))/(1<<20), float64(b.number(inSlice("memory.max")))/(1<<20),
		b.number(inSlice("pids.current")), b.number(inSlice("pids.max")))
}

// hog asks the engine for a model that eats all it gets, and waits for its end.
// It gives what the kernel and systemd said of that.
func (b *box) hog(engine string) (said string, took time.Duration) {
	b.t.Helper()
	b.must(`: >/var/lib/whisper-appliance/models/vm-hog.bin`)
	defer b.must(`rm -f /var/lib/whisper-appliance/models/vm-hog.bin`)
	since := b.must(`date +%s`)
	begin := time.Now()
	r := b.Sh(b.t.Context(), `curl -s --max-time 240 --unix-socket "$1" -H 'Content-Type: application/json' -d '{"model":"vm-hog.bin"}' http://engine/v1/model`,
		"/run/whisper-appliance/"+strings.TrimSuffix(strings.Replace(strings.TrimPrefix(engine, "whisper-appliance-"), "@", "-", 1), ".service")+".sock")
	took = time.Since(begin)
	if r.Code == 0 {
		b.t.Errorf("the engine answers: %v", r)
	}
	b.until("systemd says how it ended", time.Minute, func() bool {
		said = b.must(`journalctl --no-pager --since=@"$1" -o cat _TRANSPORT=kernel + _PID=1`, since)
		return strings.Contains(said, engine+": Failed with result")
	})
	return said, took
}

// livesOn looks that the server is the process that it was, and transcribes
// again with an engine that came back.
func (b *box) livesOn(pid, engine, was string) {
	b.t.Helper()
	if now := b.property(server, "MainPID"); now != pid {
		b.t.Errorf("the server was process %s and is %s", pid, now)
	}
	figure(b.t, "transcribed again %.1f s later", b.transcribes("clip.wav").Seconds())
	if now := b.property(engine, "MainPID"); now == was || now == "0" {
		b.t.Errorf("the engine's process was %s and is %s", was, now)
	}
}

// TestMemoryMax: an engine that goes over a limit of memory is ended by the
// kernel, by the engine's own limit or by that of all of it, and systemd says
// so; it comes back. The server lives, answers meanwhile, and transcribes after
// that. As the units are shipped nothing else may be quicker than the kernel.
func TestMemoryMax(t *testing.T) {
	const all, own = `systemctl set-property --runtime whisperappliance.slice `, `systemctl set-property --runtime "$1" `
	for _, c := range []struct{ name, limits, met string }{
		{"of the engine", own + `MemoryMax=300M`, "oom_memcg=/" + slice + "/whisper-appliance-engine@"},
		{"of the slice", all + `MemoryMax=300M; ` + own + `MemoryMax=infinity`, "oom_memcg=/" + slice + ","},
		{"as shipped", "", ""}, // what of it comes first, or the machine's own end, is up to its size
	} {
		t.Run(c.name, func(t *testing.T) {
			b := installed(t)
			b.transcribes("clip.wav")
			engine := "whisper-appliance-engine@" + b.whole() + ".service"
			pid, was := b.property(server, "MainPID"), b.property(engine, "MainPID")
			if c.limits != "" {
				b.must(c.limits, engine)
				defer b.must(`systemctl revert whisperappliance.slice; systemctl revert "$1"`, engine)
			}
			answered := make(chan int, 1)
			go func() {
				status, _ := b.get("/livez")
				answered <- status
			}()
			said, took := b.hog(engine)
			if status := <-answered; status != http.StatusOK {
				t.Errorf("the server answers with %d meanwhile", status)
			}
			const result = ": Failed with result 'oom-kill'"
			if !strings.Contains(said, c.met) || !strings.Contains(said, engine+result) {
				t.Errorf("want the limit %q, and %s%s:\n%s", c.met, engine, result, said)
			} else {
				figure(t, "ended for memory %.1f s after it began to eat", took.Seconds())
			}
			b.livesOn(pid, engine, was)
		})
	}
}

// exposures are how much systemd may find that a unit could do without, on a
// kernel that has all it asks about: 0 is a unit that may nothing, 10 one that
// may all.
var exposures = []struct {
	unit string
	most float64
}{
	{server, 1.5},
	{"whisper-appliance-engine@a.service", 1.0},
	{"whisper-appliance-decode@1.service", 1.0},
	{"whisper-appliance-updater.service", 2.5},
	{"whisper-appliance-fetch.service", 1.5},
}

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// TestSecurity judges the units as systemd has loaded them.
func TestSecurity(t *testing.T) {
	b := installed(t)
	for _, e := range exposures {
		r := b.Run(t.Context(), "systemd-analyze", "security", "--no-pager", "--threshold="+strconv.Itoa(int(e.most*10)), e.unit)
		found := exposure.FindStringSubmatch(r.Out)
		if found == nil {
			t.Errorf("%s: %v", e.unit, r)
			continue
		}
		figure(t, "%s: %s, at most %.1f", e.unit, found[1], e.most)
		if r.Code != 0 {
			t.Errorf("%s: %v", e.unit, r)
		}
	}
}

// TestDecoderIsLockedIn: on a kernel with landlock the decoder's own sandbox is
// full, and decodes.
func TestDecoderIsLockedIn(t *testing.T) {
	b := installed(t)
	if lsm := b.must(`cat /sys/kernel/security/lsm`); !strings.Contains(lsm, "landlock") {
		t.Fatalf("this kernel has no landlock: %s", lsm)
	}
	figure(t, "FLAC became text after %.1f s", b.transcribes("other.flac").Seconds())
	r := b.Run(t.Context(), "whisper-appliance", "doctor")
	if !strings.Contains(r.Out, "its own sandbox is full") {
		t.Errorf("doctor does not say that the decoder is fully locked in: %v", r)
	}
}
