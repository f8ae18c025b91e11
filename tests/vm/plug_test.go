//go:build e2e

package vm

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"whisper-appliance/tests/vm/machine"
)

const (
	statusFile = "/run/whisper-appliance-updater/status.json"
	cutLimit   = 8 * time.Minute // until the moment of a cut has come
)

// inPhase is how the updater's status begins in a phase.
func inPhase(phase string) string {
	return `^\s*\{\s*"state":\s*"[a-z_]+",\s*"phase":\s*"` + phase + `"`
}

// cutDuring runs a script in the machine and pulls the plug in the midst of it:
// when a file matches, and a while after.
func (b *box) cutDuring(what, file, pattern string, after time.Duration, script string, args ...string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), cutLimit)
	defer cancel()
	if err := b.CutWhen(ctx, file, pattern, after); err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan machine.Result, 1)
	go func() { ended <- b.Sh(ctx, script, args...) }()
	cuts, err := b.Pulled(ctx)
	if err != nil {
		b.t.Fatalf("%s: %v; the script: %v", what, err, <-ended)
	}
	<-ended
	figure(b.t, "plug pulled during %s: in all %d cuts, of %d KiB not flushed %d KiB were lost",
		what, cuts.Cuts, (cuts.Kept+cuts.Lost)>>10, cuts.Lost>>10)
}

// bootLimit is how long it may take from the boot until the appliance serves: a
// minute, and on a host that is slow or busy twice what the bare machine took.
func (b *box) bootLimit() time.Duration { return max(time.Minute, 2*b.First) }

// boots switches the machine on again.
func (b *box) boots() {
	b.t.Helper()
	if err := b.Boot(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	if said := b.must(`dmesg --level=emerg,alert,crit,err | grep -i ext4 || true`); said != "" {
		b.t.Errorf("the file system is damaged:\n%s", said)
	}
}

// bootsAndServes switches the machine on again, and wants the appliance to
// answer soon, with one of the versions.
func (b *box) bootsAndServes(what string, versions ...string) (version string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*b.bootLimit())
	defer cancel()
	if err := b.PowerOn(ctx); err != nil {
		b.t.Fatal(err)
	}
	b.until("the appliance answers after the boot", 2*b.bootLimit(), func() bool {
		status, _ := b.get("/readyz")
		return status == http.StatusOK
	})
	took := time.Since(b.On)
	version = b.version()
	figure(b.t, "%s: %s serves %.1f s after the power was back", what, version, took.Seconds())
	if took > b.bootLimit() {
		b.t.Errorf("%s: it served %v after the power was back, at most %v", what, took, b.bootLimit())
	}
	ok := false
	for _, v := range versions {
		ok = ok || v == version
	}
	if !ok {
		b.t.Errorf("%s: %s serves, want %s", what, version, strings.Join(versions, " or "))
	}
	if err := b.Settled(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.transcribes("clip.wav")
	return version
}

// TestPlugWhileIdle: it comes back by itself.
func TestPlugWhileIdle(t *testing.T) {
	b := installed(t)
	version := b.version()
	cuts, err := b.Cut()
	if err != nil {
		t.Fatal(err)
	}
	figure(t, "%d KiB were not flushed", (cuts.Kept+cuts.Lost)>>10)
	b.bootsAndServes("idle", version)
	if b.State != "running" {
		t.Errorf("the machine is %s:\n%s", b.State, b.must(`systemctl --failed`))
	}
}

// stalled is a WAV file of two hours' noise that stops coming after some MiB,
// until ctx ends.
func stalled(ctx context.Context, mib int64) io.Reader {
	size := uint32(2 * 3600 * 16000 * 2)
	header := bytes.NewBufferString("RIFF")
	binary.Write(header, binary.LittleEndian, 36+size) //nolint:errcheck // into memory, and so below
	header.WriteString("WAVEfmt ")
	binary.Write(header, binary.LittleEndian, []uint16{16, 0, 1, 1, 16000, 0, 32000, 0, 2, 16}) //nolint:errcheck
	header.WriteString("data")
	binary.Write(header, binary.LittleEndian, size) //nolint:errcheck
	return io.MultiReader(header, io.LimitReader(noise{}, mib<<20), stall{ctx})
}

// stall gives nothing.
type stall struct{ ctx context.Context }

func (s stall) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, context.Cause(s.ctx)
}

