package diagnose

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
)

// unpack gives a bundle's files by name.
func unpack(t *testing.T, data []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o600 {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
		files[filepath.Base(h.Name)] = string(text)
	}
}

// secrets are what a bundle must never hold, as they may stand anywhere.
func secrets() []string {
	return []string{
		"wa_QTdDfg9vKJx1n3mZyQwErTyUiOpAsDfGhJkLzXcVb", "hunter2hunter2", "sk-abcdefghijklmnop1234", "MIGHAgEAMBMGByqGSM49",
		"192.0.2.77", "2001:db8::17", "parrot", "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9",
		"signature=abc", "tell-nobody", "patient-interview.mp3", "what was said in it",
	}
}

const leaky = `Authorization: Bearer wa_QTdDfg9vKJx1n3mZyQwErTyUiOpAsDfGhJkLzXcVb
{"api_key": "hunter2hunter2", "password":"hunter2hunter2"} token=hunter2hunter2
fetch https://user:hunter2hunter2@models.example.net/x.bin?signature=abc&key=1 failed
openai key sk-abcdefghijklmnop1234 refused for 192.0.2.77:53122 and [2001:db8::17]:443
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49
-----END PRIVATE KEY-----
hash sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9
parrot.lan and parrot answer on 127.0.0.1:5001 and [::1]:5001 at 12:34:56
Environment=WHISPER_APPLIANCE_KEY=tell-nobody
`

func TestABundleTellsNoSecrets(t *testing.T) {
	dir := t.TempDir()
	unit := filepath.Join(dir, "whisper-appliance.service.d")
	if err := os.Mkdir(unit, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(unit, "override.conf"), []byte("[Service]\n"+leaky), 0o644); err != nil {
		t.Fatal(err)
	}
	spool := filepath.Join(dir, "spool")
	if err := os.Mkdir(spool, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(spool, "patient-interview.mp3"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	journal := journalOf(t, `{"MESSAGE":"callers 192.0.2.77 and parrot sent Bearer wa_QTdDfg9vKJx1n3mZyQwErTyUiOpAsDfGhJkLzXcVb",`+
		`"FILE":"patient-interview.mp3","TEXT":"what was said in it","_HOSTNAME":"parrot","PRIORITY":"6"}`+"\nno JSON: hunter2hunter2\n")
	bundle := Bundle{Host: "parrot.lan", Now: time.Unix(1e9, 0), Parts: []Part{
		{"leaky.txt", "a log", func(context.Context) ([]byte, error) { return []byte(leaky), nil }},
		{"failed.txt", "no log", func(context.Context) ([]byte, error) { return nil, errors.New("parrot: token=hunter2hunter2") }},
		{"drop-ins.txt", "drop-ins", DropIns(dir)},
		{"machine.txt", "the machine", Machine(paths.Paths{Proc: filepath.Join(dir, "proc"), Spool: spool})},
		{"journal.jsonl", "the journal", Journal(journal)},
		{"config.json", "settings", JSON(func(context.Context) (*config.Report, error) {
			return Settings(&config.Report{Values: []config.Value{
				{Key: "models.mirror", Value: "https://user:hunter2hunter2@models.example.net/?signature=abc"},
				{Key: "tls.names", Value: []string{"parrot.lan"}},
			}}), nil
		})},
	}}
	var b bytes.Buffer
	entries, err := bundle.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, b.Bytes())
	for name, text := range files {
		for _, secret := range secrets() {
			if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
				t.Errorf("%s tells %q:\n%s", name, secret, text)
			}
		}
	}
	for name, want := range map[string]string{
		"leaky.txt": "127.0.0.1:5001 and [::1]:5001 at 12:34:56", "failed.txt": "not available: HOST", "README.txt": "not whole: HOST",
		"journal.jsonl": `"MESSAGE":"callers ADDRESS and HOST`, "machine.txt": "1 files of 1 bytes", "config.json": "https://models.example.net/",
		"drop-ins.txt": "override.conf",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s has no %q:\n%s", name, want, files[name])
		}
	}
	if len(entries) != len(bundle.Parts) || len(files) != len(entries)+1 {
		t.Errorf("%d parts gave %d entries and %d files", len(bundle.Parts), len(entries), len(files))
	}
}

// journalOf is a socket at which a journal is read to whoever connects.
func journalOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "j")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, text)
			c.Close()
		}
	}()
	return path
}

func TestPartsAreBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	bundle := Bundle{Parts: []Part{
		{"large.txt", "much", func(context.Context) ([]byte, error) { return bytes.Repeat([]byte("ab\n"), partBytes/2), nil }},
		{"slow.txt", "late", func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }},
	}}
	var b bytes.Buffer
	entries, err := bundle.Write(ctx, &b)
	if err != nil {
		t.Fatal(err)
	}
	if entries[0].Bytes != partBytes || !strings.Contains(entries[0].Error, "cut off") {
		t.Errorf("a large part: %+v", entries[0])
	}
	if !strings.Contains(entries[1].Error, "deadline") {
		t.Errorf("a slow part: %+v", entries[1])
	}
}

func TestJournalThatIsNotThere(t *testing.T) {
	if _, err := Journal(filepath.Join(t.TempDir(), "none"))(t.Context()); err == nil {
		t.Error("a journal was read where there is none")
	}
}

type fakeUnits struct{ err error }

func (f fakeUnits) Units(_ context.Context, names ...string) ([]systemd.Unit, error) {
	var list []systemd.Unit
	for _, n := range names {
		list = append(list, systemd.Unit{Name: n, Load: "loaded"})
	}
	return list, f.err
}

func (f fakeUnits) Effective(context.Context, string) (map[string]string, error) {
	return map[string]string{"ProtectSystem": "strict"}, f.err
}

func (f fakeUnits) Manager(context.Context) (systemd.Manager, error) {
	return systemd.Manager{Version: "252"}, f.err
}

func TestUnitsPart(t *testing.T) {
	text, err := UnitsPart(fakeUnits{})(t.Context())
	if err != nil || !strings.Contains(string(text), `"version": "252"`) || strings.Count(string(text), `"ProtectSystem"`) == 0 {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := UnitsPart(fakeUnits{errors.New("no bus")})(t.Context()); err == nil {
		t.Error("units were told without systemd")
	}
}

func TestVersionsOf(t *testing.T) {
	if v := VersionsOf(paths.Paths{Kind: paths.Standalone}); len(v.Slots) != 0 {
		t.Errorf("slots of no installed appliance: %+v", v.Slots)
	}
	v := VersionsOf(paths.Paths{Kind: paths.Installed, Slots: t.TempDir()})
	if len(v.Slots) != 3 || v.Slots[0].Error == "" {
		t.Errorf("empty slots: %+v", v.Slots)
	}
}
