package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
)

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		name    string
		host    *host
		verdict Verdict
		says    string
	}{
		{"all well", &host{}, OK, "all loaded, none failed"},
		{"missing", &host{units: map[string]systemd.Unit{systemd.Socket: {Name: systemd.Socket, Load: "not-found"}}}, Problem, "whisper-appliance.socket is not there"},
		{"masked", &host{units: map[string]systemd.Unit{systemd.Socket: {Name: systemd.Socket, Load: "masked"}}}, Advice, "is masked"},
		{"bad", &host{units: map[string]systemd.Unit{systemd.Service: {Name: systemd.Service, Load: "bad-setting"}}}, Problem, "cannot be loaded (bad-setting)"},
		{"failed", &host{units: map[string]systemd.Unit{systemd.Service: {Name: systemd.Service, Load: "loaded", Active: "failed", Result: "exit-code"}}}, Problem, "has failed (exit-code)"},
		{"crash loop", &host{units: map[string]systemd.Unit{systemd.Service: {Name: systemd.Service, Load: "loaded", Active: "activating", Sub: "auto-restart", Restarts: 7}}}, Problem, "over and over, 7 times"},
		{"restarted", &host{units: map[string]systemd.Unit{systemd.Service: {Name: systemd.Service, Load: "loaded", Active: "active", Restarts: 2}}}, Advice, "restarted 2 times"},
		{"replaced", &host{units: map[string]systemd.Unit{systemd.Service: {Name: systemd.Service, Load: "loaded", Fragment: "/elsewhere/x.service"}}}, Advice, "is not the package's"},
		{"drop-ins", &host{units: map[string]systemd.Unit{systemd.Service: {Name: systemd.Service, Load: "loaded", DropIns: []string{"/elsewhere/override.conf"}}}}, OK, "/elsewhere/override.conf"},
		{"disabled", &host{states: map[string]string{systemd.Target: "disabled"}}, Advice, "it is disabled"},
		{"no answer", &host{err: errNoBus}, Advice, "systemd does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, installed(t, c.host).units(t.Context()), c.verdict, c.says)
		})
	}
	d := installed(t, nil)
	d.Units, d.Bus = nil, errNoBus
	expect(t, d.units(t.Context()), Advice, "not looked at: systemd does not answer")
	d.Paths.Kind = paths.Development
	expect(t, d.units(t.Context()), OK, "not run by systemd")
}

