package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// files writes files below a new directory and gives Sources that name them.
func files(t *testing.T, content map[string]string) Sources {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Sources{
		Settings: filepath.Join(dir, "settings.toml"),
		Config:   filepath.Join(dir, "config.toml"),
		ConfigD:  filepath.Join(dir, "config.d"),
	}
}

func TestLoadNothing(t *testing.T) {
	c, r, err := Load(Sources{})
	if err != nil || !reflect.DeepEqual(c, Default()) {
		t.Fatalf("Load = %+v, %v; want the defaults", c, err)
	}
	for _, v := range r.Values {
		if v.Origin != "default" || v.Locked {
			t.Errorf("%s: origin %q, locked %v", v.Key, v.Origin, v.Locked)
		}
	}
	if c, _, err = Load(files(t, nil)); err != nil || !reflect.DeepEqual(c, Default()) {
		t.Fatalf("files that are not there: %+v, %v", c, err)
	}
}

func TestPrecedence(t *testing.T) {
	from := files(t, map[string]string{
		"settings.toml":     "[models]\ndefault = \"one\"\n[log]\nlevel = \"warn\"\n",
		"config.toml":       "# mine\n\n[models]\ndefault = \"two\"\n",
		"config.d/20.toml":  "models.default = \"four\"\n",
		"config.d/10.toml":  "models = { default = \"three\" }\n",
		"config.d/.30.toml": "not TOML",
		"config.d/30.bak":   "not TOML",
	})
	steps := []struct {
		name, value, origin string
		locked              bool
		remove              func()
	}{
		{"flag", "seven", "flag --model", true, func() { from.Flags = nil }},
		{"variable", "six", "environment WHISPER_APPLIANCE_MODELS_DEFAULT", true, func() { from.Environ = from.Environ[:1] }},
		{"older variable", "five", "environment WHISPER_MODEL", true, func() { from.Environ = nil }},
		{"config.d, last name", "four", "config.d/20.toml:1", true, func() { os.Remove(filepath.Join(from.ConfigD, "20.toml")) }},
		{"config.d, first name", "three", "config.d/10.toml:1", true, func() { os.RemoveAll(from.ConfigD) }},
		{"config", "two", "config.toml:4", true, func() { os.Remove(from.Config) }},
		{"settings", "one", "settings.toml", false, func() { os.Remove(from.Settings) }},
		{"default", "base", "default", false, func() {}},
	}
	from.Environ = []string{"WHISPER_MODEL=five", "WHISPER_APPLIANCE_MODELS_DEFAULT=six"}
	from.Flags = []Flag{{Name: "model", Key: "models.default", Text: "seven"}}
	for _, step := range steps {
		c, r, err := Load(from)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if c.Models.Default != step.value || r.Origin("models.default") != step.origin || r.Locked("models.default") != step.locked {
			t.Errorf("%s: %q from %q, locked %v", step.name, c.Models.Default, r.Origin("models.default"), r.Locked("models.default"))
		}
		step.remove()
	}
	if r := (&Report{}); r.Origin("no.such") != "" || r.Locked("no.such") {
		t.Error("a setting that is not there has an origin")
	}
}

