package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"whisper-appliance/internal/fault"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// alone fails the test where path is not the only file of its directory.
func alone(t *testing.T, path string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(list) != 1 || list[0].Name() != filepath.Base(path) {
		t.Errorf("the directory of %s holds %v, %v", path, list, err)
	}
}

func TestSaveSettingOfEveryKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.toml")
	t.Chdir(filepath.Dir(path))
	values := map[string]string{
		"server.listen": "127.0.0.1:1", "server.http_redirect": "false", "server.plain_api": "0", "server.max_upload": "5000000",
		"server.max_connections": "7", "tls.certificate": "c.pem", "tls.key": "k.pem", "tls.names": "a.lan,b.lan", "auth.keys_file": "keys",
		"auth.open_to": "nobody", "auth.trusted_proxies": "10.0.0.1,fd00::/8", "models.directory": "m", "models.default": "tiny",
		"models.mirror": "http://m.lan/x", "models.preload": "true", "engine.threads": "2", "engine.idle_unload": "60s", "engine.idle_exit": "2h",
		"engine.device": "cpu", "transcription.language": "de", "transcription.beam_size": "5", "transcription.best_of": "1",
		"transcription.max_duration": "1h", "transcription.header_wait": "1s", "decode.ffmpeg": "ffmpeg", "decode.timeout": "1h",
		"log.level": "debug", "log.format": "json",
	}
	if err := SaveSettings(path, values); err != nil {
		t.Fatal(err)
	}
	alone(t, path)
	_, r, err := Load(Sources{Settings: path})
	if err != nil || len(r.Notes) > 0 {
		t.Fatalf("what was saved does not load: %v, %q\n%s", err, r.Notes, read(t, path))
	}
	for _, v := range r.Values {
		if v.Origin == "settings.toml" != (values[v.Key] != "") || v.Locked {
			t.Errorf("%s comes from %q, locked %v", v.Key, v.Origin, v.Locked)
		}
	}
	if v, _ := r.Find("engine.idle_unload"); v.Value != "1m" {
		t.Errorf("idle_unload = %v", v.Value)
	}
}

func TestSaveSettingKeepsTheRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.toml")
	if err := os.WriteFile(path, []byte("[models]\ndefault = \"base\"\nfuture = [1, 2]\n[log]\nlevel = \"warn\"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := saveSetting(path, "models.default", "tiny"); err != nil {
		t.Fatal(err)
	}
	text := read(t, path)
	for _, want := range []string{settingsNote, "default = 'tiny'", "future = [1, 2]", "level = 'warn'"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
	alone(t, path)
}

func TestSaveSettingRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.toml")
	const before = "[models]\ndefault = \"base\"\n"
	if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ key, value, code, want string }{
		{"models.defalt", "tiny", "unknown_key", "there is no setting models.defalt; did you mean models.default?"},
		{"models", "tiny", "unknown_key", "models is a section"},
		{"default", "tiny", "unknown_key", "did you mean models.default?"},
		{"engine.threads", "all", "bad_value", `engine.threads cannot be "all"; it must be a whole number from 0 to 256`},
		{"models.default", "a/b", "bad_value", "models.default cannot be"},
	}
	for _, tt := range tests {
		err := saveSetting(path, tt.key, tt.value)
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Code != tt.code || e.Kind != fault.BadInput || !strings.Contains(e.Message, tt.want) {
			t.Errorf("%s=%s: %v, want %s", tt.key, tt.value, err, tt.want)
		}
	}
	if err := SaveSettings(path, map[string]string{"log.level": "x", "log.format": "y", "models.default": "tiny"}); err == nil || !strings.Contains(err.Error(), "2 problems") {
		t.Errorf("two at once: %v", err)
	}
	if read(t, path) != before {
		t.Error("the file was changed")
	}
	alone(t, path)
}

func TestSaveSettingFailures(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "settings.toml")
	if err := os.WriteFile(broken, []byte("[models\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := saveSetting(broken, "log.level", "info"); err == nil || !strings.Contains(err.Error(), broken+":1:") {
		t.Errorf("broken file: %v", err)
	}
	if read(t, broken) != "[models\n" {
		t.Error("the broken file was changed")
	}
	alone(t, broken)
	err := saveSetting(filepath.Join(dir, "no", "settings.toml"), "log.level", "info")
	if fault.KindOf(err) != fault.NotFound || !strings.Contains(fault.Hint(err), filepath.Join(dir, "no")) {
		t.Errorf("no directory: %v", err)
	}
	if err := saveSetting(dir, "log.level", "info"); err == nil {
		t.Error("a directory was rewritten")
	}
}

