//go:build e2e

package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The spool becomes a small file system, filled up; and as it was.
const (
	fullSpool = `mount -t tmpfs -o size=64k,mode=0700 tmpfs /var/lib/whisper-appliance/spool
		chown whisper-appliance: /var/lib/whisper-appliance/spool
		head -c 1M /dev/zero >/var/lib/whisper-appliance/spool/filler 2>/dev/null || true`
	emptySpool = `if mountpoint -q /var/lib/whisper-appliance/spool; then umount /var/lib/whisper-appliance/spool; fi`
)

// part is one part of the appliance, broken and mended.
type part struct {
	name     string // of the component
	breaks   string // scripts
	mends    string
	flac     bool // only another form than the reference clip's shows it
	refused  int  // status of that recording meanwhile; 200 = it goes on
	critical bool // health is an error, not degraded
}

const (
	model  = "/var/lib/whisper-appliance/models/ggml-tiny.bin"
	engine = `/opt/whisper-appliance/current/bin/whisper-appliance-engine`
)

// asServer runs a command with the file systems as the server sees them.
func asServer(command string) string {
	return `nsenter -t "$(systemctl show --value -p MainPID whisper-appliance.service)" --mount sh -c '` + command + `'`
}

var parts = map[string]part{
	"no ffmpeg": {name: "decoder", flac: true, refused: 503,
		breaks: `mv /usr/bin/ffmpeg /usr/bin/ffmpeg.away`,
		mends:  `mv /usr/bin/ffmpeg.away /usr/bin/ffmpeg`},
	"no model": {name: "models", refused: 503,
		breaks: `mv ` + model + ` /srv/e2e/away; systemctl stop 'whisper-appliance-engine@*.service'`,
		mends:  `mv /srv/e2e/away ` + model},
	"corrupt model": {name: "models", refused: 503,
		breaks: `mv ` + model + ` /srv/e2e/away; head -c 2000000 /srv/e2e/away >` + model + `; chmod 644 ` + model + `; systemctl stop 'whisper-appliance-engine@*.service'`,
		mends:  `cp -p /srv/e2e/away ` + model + `; rm /srv/e2e/away`},
	"no engine": {name: "engine", refused: 503,
		breaks: `systemctl stop 'whisper-appliance-engine@*.service'; mv ` + engine + ` /srv/e2e/away`,
		mends:  `mv /srv/e2e/away ` + engine},
	"full disk": {name: "spool", refused: 507, breaks: fullSpool, mends: emptySpool},
	"read-only state": {name: "state", refused: 503, critical: true,
		// Over itself: the server has files in it open for writing, which no mount
		// that is turned read-only may have.
		breaks: asServer(`mount --bind /var/lib/whisper-appliance /var/lib/whisper-appliance && mount -o remount,bind,ro /var/lib/whisper-appliance`),
		mends:  asServer(`umount -l /var/lib/whisper-appliance`)},
	"no bus": {name: "systemd", refused: 200,
		breaks: `systemctl stop dbus.socket dbus.service`,
		mends:  `systemctl start dbus.socket`},
	"certificate unreadable": {name: "tls", refused: 200,
		breaks: `chown root: /var/lib/whisper-appliance/tls/*; chmod 0600 /var/lib/whisper-appliance/tls/*`,
		mends:  `chown whisper-appliance: /var/lib/whisper-appliance/tls/*`},
}

// recordingOf is what a part's test sends.
func (b *box) recordingOf(p part) (name string, data []byte) {
	b.t.Helper()
	if !p.flac {
		data, _ := reference(b.t)
		return "reference.wav", data
	}
	// Not a WAV file of the one form that needs no decoder.
	made := "/srv/e2e/speech.flac"
	wav := filepath.Join(checkout(b.t), "tests", "testdata", "reference.wav")
	if err := b.CopyIn(b.t.Context(), wav, "/srv/e2e/speech.wav", 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.must(`ffmpeg -nostdin -y -v error -i /srv/e2e/speech.wav "$1"`, made)
	return "speech.flac", []byte(b.Sh(b.t.Context(), `cat "$1"`, made).Out)
}

// TestBrokenParts: each part broken in turn does what its declaration says,
// has one entry in the journal, and is well again when it is mended.
func TestBrokenParts(t *testing.T) {
	b := shared(t)
	for name, p := range parts {
		t.Run(name, func(t *testing.T) {
			b := &box{b.Machine, t, b.client}
			b.ready()
			file, recording := b.recordingOf(p)
			since := b.must(`date +%s`)
			b.must(p.breaks)
			mended := false
			mend := func() {
				if !mended {
					b.must(p.mends)
				}
				mended = true
			}
			defer mend()
			b.degrades(p, file, recording)
			b.inJournal(p.name, since)
			mend()
			begin := time.Now()
			b.until(p.name+" is well again", 60*time.Second, func() bool { return b.component(p.name) == "ok" })
			figure(t, "well again %.1f s after it was mended", time.Since(begin).Seconds())
			b.ready() // what needs it is a moment later
			b.transcribes(plain)
		})
	}
}

// degrades waits for health to say so, and asks for what needs the part.
func (b *box) degrades(p part, file string, recording []byte) {
	b.t.Helper()
	took := b.until(p.name+" is told to fail", 60*time.Second, func() bool { return b.component(p.name) == "failed" })
	figure(b.t, "noticed after %.1f s", took.Seconds())
	want := "degraded"
	if p.critical {
		want = "error"
	}
	d := b.detail()
	if d.Status != want {
		b.t.Errorf("health is %q, want %q", d.Status, want)
	}
	for _, c := range d.Components {
		if c.Name == p.name && (c.Error == "" || c.Hint == "") {
			b.t.Errorf("%s says neither why nor what to do: %+v", p.name, c)
		}
	}
	for _, path := range []string{"/livez", "/", "/v1/models", "/metrics"} {
		if status, body := b.get(plain + path); status != http.StatusOK {
			b.t.Errorf("%s: %d %.200s", path, status, body)
		}
	}
	status, text := b.upload(plain, file, recording)
	if status != p.refused {
		b.t.Errorf("a recording is answered with %d %.300s, want %d", status, text, p.refused)
	}
}

// inJournal wants one entry of the component's failure, with its fields.
func (b *box) inJournal(component, since string) {
	b.t.Helper()
	entries, err := b.Journal(b.t.Context(), "--since=@"+since, "COMPONENT="+component)
	if err != nil {
		b.t.Fatal(err)
	}
	failures := 0
	for _, e := range entries {
		if !strings.HasPrefix(e["MESSAGE"], "component failed") {
			continue
		}
		failures++
		for _, field := range []string{"MESSAGE_ID", "ERROR", "SEARCH_PATHS", "WORKING_DIRECTORY", "EXECUTABLE", "SLOT", "VERSION", "UNIT", "USER"} {
			if e[field] == "" {
				b.t.Errorf("the entry has no %s: %v", field, e)
			}
		}
	}
	if failures == 0 {
		b.t.Errorf("the journal has no failure of %s: %v", component, entries)
	}
}

// TestPartsAreComponents keeps the table above to names that the appliance has.
func TestPartsAreComponents(t *testing.T) {
	b := shared(t)
	for name, p := range parts {
		if b.component(p.name) == "" {
			t.Errorf("%s: there is no component %q", name, p.name)
		}
	}
}
