package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const skipsOne = `{"Action":"start","Package":"whisper-appliance/internal/a"}
{"Action":"run","Package":"whisper-appliance/internal/a","Test":"TestOne"}
{"Action":"output","Package":"whisper-appliance/internal/a","Test":"TestOne","Output":"=== RUN   TestOne\n"}
{"Action":"output","Package":"whisper-appliance/internal/a","Test":"TestOne","Output":"    a_test.go:7: ffmpeg is not installed\n"}
{"Action":"output","Package":"whisper-appliance/internal/a","Test":"TestOne","Output":"--- SKIP: TestOne (0.00s)\n"}
{"Action":"skip","Package":"whisper-appliance/internal/a","Test":"TestOne","Elapsed":0}
`

const passes = `{"Action":"output","Package":"whisper-appliance/internal/a","Output":"PASS\n"}
{"Action":"output","Package":"whisper-appliance/internal/a","Output":"ok  \twhisper-appliance/internal/a\t0.1s\n"}
{"Action":"pass","Package":"whisper-appliance/internal/a","Elapsed":0.1}
`

const fails = `{"Action":"output","Package":"p","Test":"TestTwo","Output":"=== RUN   TestTwo\n"}
{"Action":"output","Package":"p","Test":"TestTwo","Output":"    p_test.go:3: got 1, want 2\n"}
{"Action":"output","Package":"p","Test":"TestTwo","Output":"--- FAIL: TestTwo (0.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestTwo"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`

// The test binary died: its test never ended.
const crashes = `{"Action":"output","Package":"p","Test":"TestThree","Output":"panic: boom\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`

const doesNotBuild = `{"ImportPath":"p [p.test]","Action":"build-output","Output":"p/x.go:3: undefined: y\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}
`

const skipsPackage = `{"Action":"output","Package":"p","Output":"?   \tp\t[no test files]\n"}
{"Action":"skip","Package":"p","Elapsed":0}
`

func TestFilter(t *testing.T) {
	noted := "internal/a TestOne: ffmpeg is not installed"
	for _, c := range []struct {
		name, in, never, want, noted, err string
	}{
		{"nothing", "", "", "", "", ""},
		{"all pass", passes, "ffmpeg", "ok  \twhisper-appliance/internal/a\t0.1s\n", "", ""},
		{"one skipped", skipsOne + passes, "", "ok  \twhisper-appliance/internal/a\t0.1s\nskipped: 1\n  " + noted + "\n", noted + "\n", ""},
		{"another word", skipsOne + passes, "root, sox", "ok  \twhisper-appliance/internal/a\t0.1s\nskipped: 1\n  " + noted + "\n", noted + "\n", ""},
		{"one that must not be", skipsOne + passes, "root,ffmpeg", "ok  \twhisper-appliance/internal/a\t0.1s\nskipped: 1\n  " + noted + "\n", noted + "\n", noted},
		{"a failure", fails, "", "    p_test.go:3: got 1, want 2\n--- FAIL: TestTwo (0.00s)\nFAIL\nFAIL\tp\t0.1s\n", "", "failures"},
		{"a crash", crashes, "", "FAIL\tp\t0.1s\npanic: boom\n", "", "failures"},
		{"no build", doesNotBuild, "", "p/x.go:3: undefined: y\nFAIL\tp [build failed]\n", "", "failures"},
		{"no tests", skipsPackage, "", "", "", ""},
		{"other lines", "go: downloading\n{}\n" + passes, "", "go: downloading\n{}\nok  \twhisper-appliance/internal/a\t0.1s\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			file := filepath.Join(t.TempDir(), "skips")
			f := filter{out: &out, never: words(c.never), said: map[key][]string{}}
			if err := f.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			err := f.finish(file)
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if out.String() != c.want {
				t.Errorf("printed %q\nwant    %q", out.String(), c.want)
			}
			if data, _ := os.ReadFile(file); string(data) != c.noted {
				t.Errorf("noted %q, want %q", data, c.noted)
			}
		})
	}
}

func TestNotingFails(t *testing.T) {
	f := filter{out: &bytes.Buffer{}, said: map[key][]string{}}
	if err := f.read(strings.NewReader(skipsOne)); err != nil {
		t.Fatal(err)
	}
	if err := f.finish(filepath.Join(t.TempDir(), "none", "skips")); err == nil {
		t.Error("a file that cannot be written is no error")
	}
}