func TestPort(t *testing.T) {
	const ours = "  0: 00000000:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n"
	const theirs = "  1: 0100007F:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0\n"
	const passing = "  2: 0100007F:1389 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n"
	const lone = "  3: 00000000:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1 0 100 0 0 10 0\n"
	active := map[string]systemd.Unit{systemd.Socket: {Name: systemd.Socket, Load: "loaded", Active: "active"}}
	for _, c := range []struct {
		name    string
		table   string
		units   map[string]systemd.Unit
		verdict Verdict
		says    string
	}{
		{"ours", ours + passing, active, OK, "port 5001 is ours"},
		{"free", passing, nil, OK, "port 5001 is free"},
		{"taken", theirs, nil, Problem, "taken by another program: nginx (222) on 127.0.0.1:5001"},
		{"shared", ours + theirs, active, Problem, "nginx (222)"},
		{"nobody", "", active, Problem, "nobody listens on port 5001"},
		{"our server's, without a socket unit", lone, nil, OK, "port 5001 is ours"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := installed(t, &host{units: c.units, addresses: []string{"[::]:5001", "/run/x.sock"}})
			write(t, filepath.Join(d.Paths.Proc, "net", "tcp"), "  sl  local_address\n"+c.table)
			for pid, inode := range map[string]string{"1": "111", "222": "222", "444": "444"} {
				// The kernel keeps 15 characters.
				write(t, filepath.Join(d.Paths.Proc, pid, "comm"), map[string]string{"1": "systemd\n", "222": "nginx\n", "444": "whisper-applian\n"}[pid])
				if err := os.MkdirAll(filepath.Join(d.Paths.Proc, pid, "fd"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink("socket:["+inode+"]", filepath.Join(d.Paths.Proc, pid, "fd", "7")); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, d.port(t.Context()), c.verdict, c.says)
		})
	}
}

func TestParseSocket(t *testing.T) {
	for line, want := range map[string]string{
		" 0: 0100007F:1389 00000000:0000 0A 0:0 00:0 0 0 0 5 1":                                                 "127.0.0.1:5001",
		" 0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 5 1": "[::1]:80",
		" 0: 0100007F:1389 00000000:0000 01 0:0 00:0 0 0 0 5 1":                                                 "",
		" 0: nonsense 00000000:0000 0A 0:0 00:0 0 0 0 5 1":                                                      "",
		"": "",
	} {
		l, ok := parseSocket(line)
		if ok != (want != "") || ok && l.at.String() != want {
			t.Errorf("%q is %v %v, want %q", line, l, ok, want)
		}
	}
}

func TestMachine(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*Doctor)
		look    func(*Doctor, context.Context) []Finding
		verdict Verdict
		says    string
	}{
		{"clock before the build", func(d *Doctor) { d.Built = d.Now().Add(48 * time.Hour) }, (*Doctor).time, Problem, "before this program was made"},
		{"clock kept", func(d *Doctor) { d.Synced = func() (bool, error) { return true, nil } }, (*Doctor).time, OK, "synchronised"},
		{"clock not kept", func(d *Doctor) { d.Synced = func() (bool, error) { return false, nil } }, (*Doctor).time, Advice, "nothing keeps the clock right"},
		{"clock unknown", func(d *Doctor) {}, (*Doctor).time, Advice, "not looked at"},
		{"disk full", func(d *Doctor) { d.Free = func(string) (int64, error) { return 1 << 20, nil } }, (*Doctor).disk, Problem, "1 MiB free"},
		{"disk well", func(d *Doctor) {}, (*Doctor).disk, OK, "1 TiB free"},
		{"disk unknown", func(d *Doctor) { d.Free = func(string) (int64, error) { return 0, fs.ErrPermission } }, (*Doctor).disk, Advice, "not looked at"},
		{"no settings", func(d *Doctor) { d.Settings = nil }, (*Doctor).disk, Advice, "not looked at"},
		{"memory well", func(d *Doctor) {}, (*Doctor).memory, OK, "memory suffices"},
		{"no resolver", func(d *Doctor) {
			d.Lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
		}, (*Doctor).dns, Advice, "cannot be resolved"},
		{"resolver", func(d *Doctor) { d.Lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, nil } }, (*Doctor).dns, OK, "can be resolved"},
		{"mirror is a directory", func(d *Doctor) { d.Settings.Models.Mirror = "/srv/models" }, (*Doctor).dns, OK, "no model comes from the network"},
		{"no model", func(d *Doctor) {}, (*Doctor).model, Advice, "recordings are refused until it is there"},
		{"bad model", func(d *Doctor) { os.WriteFile(filepath.Join(d.Models.Dir, "ggml-base.bin"), []byte("ggml"), 0o644) }, (*Doctor).model, Problem, "base cannot be used"},
		{"no GPU", func(d *Doctor) {}, (*Doctor).gpu, OK, "no GPU"},
		{"GPU", func(d *Doctor) {
			os.MkdirAll(filepath.Join(d.Devices, "dri"), 0o755)
			os.WriteFile(filepath.Join(d.Devices, "dri", "renderD128"), nil, 0o644)
		}, (*Doctor).gpu, Advice, "uses the CPU alone"},
		{"no decoder", func(d *Doctor) {}, (*Doctor).decoder, Advice, "not looked at"},
		{"decoder full", func(d *Doctor) { d.Decoder = func(context.Context) (string, error) { return "full", nil } }, (*Doctor).decoder, OK, "full"},
		{"decoder reduced", func(d *Doctor) { d.Decoder = func(context.Context) (string, error) { return "reduced", nil } }, (*Doctor).decoder, Advice, "reduced"},
		{"decoder broken", func(d *Doctor) {
			d.Decoder = func(context.Context) (string, error) {
				return "", fault.New(fault.Unavailable, "x", "it ended").Try("look")
			}
		}, (*Doctor).decoder, Problem, "no recording can be decoded"},
		{"no server", func(d *Doctor) {}, (*Doctor).server, Advice, "no server answers"},
		{"server ok", healthy(Health{Status: "ok", Version: "1.2.3"}), (*Doctor).server, OK, "1.2.3"},
		{"server degraded", healthy(Health{Status: "degraded", Reasons: []string{"no model"}}), (*Doctor).server, Advice, "degraded: no model"},
		{"server broken", func(d *Doctor) {
			d.Health = func(context.Context) (Health, error) {
				return Health{}, fault.New(fault.Internal, "x", "nonsense").Try("look")
			}
		}, (*Doctor).server, Problem, "does not answer as it should"},
		{"nothing serves", func(d *Doctor) {}, (*Doctor).versions, Problem, "no slot serves"},
		{"empty slot", func(d *Doctor) { os.Symlink("slots/a", d.Paths.Current) }, (*Doctor).versions, Problem, "slot a has no release"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := installed(t, &host{})
			c.change(d)
			expect(t, c.look(d, t.Context()), c.verdict, c.says)
		})
	}
}