func TestEveryType(t *testing.T) {
	dir := t.TempDir()
	c, _, err := Load(files(t, map[string]string{"config.toml": `
[server]
listen = "127.0.0.1:0"
http_redirect = false
max_upload = 1_000_000
max_connections = 0x10
[tls]
certificate = "` + dir + `/c.pem"
key = "` + dir + `/k.pem"
names = ["speech.lan", "192.0.2.7", "fd00::7"]
[auth]
trusted_proxies = ["10.1.2.3", "192.168.1.9/24", "::ffff:192.0.2.1", "::ffff:10.0.0.0/104"]
[models]
mirror = "https://mirror.lan/models"
[engine]
idle_unload = "0s"
idle_exit = "1h30m"
[transcription]
language = "haw"
beam_size = 8
`}))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Server = Server{Listen: "127.0.0.1:0", PlainAPI: true, MaxUpload: 1e6, MaxConnections: 16}
	want.TLS = TLS{Certificate: dir + "/c.pem", Key: dir + "/k.pem", Names: []string{"speech.lan", "192.0.2.7", "fd00::7"}}
	want.Auth.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32"), netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("10.0.0.0/8")}
	want.Models.Mirror = "https://mirror.lan/models"
	want.Engine.IdleUnload, want.Engine.IdleExit = 0, 90*time.Minute
	want.Transcription.Language, want.Transcription.BeamSize = "haw", 8
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// TestBadValues gives every kind of value that is wrong, each alone.
func TestBadValues(t *testing.T) {
	tests := []struct{ toml, want string }{
		{"[server]\nlisten = \"5001\"", `config.toml:2: server.listen is "5001"; it must be an address and a port`},
		{"[server]\nlisten = \":http\"", `server.listen is ":http"`},
		{"[server]\nlisten = \":65536\"", `server.listen is ":65536"`},
		{"[server]\nlisten = \"256.1.1.1:80\"", `server.listen is "256.1.1.1:80"`},
		{"[server]\nlisten = 5001", "server.listen is 5001; it must be an address"},
		{"[server]\nhttp_redirect = \"yes\"", `server.http_redirect is "yes"; it must be true or false`},
		{"[server]\nmax_upload = \"4 gigs\"", `server.max_upload is "4 gigs"; it must be a size`},
		{"[server]\nmax_upload = \"99999999TiB\"", "it must be a size"},
		{"[server]\nmax_upload = 0", "server.max_upload is 0; it must be a size above zero"},
		{"[server]\nmax_upload = -1", "server.max_upload is -1"},
		{"[server]\nmax_upload = 1.5", "server.max_upload is 1.5"},
		{"[server]\nmax_upload = \"\"", `server.max_upload is ""`},
		{"[server]\nmax_connections = 0", "server.max_connections is 0; it must be a whole number from 1 to 65536"},
		{"[server]\nmax_connections = \"5\"", `server.max_connections is "5"; it must be a whole number`},
		{"[tls]\ncertificate = \"c.pem\"", `tls.certificate is "c.pem"; it must be empty, or the full path`},
		{"[tls]\nnames = \"speech.lan\"", `tls.names is "speech.lan"; it must be a list`},
		{"[tls]\nnames = [\"ok.lan\", \"not ok\"]", `tls.names is ["ok.lan", "not ok"]; it must be a list, each item a host name`},
		{"[tls]\nnames = [1]", "tls.names is [1]; it must be a list"},
		{"[tls.names]\na = 1", "config.toml:1: tls.names is a table; it must be a list"},
		{"[auth]\nopen_to = \"everybody\"", `auth.open_to is "everybody"; it must be one of private, loopback, nobody`},
		{"[auth]\ntrusted_proxies = [\"proxy.lan\"]", `it must be a list of addresses or networks`},
		{"[auth]\ntrusted_proxies = [\"10.0.0.0/33\"]", `it must be a list of addresses or networks`},
		{"[models]\ndefault = \"../base\"", `models.default is "../base"; it must be a model's name`},
		{"[models]\ndefault = \"\"", `models.default is ""`},
		{"[models]\nmirror = \"ftp://mirror.lan\"", `models.mirror is "ftp://mirror.lan"; it must be empty, the full path`},
		{"[models]\nmirror = \"http://\"", `models.mirror is "http://"`},
		{"[engine]\ndevice = \"cuda\"", `engine.device is "cuda"; it must be "cpu"`},
		{"[engine]\nidle_unload = 10", `engine.idle_unload is 10; it must be a time of at least 1s with its unit`},
		{"[engine]\nidle_unload = \"-1s\"", `engine.idle_unload is "-1s"`},
		{"[engine]\nidle_exit = \"1ns\"", `engine.idle_exit is "1ns"; it must be a time of at least 1s with its unit, such as "15s", "10m" or "1h30m", or "0s", which means never`},
		{"[engine]\nthreads = -1", "engine.threads is -1; it must be a whole number from 0 to 256"},
		{"[transcription]\nlanguage = \"English\"", `transcription.language is "English"; it must be "auto" or a language's code`},
		{"[transcription]\nbeam_size = 9", "transcription.beam_size is 9; it must be a whole number from 0 to 8"},
		{"[transcription]\nheader_wait = \"0s\"", `header_wait is "0s"; it must be a time of at least 1s with its unit, such as "15s", "10m" or "1h30m"`},
		{"[transcription]\nheader_wait = \"1ns\"", `header_wait is "1ns"; it must be a time of at least 1s`},
		{"[transcription]\nmax_duration = \"999ms\"", `max_duration is "999ms"; it must be a time of at least 1s`},
		{"[decode]\ntimeout = \"1ns\"", `decode.timeout is "1ns"; it must be a time of at least 1s`},
		{"[log]\nlevel = \"INFO\"", `log.level is "INFO"; it must be one of debug, info, warn, error`},
		{"[log]\nlevel = 1979-05-27", "log.level is 1979-05-27; it must be one of"},
		{"[decode]\nffmpeg = \"ffmpeg\"", `decode.ffmpeg is "ffmpeg"; it must be empty, or the full path`},
		{"[server]\nlisten = ", "config.toml:2:"},
		{"[server]\nlisten = \":1\"\nlisten = \":2\"", "config.toml:3:"},
		{"server = 1", "config.toml:1: server is a section; it must be a line [server]"},
		{"[[server]]\nlisten = \":1\"", "server is a section"},
	}
	for _, tt := range tests {
		_, _, err := Load(files(t, map[string]string{"config.toml": tt.toml}))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q\n got %v\nwant %s", tt.toml, err, tt.want)
		}
	}
}

