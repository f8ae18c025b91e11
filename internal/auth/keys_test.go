package auth

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

func newKey(t *testing.T, name string, scopes ...Scope) (string, Key) {
	t.Helper()
	plaintext, k, err := New(name, scopes, time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return plaintext, k
}

func TestNew(t *testing.T) {
	one, k := newKey(t, "laptop", Transcribe, Admin, Transcribe)
	two, other := newKey(t, "laptop", Transcribe)
	if len(one) != len("wa_")+43 || !strings.HasPrefix(one, "wa_") || one == two || k.Hash == other.Hash {
		t.Errorf("keys %q and %q", one, two)
	}
	if strings.Contains(k.Hash, one) || !slices.Equal(k.Scopes, []Scope{Admin, Transcribe}) {
		t.Errorf("key = %+v", k)
	}
	for _, tt := range []struct {
		name   string
		scopes []Scope
		code   string
	}{
		{"x", nil, "no_scope"}, {"x", []Scope{"root"}, "unknown_scope"}, {"x", []Scope{Admin, ""}, "unknown_scope"},
		{"", []Scope{Admin}, "bad_name"}, {"a b", []Scope{Admin}, "bad_name"}, {"-x", []Scope{Admin}, "bad_name"},
		{strings.Repeat("x", 65), []Scope{Admin}, "bad_name"}, {"a\nb", []Scope{Admin}, "bad_name"},
	} {
		plaintext, _, err := New(tt.name, tt.scopes, time.Time{})
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != tt.code || e.Kind != fault.BadInput || plaintext != "" {
			t.Errorf("New(%q, %q) = %q, %v; want %s", tt.name, tt.scopes, plaintext, err, tt.code)
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.toml")
	if keys, err := List(path); err != nil || keys != nil {
		t.Fatalf("no file: %v, %v", keys, err)
	}
	plaintext, one := newKey(t, "one", Transcribe)
	_, two := newKey(t, "two", Admin)
	for _, k := range []Key{one, two} {
		if err := Add(path, k); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
	keys, err := List(path)
	if err != nil || len(keys) != 2 || keys[0].Name != "one" || keys[0].Hash != one.Hash || !keys[0].Created.Equal(one.Created) || !slices.Equal(keys[1].Scopes, two.Scopes) {
		t.Errorf("keys = %+v, %v", keys, err)
	}
	data, _ := os.ReadFile(path)
	if bytes.Contains(data, []byte(plaintext)) {
		t.Error("the file holds the key itself")
	}
	if err := Add(path, one); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a name twice: %v", err)
	}
	if err := Remove(path, "three"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("removing what is not there: %v", err)
	}
	if err := Remove(path, "one"); err != nil {
		t.Fatal(err)
	}
	if keys, err = List(path); err != nil || len(keys) != 1 || keys[0].Name != "two" {
		t.Errorf("keys = %+v, %v", keys, err)
	}
	if err := Remove(path, "two"); err != nil {
		t.Fatal(err)
	}
	if keys, err = List(path); err != nil || len(keys) != 0 {
		t.Errorf("keys = %+v, %v", keys, err)
	}
	if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
}

// broken lists keys files that must open nothing.
func broken(good Key) map[string]string {
	text := "[[key]]\nname = \"a\"\nhash = \"" + good.Hash + "\"\nscopes = [\"admin\"]\n"
	return map[string]string{
		"no TOML":         text + "[[key\n",
		"unknown key":     text + "admin = true\n",
		"unknown scope":   strings.ReplaceAll(text, "admin", "root"),
		"no scope":        strings.ReplaceAll(text, `"admin"`, ""),
		"no name":         strings.ReplaceAll(text, `"a"`, `""`),
		"short hash":      strings.Replace(text, good.Hash, good.Hash[:70], 1),
		"empty hash":      strings.Replace(text, good.Hash, "", 1),
		"other hash":      strings.Replace(text, "sha256:", "md5:", 1),
		"same name twice": text + text,
		"second is wrong": text + "[[key]]\nname = \"b\"\n",
		"wrong type":      "key = 1\n",
	}
}

func TestBrokenFileOpensNothing(t *testing.T) {
	plaintext, good := newKey(t, "good", Admin)
	for name, text := range broken(good) {
		path := filepath.Join(t.TempDir(), "keys.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		r := NewKeyring(path, slog.New(slog.NewTextHandler(&log, nil)))
		for _, key := range []string{plaintext, "", "x"} {
			if _, ok := r.Find(key); ok {
				t.Errorf("%s: the key %q was taken", name, key)
			}
		}
		if strings.Count(log.String(), "every key is refused") != 1 || !strings.Contains(log.String(), path) {
			t.Errorf("%s: log = %s", name, &log)
		}
		if err := Add(path, good); fault.KindOf(err) != fault.BadInput {
			t.Errorf("%s: Add = %v", name, err)
		}
		if data, _ := os.ReadFile(path); string(data) != text {
			t.Errorf("%s: the broken file was changed", name)
		}
	}
}

func TestKeyringFollowsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.toml")
	var log bytes.Buffer
	r := NewKeyring(path, slog.New(slog.NewTextHandler(&log, nil)))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r.now = func() time.Time { return now }
	one, k := newKey(t, "one", Transcribe)
	expect := func(step string, want bool) {
		t.Helper()
		if got, ok := r.Find(one); ok != want || ok && got.Name != "one" {
			t.Errorf("%s: Find = %+v, %v", step, got, ok)
		}
	}
	expect("no file", false)
	if err := Add(path, k); err != nil {
		t.Fatal(err)
	}
	expect("within the second", false)
	now = now.Add(checkEvery)
	expect("after a second", true)
	for _, near := range []string{"", one[:len(one)-1], one + "x", strings.ToUpper(one), k.Hash} {
		if _, ok := r.Find(near); ok {
			t.Errorf("%q was taken for %q", near, one)
		}
	}
	if err := os.Chmod(path, 0o602); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkEvery)
	expect("a file that everybody may write", false)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkEvery)
	expect("mended", true)
	if err := Remove(path, "one"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkEvery)
	expect("removed", false)
	if strings.Count(log.String(), "\n") != 1 {
		t.Errorf("log = %s", &log)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkEvery)
	expect("no file again", false)
}

func TestKeyringAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.toml")
	plaintext, k := newKey(t, "one", Admin)
	if err := Add(path, k); err != nil {
		t.Fatal(err)
	}
	r := NewKeyring(path, slog.New(slog.DiscardHandler))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, ok := r.Find(plaintext); !ok {
				t.Error("the key was not found")
			}
		})
	}
	wg.Wait()
}

func TestUnreadableFile(t *testing.T) {
	dir := t.TempDir() // reading a directory fails, also for root
	if _, err := List(dir); err == nil || fault.Hint(err) == "" {
		t.Errorf("List = %v", err)
	}
	if err := Add(filepath.Join(dir, "no", "keys.toml"), Key{}); fault.KindOf(err) != fault.BadInput {
		t.Errorf("an empty key: %v", err)
	}
	_, k := newKey(t, "x", Admin)
	if err := Add(filepath.Join(dir, "no", "keys.toml"), k); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no directory: %v", err)
	}
}
