//go:build e2e && soak

package e2e

import (
	"strconv"
	"strings"
	"testing"

	"whisper-appliance/internal/deployment"
)

// held is what the machine holds at a moment, while nobody asks for anything.
type held struct {
	files, bytes int64 // of ours on the disk
	pss          int64 // of all our processes
}

// TestUpdateSoak: five updates and rollbacks in a row with the real release, under
// load: each comes to what it should, no request fails, and nothing grows.
func TestUpdateSoak(t *testing.T) {
	b := updated(t, sound)
	before := b.packaged()
	var seen []held
	for n := range 5 {
		var ended deployment.Record
		counts := b.while(b.eight(), func() {
			b.does(nil, "unpin")
			b.does(&ended, "apply", sound.Version, "--wait")
		})
		b.servesVersion(sound.Version)
		if b.nothingFailed("update", counts); ended.Outcome != deployment.Committed {
			t.Errorf("update %d: %+v", n+1, ended)
		}
		counts = b.while(b.eight(), func() { b.does(nil, "rollback") })
		b.servesVersion(before)
		b.nothingFailed("rollback", counts)
		if failed := b.must(`systemctl list-units --plain --no-legend --state=failed`); failed != "" {
			t.Errorf("units have failed:\n%s", failed)
		}
		seen = append(seen, b.holds())
		if t.Failed() {
			t.Fatalf("after %d", n+1)
		}
	}
	// The first one fills caches and the slot that was empty.
	early, late := seen[1], seen[len(seen)-1]
	figure(t, "5 updates and 5 rollbacks of the real release: %+d files, %+d bytes on the disk, %+d bytes of memory since the second", late.files-early.files, late.bytes-early.bytes, late.pss-early.pss)
	if late.files > early.files+2 || late.bytes > early.bytes+1<<20 || late.pss > 64<<20 { // the updater, which ends when it has nothing to do
		t.Errorf("it grows: %+v, after the second %+v", late, early)
	}
}

// holds counts. The memory is that of what lives through an update: engines hold
// a model or have gone, and the server is a new one each time.
func (b *box) holds() (h held) {
	b.t.Helper()
	sizes, err := b.Pss("whisper-appliance")
	if err != nil {
		b.t.Fatal(err)
	}
	for unit, size := range sizes {
		if !strings.Contains(unit, "@") && unit != "whisper-appliance.service" {
			h.pss += size
		}
	}
	b.scan(&h.files, `find /opt/whisper-appliance /var/lib/whisper-appliance* /var/cache/whisper-appliance* /run/whisper-appliance* -type f | wc -l`)
	b.scan(&h.bytes, `du -csb /opt/whisper-appliance /var/lib/whisper-appliance* /var/cache/whisper-appliance* | tail -n 1 | cut -f 1`)
	return h
}

func (b *box) scan(to *int64, script string) {
	b.t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(b.must(script)), 10, 64)
	if err != nil {
		b.t.Fatal(err)
	}
	*to = n
}