func TestUnknownKeys(t *testing.T) {
	tests := []struct{ toml, want string }{
		{"[server]\nlisten = \":1\"\nlisen = \":5001\"", "config.toml:3: there is no setting server.lisen; did you mean server.listen?"},
		{"\n[sever]\nlisten = \":5001\"", "config.toml:3: there is no setting sever.listen; did you mean server.listen?"},
		{"[server]\ndefault = \"tiny\"", "there is no setting server.default; did you mean models.default?"},
		{"listen = \":5001\"", "config.toml:1: there is no setting listen; did you mean server.listen?"},
		{"server.max_uplaod = 1", "there is no setting server.max_uplaod; did you mean server.max_upload?"},
		{"engine = {\"idle_unlod\" = \"1s\"}", "config.toml:1: there is no setting engine.idle_unlod; did you mean engine.idle_unload?"},
		{"[server]\nzzzzzzzz = 1", "there is no setting server.zzzzzzzz"},
		{"[network]\nbridge = 1", "there is no setting network.bridge"},
	}
	for _, tt := range tests {
		_, _, err := Load(files(t, map[string]string{"config.toml": tt.toml}))
		if err == nil || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%q\n got %v\nwant …%s", tt.toml, err, tt.want)
		}
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	from := files(t, map[string]string{
		"config.toml":     "[server]\nlisten = 1\nmax_conections = 3\n[log]\nlevel = \"loud\"\n",
		"config.d/a.toml": "[server\n",
		"config.d/b.toml": "[log]\nformat = true\n",
	})
	from.Environ = []string{"WHISPER_APPLIANCE_LOG_LEVL=debug", "WHISPER_APPLIANCE_ENGINE_THREADS=many", "MAX_UPLOAD_SIZE=lots"}
	from.Flags = []Flag{{Name: "listen", Key: "server.listen", Text: "here"}, {Name: "odd", Key: "no.such", Text: ""}}
	c, r, err := Load(from)
	if c != nil || r != nil {
		t.Error("a broken configuration was given out")
	}
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Code != "bad_config" || e.Kind != fault.BadInput || e.Hint == "" || !strings.Contains(e.Message, "10 problems") {
		t.Fatalf("error = %+v", err)
	}
	problems, _ := errors.AsType[Problems](err)
	want := []struct{ code, field, text string }{
		{"bad_value", "server.listen", "config.toml:2: "},
		{"unknown_key", "server.max_conections", "config.toml:3: "},
		{"bad_value", "log.level", "config.toml:5: "},
		{"bad_toml", "", "a.toml:1:"},
		{"bad_value", "log.format", "b.toml:2: "},
		{"bad_value", "server.max_upload", `environment MAX_UPLOAD_SIZE: server.max_upload is "lots"`},
		{"bad_value", "engine.threads", "environment WHISPER_APPLIANCE_ENGINE_THREADS: "},
		{"unknown_variable", "WHISPER_APPLIANCE_LOG_LEVL", "did you mean WHISPER_APPLIANCE_LOG_LEVEL?"},
		{"bad_value", "server.listen", `flag --listen: server.listen is "here"`},
		{"unknown_key", "no.such", "flag --odd: there is no setting no.such"},
	}
	if len(problems) != len(want) {
		t.Fatalf("%d problems:\n%v", len(problems), problems)
	}
	for i, w := range want {
		p := problems[i]
		if p.Code != w.code || p.Field != w.field || !strings.Contains(p.Message, w.text) {
			t.Errorf("problem %d = %s %s %q, want %s %s %q", i, p.Code, p.Field, p.Message, w.code, w.field, w.text)
		}
	}
}