// noise is loud and never ends.
type noise struct{}

func (noise) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i * 167)
	}
	return len(p), nil
}

// TestPlugInUpload: what came half is not kept, and what comes next is served.
func TestPlugInUpload(t *testing.T) {
	b := installed(t)
	version := b.version()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan int, 1)
	go func() {
		status, _ := b.upload(ctx, "long.wav", "", stalled(ctx, 16))
		done <- status
	}()
	// What is being received has no name: it is seen where the server holds it.
	pid := b.property(server, "MainPID")
	b.until("the upload is on the disk", cutLimit, func() bool {
		return b.must(`for f in /proc/"$1"/fd/*; do
			case $(readlink "$f") in *"/spool/"*) stat -L -c %s "$f" ;; esac
			done | awk '$1 > 8388608 {print "there"}'`, pid) != ""
	})
	if _, err := b.Cut(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if status := <-done; status == http.StatusOK {
		t.Error("half an upload was answered")
	}
	b.bootsAndServes("in mid-upload", version)
	if left := b.must(`find /var/lib/whisper-appliance/spool -mindepth 1`); left != "" {
		t.Errorf("what came half is still there: %s", left)
	}
}

// TestPendingModel: a model that was to be fetched is fetched after a reboot
// though nobody visits.
func TestPendingModel(t *testing.T) {
	b := installed(t)
	b.must(`systemctl stop whisper-appliance.path whisper-appliance.service
		rm -f /var/lib/whisper-appliance/models/ggml-tiny.bin*
		printf '%s\n' "$1" >/var/lib/whisper-appliance/pending/first-model
		chown whisper-appliance: /var/lib/whisper-appliance/pending/first-model; sync`, machine.Stuck+"/models")
	if err := b.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	figure(t, "the machine was up again after %.1f s", b.Booted.Seconds())
	took := b.until("the pending model is there though nobody visits", 2*b.bootLimit(), func() bool {
		return b.Sh(t.Context(), `test -s /var/lib/whisper-appliance/models/ggml-tiny.bin && test ! -e /var/lib/whisper-appliance/pending/first-model`).Code == 0
	})
	figure(t, "the pending model was there %.1f s after the boot", took.Seconds())
	b.transcribes("clip.wav")
}

// TestPlugInUpgrade: cut while dpkg unpacks, the version before serves and apt
// can go on; cut while it is configured, one of the two serves, and
// dpkg --configure -a brings the new one.
func TestPlugInUpgrade(t *testing.T) {
	b := installed(t)
	before := b.version()
	const newer = machine.Stuck + "/newer.deb"
	b.cutDuring("apt upgrade, unpacking", "/var/log/dpkg.log", `(?s)upgrade whisper-appliance.*status half-installed whisper-appliance\S* \S+\s*\z`, 300*time.Millisecond, aptInstall+newer)
	b.bootsAndServes("cut while unpacking", before)
	b.must(`dpkg --configure -a || true`)
	b.cutDuring("apt upgrade, configuring", statusFile, inPhase("overlap"), 0, aptInstall+newer)
	b.bootsAndServes("cut while configuring", before, packaged+devMark)
	begin := time.Now()
	b.must(`dpkg --configure -a`)
	figure(t, "dpkg --configure -a: %.1f s", time.Since(begin).Seconds())
	if got := b.must(`dpkg-query -W -f '${Status} ${Version}' whisper-appliance`); got != "install ok installed "+packaged+devMark {
		t.Errorf("the package is %q", got)
	}
	if got := b.version(); got != packaged+devMark {
		t.Errorf("%s serves", got)
	}
	b.transcribes("clip.wav")
	b.must(`dpkg --audit; apt-get check -q`)
}
