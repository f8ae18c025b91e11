package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// bench is a directory in which the tool is run.
type bench struct {
	t   *testing.T
	dir string
}

func newBench(t *testing.T) bench {
	t.Helper()
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return bench{t, dir}
}

// tree makes a release that is not sealed.
func (b bench) tree(name, version string) {
	b.t.Helper()
	for file, text := range map[string]string{"VERSION": version + "\n", "bin/server": "server " + version} {
		path := filepath.Join(b.dir, name, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// run gives what a command line comes to.
func (b bench) run(line string) (code int, out, errOut string) {
	b.t.Helper()
	var o, e bytes.Buffer
	code = run(b.t.Context(), strings.Fields(line), &o, &e)
	return code, o.String(), e.String()
}

// want fails where the line does not end with that code, or says none of the
// words on either output.
func (b bench) want(code int, line string, words ...string) (out string) {
	b.t.Helper()
	got, out, errOut := b.run(line)
	if got != code {
		b.t.Fatalf("%s: exit %d, want %d\n%s%s", line, got, code, out, errOut)
	}
	for _, w := range words {
		if !strings.Contains(out+errOut, w) {
			b.t.Errorf("%s says nothing of %q:\n%s%s", line, w, out, errOut)
		}
	}
	return out
}

func (b bench) read(name string) []byte {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// TestOrderOfTheWork goes through what the help tells, from the first keys to a
// release that is withdrawn.
func TestOrderOfTheWork(t *testing.T) {
	b := newBench(t)
	b.want(0, "keys init --dir k", "root-1.pem", "online.pem", "root.json")
	b.want(0, "keys list --dir k", "targets")
	file := func(version string) string {
		return "whisper-appliance_" + version + "_" + runtime.GOARCH
	}
	b.tree("tree", "1.0.0")
	b.want(66, "build tree --out out", "has no manifest", "--version and --commit")
	b.want(0, "build tree --out out --version 1.0.0+dev --commit c0ffee", "sha256", "2 files")
	first := b.read("out/" + file("1.0.0+dev") + ".tar.zst")
	b.want(0, "build tree --out again", "version 1.0.0+dev")
	if !bytes.Equal(first, b.read("again/"+file("1.0.0+dev")+".tar.zst")) {
		t.Error("two builds differ")
	}
	b.want(0, "publish out/"+file("1.0.0+dev")+".tar.zst --keys k --repository r --notes-file tree/VERSION", "stable", "100 %", "refresh it before")
	b.want(0, "verify r --root k/root.json", "1 releases unpacked")
	b.tree("next", "1.1.0")
	b.want(0, "build next --out out --version 1.1.0 --commit c0ffee")
	b.want(0, "publish out/"+file("1.1.0")+".tar.zst --keys k --repository r --channel beta --rollout 0", "note: ", "0 percent")
	b.want(0, "rollout 1.1.0 25% --keys k --repository r", "25 %")
	b.want(0, "publish out/"+file("1.1.0")+".tar.zst --keys k --repository r --rollout 10", "10 %")
	b.want(0, "refresh --keys k --repository r")
	for _, role := range []string{"root", "targets", "online"} {
		b.want(0, "keys rotate "+role+" --dir k --repository r", "in the place of")
	}
	b.want(0, "bundle 1.1.0 --repository r --out out", ".wa")
	b.want(0, "verify out/"+file("1.1.0")+".wa", "its own first root was believed")
	b.want(0, "verify out/"+file("1.1.0")+".tar.zst", "It is whole")
	var list struct {
		Offers []struct {
			Version, Notes string
			Rollout        int
		}
	}
	if err := json.Unmarshal([]byte(b.want(0, "list --repository r --json")), &list); err != nil || len(list.Offers) != 2 ||
		list.Offers[0].Version != "1.1.0" || list.Offers[0].Rollout != 10 || list.Offers[1].Notes != "1.0.0" {
		t.Errorf("%+v, %v", list, err)
	}
	b.want(0, "withdraw 1.1.0 --keys k --repository r")
	if out := b.want(0, "list --repository r"); strings.Contains(out, "1.1.0") {
		t.Errorf("what was withdrawn is on offer:\n%s", out)
	}
}

func TestExitCodes(t *testing.T) {
	b := newBench(t)
	b.want(0, "keys init")
	b.tree("tree", "1.0.0")
	b.want(0, "build tree --version 1.0.0 --commit c0ffee --arch arm64")
	b.want(0, "publish whisper-appliance_1.0.0_arm64.tar.zst")
	if err := os.WriteFile("damaged.wa", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]struct {
		code  int
		words string
	}{
		"":                                       {0, "The order of the work"},
		"--version":                              {0, program},
		"completion bash":                        {0, program},
		"__complete withdraw 1":                  {0, "1.0.0\tstable"},
		"__complete keys rotate t":               {0, "targets"},
		"keys":                                   {0, "rotate"},
		"nonsense":                               {64, "unknown command"},
		"publish":                                {64, "the files that build made"},
		"rollout 1.0.0":                          {64, "number of percent"},
		"rollout 1.0.0 many":                     {64, `"many"`},
		"withdraw":                               {64, "a version"},
		"keys rotate":                            {64, "root, targets, online"},
		"keys rotate timestamp":                  {65, "the roles are"},
		"build tree --version 1":                 {64, "commit"},
		"build tree --arch amd64":                {65, "arm64"},
		"build tree --nonsense":                  {64, "--help"},
		"build tree --version 1.0 --commit x":    {65, "three numbers"},
		"build tree --version 2.0.0 --commit x":  {65, "no release"},
		"build none":                             {66, "no manifest"},
		"publish none":                           {66, "try: "},
		"publish tree":                           {65, "no regular file"},
		"publish x --channel stable --keys none": {66, "keys init"},
		"publish x --notes a --notes-file b":     {64, "notes"},
		"publish x --notes-file none":            {66, "none"},
		"rollout 2.0.0 5":                        {66, "published are 1.0.0"},
		"rollout 1.0.0 101":                      {65, "0 to 100"},
		"refresh --repository none":              {66, "no repository"},
		"verify none":                            {66, "none"},
		"verify tree":                            {66, "no repository"},
		"verify damaged.wa":                      {65, "no bundle"},
		"verify repository --root tree/VERSION":  {65, "no root of trust"},
		"verify damaged.wa --root none":          {66, "none"},
		"verify whisper-appliance_1.0.0_arm64.tar.zst --root keys/root.json": {64, "no signatures"},
		"bundle 1.0.0 --arch amd64":                {65, "arm64"},
		"list --repository tree":                   {66, "no repository"},
		"keys init --root-threshold 2":             {75, "holds keys already"},
		"keys init --dir other --root-threshold 9": {65, "1 or 2"},
	} {
		b.want(want.code, line, want.words)
	}
	var words map[string]string
	if code, out, errOut := b.run("withdraw 9.9.9 --json"); code != 66 || out != "" || json.Unmarshal([]byte(errOut), &words) != nil || words["code"] != "unknown_version" || words["hint"] == "" {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
	if err := os.Chmod("keys/online.pem", 0o644); err != nil {
		t.Fatal(err)
	}
	b.want(77, "refresh", "others than its owner", "chmod 600")
	b.want(77, "keys list", "others than its owner")
}

// TestCancelled: who cancels is told so, and nothing has changed.
func TestCancelled(t *testing.T) {
	b := newBench(t)
	b.want(0, "keys init")
	b.tree("tree", "1.0.0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	if code := run(ctx, strings.Fields("build tree --out out --version 1.0.0 --commit c0ffee"), &out, &errOut); code != exitCanceled {
		t.Errorf("exit %d: %s", code, errOut.String())
	}
	if left, _ := os.ReadDir("out"); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}
