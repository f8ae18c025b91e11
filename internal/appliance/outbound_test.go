package appliance

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/work"
)

// TestOutboundSettings: where jobs may go is what the settings say at that moment,
// each purpose by itself, and nowhere by default.
func TestOutboundSettings(t *testing.T) {
	p := box(t)
	c := config.Default()
	p.Jobs.Config = func() *config.Config { return c }
	p.Jobs.Paths.Config = filepath.Join(t.TempDir(), "config.toml")
	if err := errors.Join(p.Paths.Prepare(), p.Jobs.Open(t.Context())); err != nil {
		t.Fatal(err)
	}
	desk := p.Jobs.Desk()
	url, hook := work.Wish{URL: "https://files.example.org/a.wav"}, work.Wish{Webhook: "https://hooks.example.org/"}
	code := func(err error) string {
		var f *fault.Error
		errors.As(err, &f)
		if f == nil {
			return ""
		}
		return f.Code
	}
	check := func(when string, w work.Wish, want string) {
		t.Helper()
		if got := code(desk.Check(w)); got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	check("by default", url, "outbound_off")
	check("by default", hook, "outbound_off")
	c = config.Default()
	c.Outbound.Recordings = []string{"files.example.org"}
	check("with a host for recordings", url, "")
	check("with a host for recordings", hook, "outbound_off")
	c.Outbound.Webhooks = []string{"hooks.example.org"}
	check("without a secret", hook, "webhook_secret")
	beside := filepath.Join(filepath.Dir(p.Jobs.Paths.Config), "webhook-secret")
	touch(t, beside, "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX")
	check("with a secret for everybody to read", hook, "webhook_secret")
	if err := os.Chmod(beside, 0o600); err != nil {
		t.Fatal(err)
	}
	check("with one beside config.toml", hook, "")
	c.Outbound.SecretFile = filepath.Join(t.TempDir(), "none")
	check("with another one that is not there", hook, "webhook_secret")
	if most := desk.Largest(); most != int64(c.Server.MaxUpload) {
		t.Errorf("a recording may have %d bytes", most)
	}
	c.Outbound.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	if got := desk.From.Networks(); len(got) != 1 || desk.Webhooks.Places.Networks()[0] != got[0] || desk.Webhooks.Places.Redirects != 0 {
		t.Errorf("networks %v", got)
	}
	if _, err := desk.Event(job.Job{}); code(err) != "starting" {
		t.Errorf("before the server is there: %v", err)
	}
	desk.Told("delivered") // to nobody
}
