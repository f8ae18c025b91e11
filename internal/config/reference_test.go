package config

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// With -update the generated parts of docs/configuration.md are written anew:
// go test ./internal/config -run TestDocumented -update
var update = flag.Bool("update", false, "write the generated parts of docs/configuration.md")

func TestReferenceIsTheDefaults(t *testing.T) {
	var b bytes.Buffer
	if err := Reference(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 200 || strings.HasPrefix(line, "# ") && len(line) > 81 {
			t.Errorf("long line: %s", line)
		}
	}
	off, _, err := Load(files(t, map[string]string{"config.toml": b.String()}))
	if err != nil || !reflect.DeepEqual(off, Default()) {
		t.Fatalf("as it is: %v", err)
	}
	live := regexp.MustCompile(`(?m)^#([a-z_]+ = )`).ReplaceAllString(b.String(), "$1")
	on, r, err := Load(files(t, map[string]string{"config.toml": live}))
	if err != nil || !reflect.DeepEqual(on, Default()) {
		t.Fatalf("with every line in force: %v\n%+v", err, on)
	}
	for _, v := range r.Values {
		if !strings.HasPrefix(v.Origin, "config.toml:") {
			t.Errorf("the reference lacks %s", v.Key)
		}
	}
}

// TestTags reads every tag once, so that a slip in one is found here.
func TestTags(t *testing.T) {
	known := map[string]bool{"toml": true, "doc": true, "oneof": true, "check": true, "min": true, "max": true, "zero": true}
	tag := regexp.MustCompile(`(\w+):"`)
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for f := range typ.Fields() {
			if f.Tag.Get("toml") == "" || len(f.Tag.Get("doc")) < 10 {
				t.Errorf("%s.%s has no name or no doc", typ.Name(), f.Name)
			}
			for _, m := range tag.FindAllStringSubmatch(string(f.Tag), -1) {
				if !known[m[1]] {
					t.Errorf("%s.%s: unknown tag %s", typ.Name(), f.Name, m[1])
				}
			}
			for _, name := range []string{"min", "max"} {
				if s := f.Tag.Get(name); s != "" {
					_, err := strconv.ParseInt(s, 10, 64)
					if f.Type == reflect.TypeFor[time.Duration]() {
						_, err = time.ParseDuration(s)
					}
					if err != nil {
						t.Errorf("%s.%s: %s is %q", typ.Name(), f.Name, name, s)
					}
				}
			}
			if c := f.Tag.Get("check"); c != "" && checkOf(c).want == checkOf("").want {
				t.Errorf("%s.%s: there is no check %s", typ.Name(), f.Name, c)
			}
			if f.Type.Kind() == reflect.Struct {
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	for key, f := range fields(Default()) {
		if _, ok := f.parse(f.raw(strings.Trim(literal(f.plain()), `"[]`))); !ok {
			t.Errorf("the default of %s breaks its own rule: %v", key, f.plain())
		}
	}
}

// TestDocumented holds docs/configuration.md to the code.
func TestDocumented(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var reference, variables bytes.Buffer
	reference.WriteString("```toml\n")
	if err := Reference(&reference); err != nil {
		t.Fatal(err)
	}
	reference.WriteString("```\n")
	if err := Variables(&variables); err != nil {
		t.Fatal(err)
	}
	page := splice(t, string(data), "reference", reference.String())
	page = splice(t, page, "variables", variables.String())
	if page == string(data) {
		return
	}
	if !*update {
		t.Fatal("docs/configuration.md is behind: go test ./internal/config -run TestDocumented -update")
	}
	if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
}

// splice puts text between the two marks called name.
func splice(t *testing.T, page, name, text string) string {
	t.Helper()
	before, rest, ok := strings.Cut(page, "<!-- begin "+name+" -->\n")
	_, after, ok2 := strings.Cut(rest, "<!-- end "+name+" -->\n")
	if !ok || !ok2 {
		t.Fatalf("docs/configuration.md has no marks for %s", name)
	}
	return before + "<!-- begin " + name + " -->\n" + text + "<!-- end " + name + " -->\n" + after
}