func TestSourcesSave(t *testing.T) {
	from := files(t, map[string]string{
		"config.toml":   "[log]\nlevel = \"warn\"\n",
		"settings.toml": "[log]\nformat = \"text\"\n",
	})
	from.Environ = []string{"WHISPER_MODEL=tiny"}
	dir := t.TempDir()
	tests := []struct {
		changes    map[string]string
		code, want string
	}{
		{map[string]string{"log.level": "debug"}, "locked", "log.level is fixed by config.toml:2"},
		{map[string]string{"models.default": "base", "engine.threads": "1"}, "locked", "models.default is fixed by environment WHISPER_MODEL"},
		{map[string]string{"tls.key": dir}, "bad_config", "value to save: tls.key is set but tls.certificate is not"},
		{map[string]string{"log.levl": "debug"}, "unknown_key", "did you mean log.level?"},
	}
	before := read(t, from.Settings)
	for _, tt := range tests {
		err := from.Save(tt.changes)
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != tt.code || !strings.Contains(err.Error(), tt.want) || fault.Hint(err) == "" && tt.code == "locked" {
			t.Errorf("%v: %v, want %s", tt.changes, err, tt.want)
		}
		if read(t, from.Settings) != before {
			t.Fatalf("%v: the file was changed", tt.changes)
		}
	}
	if err := from.Save(map[string]string{"tls.key": dir, "tls.certificate": dir, "log.format": "json"}); err != nil {
		t.Fatal(err)
	}
	c, r, err := Load(from)
	if err != nil || c.TLS.Key != dir || c.Log.Format != "json" || r.Origin("tls.key") != "settings.toml" {
		t.Errorf("config = %+v, %v", c, err)
	}
	if err := os.WriteFile(from.Config, []byte("[log\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := from.Save(map[string]string{"log.format": "text"}); err == nil || !strings.Contains(err.Error(), "config.toml:1:") {
		t.Errorf("beside a broken file: %v", err)
	}
}

func TestSaveSettingAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.toml")
	keys := []string{"engine.threads", "server.max_connections", "transcription.beam_size", "transcription.best_of"}
	var wg sync.WaitGroup
	for _, key := range keys {
		wg.Go(func() {
			if err := saveSetting(path, key, "3"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		_, r, err := Load(Sources{Settings: path})
		if err != nil || r.Origin(key) != "settings.toml" {
			t.Errorf("%s was lost: %v", key, err)
		}
	}
	alone(t, path)
}

func TestRewriteKeepsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a file away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 12346); err != nil {
		t.Fatal(err)
	}
	path, like := filepath.Join(dir, "f"), dir
	owner := func() (uint32, uint32) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		s := info.Sys().(*syscall.Stat_t)
		return s.Uid, s.Gid
	}
	write := func(text string) {
		if err := Rewrite(path, 0o600, like, func([]byte) ([]byte, error) { return []byte(text), nil }); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	if u, g := owner(); u != 12345 || g != 12346 {
		t.Errorf("a new file belongs to %d:%d, not to the directory's owner", u, g)
	}
	if err := os.Chown(path, 0, 777); err != nil {
		t.Fatal(err)
	}
	write("two")
	if u, g := owner(); u != 0 || g != 777 {
		t.Errorf("an old file went to %d:%d", u, g)
	}
	for _, c := range []struct {
		like     string
		uid, gid uint32
	}{{t.TempDir(), 0, 0}, {filepath.Join(dir, "missing"), 12345, 12346}} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		like = c.like
		write("three")
		if u, g := owner(); u != c.uid || g != c.gid {
			t.Errorf("like %s: a new file belongs to %d:%d, want %d:%d", c.like, u, g, c.uid, c.gid)
		}
	}
}

func TestUnmarshalStrict(t *testing.T) {
	var v struct {
		A int `toml:"a"`
	}
	if err := Unmarshal("f", []byte("a = 1\n"), &v); err != nil || v.A != 1 {
		t.Fatal(err, v)
	}
	for in, want := range map[string]string{
		"a = 1\nb = 2": "f:2: there is no setting b here",
		"a = \"x\"":    "f:1:5: this is not TOML that can be read here",
		"a = ":         "f:1:",
	} {
		err := Unmarshal("f", []byte(in), &v)
		if fault.KindOf(err) != fault.BadInput || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

// saveSetting saves one setting.
func saveSetting(path, key, value string) error {
	return SaveSettings(path, map[string]string{key: value})
}