func healthy(h Health) func(*Doctor) {
	return func(d *Doctor) { d.Health = func(context.Context) (Health, error) { return h, nil } }
}

func TestConfig(t *testing.T) {
	d := installed(t, &host{})
	expect(t, d.config(t.Context()), OK, "the settings are right")
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	write(t, file, "[server]\nlisten = \":80\"\n[engine]\nthreads = 3\n[decode]\nffmpeg = \"/opt/ffmpeg\"\n")
	d.Settings, d.Report, d.Wrong = config.Load(config.Sources{Config: file})
	found := d.config(t.Context())
	for _, want := range []string{`server.listen = ":80" (config.toml:2) has no effect`, `decode.ffmpeg = "/opt/ffmpeg"`} {
		expect(t, found, Advice, want)
	}
	write(t, file, "[server]\nlisen = 3\nmax_upload = true\n")
	d.Settings, d.Report, d.Wrong = config.Load(config.Sources{Config: file})
	found = d.config(t.Context())
	expect(t, found, Problem, "did you mean server.listen")
	expect(t, found, Problem, "max_upload")
}

func TestFFmpeg(t *testing.T) {
	var all strings.Builder
	for _, name := range needed() {
		all.WriteString(" A....D " + name + "  words\n")
	}
	partly := strings.Replace(all.String(), " A....D opus  words", " A....D libopus  words (codec opus)", 1)
	partly = strings.Replace(partly, " A....D mp3  words\n", "", 1)
	for _, c := range []struct {
		version, list string
		err           error
		verdict       Verdict
		says          string
	}{
		{"ffmpeg version 5.1.9-0+deb12u1 Copyright", all.String(), nil, OK, "ffmpeg 5.1.9-0+deb12u1"},
		{"ffmpeg version 5.1", partly, nil, Advice, "cannot decode mp3"},
		{"hello", "", nil, Problem, "says nothing of its version"},
		{"", "", fs.ErrNotExist, Problem, "ffmpeg is not there"},
		{"", "", errors.New("exit status 127"), Problem, "does not run"},
	} {
		d := installed(t, &host{})
		d.FFmpeg = func(_ context.Context, args ...string) (string, error) {
			if args[0] == "-version" {
				return c.version, c.err
			}
			return c.list, nil
		}
		expect(t, d.ffmpeg(t.Context()), c.verdict, c.says)
	}
}

