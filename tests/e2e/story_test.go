//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"whisper-appliance/tests/e2e/machine"
)

const idlePss = 40 << 20 // bytes that an idle appliance may hold

// services are the processes of ours that systemd runs.
func (b *box) services() string {
	b.t.Helper()
	return b.must(`systemctl list-units --plain --no-legend --type=service --state=active,activating,reloading 'whisper-appliance*'`)
}

// rests waits until the engine has gone and holds the rest to its limit.
func (b *box) rests() {
	b.t.Helper()
	b.until("the engine ends when idle", 30*time.Second, func() bool {
		return !strings.Contains(b.services(), "whisper-appliance-engine@")
	})
	sizes, err := b.Pss("whisper-appliance")
	if err != nil {
		b.t.Fatal(err)
	}
	sum := int64(0)
	for _, size := range sizes {
		sum += size
	}
	figure(b.t, "idle: %.1f MB resident %v", float64(sum)/(1<<20), sizes)
	if sum > idlePss {
		b.t.Errorf("%d bytes resident, at most %d", sum, idlePss)
	}
}

// TestInstallToText is the story of the first day: apt install, nothing runs
// but sockets, the first request is answered, a recording becomes text, the
// engine goes when nobody needs it, and comes again.
func TestInstallToText(t *testing.T) {
	b := fresh(t, bookworm)
	begin := time.Now()
	said := b.must(aptInstall)
	figure(t, "apt install: %.1f s", time.Since(begin).Seconds())
	if !strings.Contains(said, "5001") {
		t.Errorf("the installation does not say where to go:\n%s", said)
	}
	b.until("nothing runs but sockets", 30*time.Second, func() bool { return b.services() == "" })
	if got := b.property(socketUnit, "ActiveState"); got != "active" {
		t.Fatalf("the socket is %s", got)
	}
	begin = time.Now()
	status, body := b.get(plain + "/health")
	figure(t, "first request, from nothing but sockets: %.2f s", time.Since(begin).Seconds())
	if status != http.StatusOK || !strings.Contains(body, `"status":"ok"`) {
		t.Errorf("/health: %d %s", status, body)
	}
	begin = time.Now()
	b.transcribes(secure)
	figure(t, "first recording, the engine's start included: %.2f s", time.Since(begin).Seconds())
	b.rests()
	b.transcribes(plain)
	b.smoke()
}

// smoke is the check after a deployment, as people run it.
func (b *box) smoke() {
	b.t.Helper()
	begin := time.Now()
	r := b.Run(b.t.Context(), "whisper-appliance", "smoke", "--json")
	took := time.Since(begin)
	if r.Code != 0 {
		b.t.Errorf("smoke: %v", r)
	}
	if !json.Valid([]byte(r.Out)) {
		b.t.Errorf("smoke --json: %s", r.Out)
	}
	figure(b.t, "smoke: %.1f s", took.Seconds())
	if took > 15*time.Second {
		b.t.Errorf("smoke took %v, at most 15 s", took)
	}
}

// TestOtherHosts is the short form of the story: Debian 13, and a host that
// forbids namespaces, where doctor relaxes what cannot be.
func TestOtherHosts(t *testing.T) {
	for name, o := range map[string]machine.Options{
		"debian 13":     {Suite: "trixie", Unprivileged: true},
		"no namespaces": {Suite: "bookworm", Unprivileged: true, NoNamespaces: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := fresh(t, o)
			b.must(aptInstall)
			b.ready()
			b.transcribes(secure)
			b.smoke()
			dropIns := b.must(`find /etc/systemd/system/whisper-appliance*.d -name '*.conf' 2>/dev/null | sort || true`)
			if (dropIns != "") != o.NoNamespaces {
				t.Errorf("drop-ins of doctor: %q", dropIns)
			}
			figure(t, "drop-ins: %d", len(strings.Fields(dropIns)))
			b.purges()
		})
	}
}

// TestStartTimes: two seconds to READY, one for the components.
func TestStartTimes(t *testing.T) {
	b := shared(t)
	b.must(`systemctl restart whisper-appliance.service`)
	script := `for p in ExecMainStartTimestampMonotonic ActiveEnterTimestampMonotonic; do systemctl show --value -p $p whisper-appliance.service; done`
	var started, ready int64
	if _, err := fmt.Sscan(b.must(script), &started, &ready); err != nil {
		t.Fatal(err)
	}
	took := time.Duration(ready-started) * time.Microsecond
	d := b.detail()
	figure(t, "start to READY: %v; components: %.0f ms", took.Round(time.Millisecond), d.Startup.Components)
	if took > 2*time.Second {
		t.Errorf("READY after %v, at most 2 s", took)
	}
	if d.Startup.Components <= 0 || d.Startup.Components > 1000 {
		t.Errorf("components take %v ms, at most 1000", d.Startup.Components)
	}
}

// TestJudges: what looks at an installation is content with a good one.
func TestJudges(t *testing.T) {
	b := shared(t)
	for _, args := range []string{"doctor --json", "components --json", "verify --json", "paths --check --json", "version --check --json"} {
		r := b.Run(t.Context(), append([]string{"whisper-appliance"}, strings.Fields(args)...)...)
		if r.Code != 0 || !json.Valid([]byte(r.Out)) {
			t.Errorf("%s: %v", args, r)
		}
	}
	b.smoke()
	bundle := b.must(`cd "$(mktemp -d)"; whisper-appliance diagnose >&2; ls`)
	if bundle == "" {
		t.Error("diagnose leaves no bundle")
	}
}