func TestCertificateNeedsItsKey(t *testing.T) {
	for _, tt := range []struct{ set, missing string }{{"certificate", "key"}, {"key", "certificate"}} {
		_, _, err := Load(files(t, map[string]string{"config.toml": "[tls]\n" + tt.set + " = \"" + t.TempDir() + "\"\n"}))
		want := "config.toml:2: tls." + tt.set + " is set but tls." + tt.missing + " is not"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %s", err, want)
		}
	}
}

func TestSavedSettingsOfAnotherVersion(t *testing.T) {
	from := files(t, map[string]string{"settings.toml": "[models]\ndefault = \"tiny\"\nfuture = 1\n[engine]\ndevice = \"quantum\"\n[tomorrow]\nx = 1\n"})
	c, r, err := Load(from)
	if err != nil {
		t.Fatalf("a version that was rolled back to would not start: %v", err)
	}
	if c.Models.Default != "tiny" || c.Engine.Device != "cpu" || r.Origin("engine.device") != "default" || len(r.Notes) != 3 {
		t.Errorf("config = %+v\nnotes = %q", c, r.Notes)
	}
	if !strings.Contains(r.Notes[0], "settings.toml:3: there is no setting models.future") {
		t.Errorf("note = %q", r.Notes[0])
	}
	if _, _, err := Load(files(t, map[string]string{"settings.toml": "[models\n"})); err == nil {
		t.Error("a settings file that is no TOML was taken")
	}
}

func TestUnreadable(t *testing.T) {
	dir := t.TempDir() // a directory is not a readable file, also for root
	_, _, err := Load(Sources{Config: dir})
	if p, _ := errors.AsType[Problems](err); len(p) != 1 || p[0].Code != "unreadable" || p[0].Hint == "" {
		t.Errorf("error = %v", err)
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err = Load(Sources{ConfigD: file}); err == nil || !strings.Contains(err.Error(), file+" cannot be read") {
		t.Errorf("error = %v", err)
	}
}

// TestPlaces: hosts that the appliance may go to for users.
func TestPlaces(t *testing.T) {
	for host, good := range map[string]bool{
		"files.example.org": true, "*.example.org": true, "files.example.org:8443": true, "*.example.org:80": true, "localhost": true,
		"192.0.2.7": true, "192.0.2.7:9000": true, "2001:db8::7": true, "[2001:db8::7]:9000": true,
		"": false, "*": false, "*.": false, "https://files.example.org": false, "files.example.org/x": false, "files.*.org": false, "*.192.0.2.7": false,
		"files.example.org:0": false, "files.example.org:99999": false, "files.example.org:http": false, "192.0.2": false,
	} {
		if isPlace(host) != good {
			t.Errorf("%q: %v", host, !good)
		}
	}
}