func TestCertificate(t *testing.T) {
	d := installed(t, &host{})
	d.Host = "speech.lan"
	expect(t, d.certificate(t.Context()), OK, "no certificate yet")
	now := d.Now()
	for _, c := range []struct {
		name    string
		from    time.Time
		to      time.Time
		names   []string
		mode    os.FileMode
		verdict Verdict
		says    string
	}{
		{"good", now.Add(-time.Hour), now.AddDate(1, 0, 0), []string{"speech.lan"}, 0o644, OK, "good until 2028-01-02"},
		{"other name", now.Add(-time.Hour), now.AddDate(1, 0, 0), []string{"other.lan"}, 0o644, Advice, "not for this machine's name"},
		{"ends soon", now.Add(-time.Hour), now.AddDate(0, 0, 7), []string{"speech.lan"}, 0o644, Advice, "ends on 2027-01-09"},
		{"ended", now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0), []string{"speech.lan"}, 0o644, Problem, "ended on"},
		{"not yet", now.AddDate(1, 0, 0), now.AddDate(2, 0, 0), []string{"speech.lan"}, 0o644, Problem, "begins on"},
		{"key closed", now.Add(-time.Hour), now.AddDate(1, 0, 0), []string{"speech.lan"}, 0o600, Problem, "may not read the key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			writeCertificate(t, filepath.Join(d.Paths.TLS, "server.crt"), c.from, c.to, c.names)
			key := filepath.Join(d.Paths.TLS, "server.key")
			write(t, key, "x")
			if err := os.Chmod(key, c.mode); err != nil {
				t.Fatal(err)
			}
			expect(t, d.certificate(t.Context()), c.verdict, c.says)
		})
	}
	// The directory above counts, too.
	if err := errors.Join(os.Chmod(filepath.Join(d.Paths.TLS, "server.key"), 0o644), os.Chmod(d.Paths.TLS, 0o700)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		expect(t, d.certificate(t.Context()), Problem, "may not read the key")
	}
	write(t, filepath.Join(d.Paths.TLS, "server.crt"), "nonsense")
	expect(t, d.certificate(t.Context()), Problem, "no PEM certificate")
	if err := errors.Join(os.Remove(filepath.Join(d.Paths.TLS, "server.crt")), syscall.Mkfifo(filepath.Join(d.Paths.TLS, "server.crt"), 0o644)); err != nil {
		t.Fatal(err)
	}
	expect(t, d.certificate(t.Context()), Problem, "no regular file")
	d.Settings.TLS.Certificate, d.Settings.TLS.Key = filepath.Join(d.Paths.TLS, "mine.pem"), "k"
	expect(t, d.certificate(t.Context()), Problem, "mine.pem")
}

func writeCertificate(t *testing.T, file string, from, to time.Time, names []string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// TestAnswered: a check that ignores its context is given up, and one that
// heeds it is heard.
func TestAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, release := &Doctor{}, make(chan struct{})
		hangs := check{"certificate", func(context.Context) []Finding { <-release; return one(well("too late")) }}
		began := time.Now()
		found := d.look(t.Context(), hangs, nil)
		expect(t, found, Advice, "not looked at: no answer in 20s")
		if took := time.Since(began); len(found) != 1 || found[0].Check != "certificate" || took > limit+moment {
			t.Errorf("after %v: %+v", took, found)
		}
		close(release)
		heeds := check{"dns", func(ctx context.Context) []Finding { <-ctx.Done(); return one(well("in time")) }}
		expect(t, d.look(t.Context(), heeds, nil), OK, "in time")
	})
}

// TestExamineEverywhere: with nothing to ask, as in a checkout, it says so and
// finds no problem of its own making.
func TestExamineEverywhere(t *testing.T) {
	d := installed(t, nil)
	d.Paths.Kind, d.Units, d.Mender, d.Bus = paths.Development, nil, nil, errNoBus
	d.FFmpeg = func(context.Context, ...string) (string, error) { return "ffmpeg version 5", nil }
	write(t, filepath.Join(d.Paths.Proc, "net", "tcp"), "")
	var told []string
	found := d.Examine(t.Context(), func(f Finding) { told = append(told, f.Check) })
	if Worst(found) == Problem || len(told) != len(found) {
		t.Errorf("%d told: %+v", len(told), found)
	}
	for _, c := range d.checks() {
		if !strings.Contains(strings.Join(told, " "), c.name) {
			t.Errorf("nothing of %s", c.name)
		}
	}
	if Worst(nil) != OK {
		t.Error("no findings are not ok")
	}
}
