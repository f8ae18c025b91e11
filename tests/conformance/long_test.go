//go:build e2e

package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
)

// thorough is the variable that adds what takes minutes: long answers as long as
// they are in life, 330 s, with the client's own limits (six minutes with go test's
// -parallel 6, and -timeout 30m without), and what is heard in noise without a
// speech detector.
const thorough = "WA_THOROUGH"

// pace is how fast life goes in a test.
type pace struct {
	window     time.Duration // of each of three in an answer that is delivered
	fails      time.Duration // of each of two before the one that fails
	headerWait time.Duration // the server's
	patience   string        // of the client, in seconds; "" = its own, 300
}

// paces: a scaled one is 60 times as fast, but for the server, whose least wait for
// a header is longer. The answer takes longer than the client waits for a byte.
func paces() pace {
	if os.Getenv(thorough) != "" {
		return pace{window: 110 * time.Second, fails: 100 * time.Second, headerWait: 15 * time.Second}
	}
	return pace{window: 1840 * time.Millisecond, fails: 1670 * time.Millisecond, headerWait: time.Second, patience: "5"}
}

func (p pace) done() string   { return fmt.Sprintf("tiny-takes-%dms", p.window.Milliseconds()) }
func (p pace) failed() string { return fmt.Sprintf("tiny-takes-%dms-fails-3", p.fails.Milliseconds()) }

// outcome is what the npm package's client came to.
type outcome struct {
	Requests    int
	Text, Error string
}

// threeWindows is the reference clip three times, so far apart that each is a
// window, and what the fake engine hears in it.
func threeWindows(t *testing.T) (path, text string) {
	t.Helper()
	sound, err := clips.Read(t.Context(), filepath.Join("..", "testdata", "reference.wav"))
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(filepath.Join("..", "testdata", "reference.txt"))
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "three.wav")
	if err := clips.Join([]clips.Sound{sound, sound, sound}, 7*time.Second, 7*time.Second, 1).WriteWAV(path); err != nil {
		t.Fatal(err)
	}
	sentence := strings.TrimSpace(string(said))
	return path, strings.Join([]string{sentence, sentence, sentence}, " ")
}

// faked is a checkout with a fake engine that works at p.
func faked(t *testing.T, p pace) (dir string) {
	t.Helper()
	root, err := appliance.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := appliance.FakeEngine(t.Context(), root, dir, p.done(), p.failed()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// npm has the package's client transcribe a recording at an appliance of its own,
// and gives what came of it and how many windows the engine decoded.
func (p pace) npm(t *testing.T, dir, recording, model, format string) (o outcome, windows int, took time.Duration) {
	t.Helper()
	a, err := appliance.Start(t.Context(), appliance.Options{Root: dir, StopLimit: time.Minute,
		Env: []string{"WHISPER_APPLIANCE_TRANSCRIPTION_HEADER_WAIT=" + p.headerWait.String()}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "--import", "./file-global.mjs", "long.mjs", recording, model, format)
	if p.patience != "" {
		cmd.Args = append(cmd.Args, p.patience)
	}
	cmd.Env = append(os.Environ(), "WA_URL="+a.URL, "WA_KEY="+a.Key)
	var said bytes.Buffer
	cmd.Stderr = &said
	began := time.Now()
	line, err := cmd.Output()
	took = time.Since(began)
	if err == nil {
		err = json.Unmarshal(line, &o)
	}
	if err != nil {
		t.Errorf("the client: %v, %s%s", err, line, &said)
	}
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
	return o, strings.Count(a.Log(), `"window decoded"`), took
}

// TestLongAnswer: an answer that takes longer than the client waits for a byte
// arrives with one run, and of one that fails in the end nobody takes what came
// before for the whole.
func TestLongAnswer(t *testing.T) {
	t.Parallel()
	p := paces()
	recording, text := threeWindows(t)
	dir := faked(t, p)
	for _, format := range []string{"json", "verbose_json", "text"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			o, windows, took := p.npm(t, dir, recording, p.done(), format)
			t.Logf("%d request in %v", o.Requests, took.Round(time.Second))
			if o.Error != "" || o.Requests != 1 || windows != 3 || strings.TrimSpace(o.Text) != text || took < 3*p.window {
				t.Errorf("after %v: %+v, with %d windows decoded; want %q by 1 request and 3 windows", took, o, windows, text)
			}
		})
		if format == "verbose_json" {
			continue // fails as json does
		}
		t.Run("a failure, "+format, func(t *testing.T) {
			t.Parallel()
			o, windows, took := p.npm(t, dir, recording, p.failed(), format)
			t.Logf("%d request in %v: %s", o.Requests, took.Round(time.Second), o.Error)
			if o.Error == "" || o.Text != "" || o.Requests != 1 || windows != 2 || took < 2*p.fails {
				t.Errorf("after %v: %+v, with %d windows decoded; want an error after 2", took, o, windows)
			}
		})
	}
}

// TestLongAnswerMatters: without the early header the same client sends everything
// three times and gets nothing, so the test above would see it.
func TestLongAnswerMatters(t *testing.T) {
	if os.Getenv(thorough) != "" {
		t.Skip("in real time it would take a quarter of an hour")
	}
	t.Parallel()
	p := paces()
	p.headerWait = time.Hour
	recording, _ := threeWindows(t)
	o, windows, took := p.npm(t, faked(t, p), recording, p.done(), "json")
	t.Logf("%d requests in %v, %d windows decoded: %s", o.Requests, took.Round(time.Second), windows, o.Error)
	if o.Error == "" || o.Text != "" || o.Requests != 3 {
		t.Errorf("%+v; want 3 requests for nothing", o)
	}
}
