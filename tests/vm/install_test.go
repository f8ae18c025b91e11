//go:build e2e

package vm

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"whisper-appliance/tests/vm/machine"
)

// TestInstall is the story of the first day with the plug pulled in it: while
// the package is being configured. The machine boots, dpkg --configure -a puts
// it right, and the first recording becomes text.
func TestInstall(t *testing.T) {
	b := bare(t)
	figure(t, "the bare machine was up after %.1f s", b.Booted.Seconds())
	b.cutDuring("apt install", statusFile, inPhase("stage"), time.Second, aptInstall+machine.Stuck+"/appliance.deb")
	b.boots()
	if said := b.must(`dpkg --audit`); !strings.Contains(said, "whisper-appliance") {
		t.Errorf("dpkg knows of nothing unfinished: %q", said)
	}
	begin := time.Now()
	said := b.must(`dpkg --configure -a`)
	figure(t, "dpkg --configure -a: %.1f s", time.Since(begin).Seconds())
	if !strings.Contains(said, "5001") {
		t.Errorf("the installation does not say where to go:\n%s", said)
	}
	begin = time.Now()
	if status, body := b.get("/health"); status != http.StatusOK {
		t.Errorf("health: %d %s", status, body)
	}
	figure(t, "the first request was answered after %.1f s", time.Since(begin).Seconds())
	figure(t, "the first recording was text after %.1f s", b.transcribes("clip.wav").Seconds())
	b.whole()
	b.must(`dpkg --audit; apt-get check -q`)
}
