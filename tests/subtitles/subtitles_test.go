//go:build e2e

package subtitles

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/transcript"
)

// python is Debian's own: another one first in PATH does not see its packages.
const python = "/usr/bin/python3"

// cue is a cue as the checkers print it.
type cue struct {
	Start, End int64 // ms
	Text       string
}

// seen is what one parser made of one file.
type seen struct {
	Cues   []cue
	Errors []string
}

type story struct {
	name     string
	segments []transcript.Segment
	want     []cue
	srt      []cue // where SRT differs from want
	layout   *transcript.Layout
}

const (
	sec  = time.Second
	hour = time.Hour
)

func seg(start, end time.Duration, text string) transcript.Segment {
	return transcript.Segment{Start: start, End: end, Text: text}
}

func stories() []story {
	return []story{
		{name: "empty"},
		{name: "silence", segments: []transcript.Segment{seg(0, sec, " "), seg(sec, 2*sec, "\n\n")}},
		{name: "plain",
			segments: []transcript.Segment{seg(0, 2500*time.Millisecond, " Hello, world."), seg(2500*time.Millisecond, 4*sec, " Again.")},
			want:     []cue{{0, 2500, "Hello, world."}, {2500, 4000, "Again."}}},
		{name: "long",
			segments: []transcript.Segment{seg(hour, hour+sec, "a"), seg(10*hour, 10*hour+sec, "b"),
				seg(100*hour-time.Millisecond, 100*hour, "c"), seg(123*hour, 123*hour+sec, "d")},
			want: []cue{{3600_000, 3601_000, "a"}, {36_000_000, 36_001_000, "b"},
				{359_999_999, 360_000_000, "c"}, {442_800_000, 442_801_000, "d"}}},
		{name: "rounding",
			segments: []transcript.Segment{seg(hour-400*time.Microsecond, hour+999_600*time.Microsecond, "a")},
			want:     []cue{{3600_000, 3601_000, "a"}}},
		{name: "no-length",
			segments: []transcript.Segment{seg(sec, sec, "a"), seg(3*sec, 2*sec, "b"), seg(-sec, 0, "c")},
			want:     []cue{{0, 20, "c"}, {1000, 1020, "a"}, {3000, 3020, "b"}}},
		{name: "overlap",
			segments: []transcript.Segment{seg(0, 9*sec, "a"), seg(sec, 2*sec, "b"), seg(sec, 3*sec, "c")},
			want:     []cue{{0, 9000, "a"}, {1000, 2000, "b"}, {1000, 3000, "c"}}},
		{name: "out-of-order",
			segments: []transcript.Segment{seg(5*sec, 6*sec, "b"), seg(0, sec, "a")},
			want:     []cue{{0, 1000, "a"}, {5000, 6000, "b"}}},
		{name: "lines",
			segments: []transcript.Segment{seg(0, sec, "\n a\n\n \r\n b\t\n"), seg(sec, 2*sec, "42\n43"), seg(2*sec, 3*sec, "c")},
			want:     []cue{{0, 1000, "a b"}, {1000, 2000, "42 43"}, {2000, 3000, "c"}}},
		{name: "looks-like-syntax",
			segments: []transcript.Segment{seg(0, sec, "NOTE that"), seg(sec, 2*sec, "STYLE"), seg(2*sec, 3*sec, "WEBVTT"),
				seg(3*sec, 4*sec, "7"), seg(4*sec, 5*sec, "00:00:01.000")},
			want: []cue{{0, 1000, "NOTE that"}, {1000, 2000, "STYLE"}, {2000, 3000, "WEBVTT"},
				{3000, 4000, "7"}, {4000, 5000, "00:00:01.000"}}},
		{name: "arrow",
			segments: []transcript.Segment{seg(0, sec, "a --> b\n1\n00:00:00,000 --> 00:00:09,000\n---> c"), seg(sec, 2*sec, "d")},
			want:     []cue{{0, 1000, "a --> b 1 00:00:00,000 --> 00:00:09,000 ---> c"}, {1000, 2000, "d"}},
			srt:      []cue{{0, 1000, "a -> b 1 00:00:00,000 -> 00:00:09,000 -> c"}, {1000, 2000, "d"}}},
		{name: "markup",
			segments: []transcript.Segment{seg(0, sec, "<i>a</i> & &lt; <00:00:00.500> {\\an8} 3 < 4 > 2")},
			want:     []cue{{0, 1000, "<i>a</i> & &lt; <00:00:00.500> {\\an8} 3 < 4 > 2"}}},
		{name: "scripts",
			segments: []transcript.Segment{seg(0, sec, "שלום, \u200fعالم!"), seg(sec, 2*sec, "谢谢观看。𠮷野家"), seg(2*sec, 3*sec, "นี่คือ हिन्दी 👩\u200d👩\u200d👧")},
			want:     []cue{{0, 1000, "שלום, \u200fعالم!"}, {1000, 2000, "谢谢观看。𠮷野家"}, {2000, 3000, "นี่คือ हिन्दी 👩\u200d👩\u200d👧"}}},
		{name: "bytes",
			segments: []transcript.Segment{seg(0, sec, "a\x00b\x1b[0m \xff \u0085c\u2028d\ve")},
			want:     []cue{{0, 1000, "ab[0m \ufffd  c d e"}}},
		{name: "laid-out", layout: broadcast(),
			segments: []transcript.Segment{seg(0, 6*sec, " The first of the lines is this one, and the second is one that you read now."),
				seg(6*sec, 6*sec, "短い。"), seg(10*sec, 16*sec, "今日はとても天気がいいので、友達と買い物に行きました。"), seg(20*sec, 21*sec, " ذهبت إلى المدرسة في الصباح الباكر، وعندما وصلت وجدت الباب مغلقا.")},
			want: []cue{{0, 5916, "The first of the lines is this one,\nand the second is one that you read now."},
				{6000, 6834, "短い。"}, {10_000, 16_000, "今日はとても天気がいいので、\n友達と買い物に行きました。"},
				{20_000, 23_764, "ذهبت إلى المدرسة في الصباح الباكر،\nوعندما وصلت وجدت الباب مغلقا."}}},
		{name: "laid-out-syntax", layout: broadcast(),
			segments: []transcript.Segment{seg(0, 5*sec, " These are the three dots and the arrow, <i>and</i> & --> 00:00:09,000 42"), seg(5*sec, 7*sec, "NOTE 7")},
			want:     []cue{{0, 4916, "These are the three dots and the arrow,\n<i>and</i> & --> 00:00:09,000 42"}, {5000, 7000, "NOTE 7"}},
			srt:      []cue{{0, 4916, "These are the three dots and the arrow,\n<i>and</i> & -> 00:00:09,000 42"}, {5000, 7000, "NOTE 7"}}},
	}
}

// broadcast is the layout that the settings have by themselves.
func broadcast() *transcript.Layout {
	l := config.Default().Subtitles.Layout()
	return &l
}

func TestOthersReadOurSubtitles(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, s := range stories() {
		for _, f := range []transcript.Format{transcript.SRT, transcript.VTT} {
			files = append(files, write(t, dir, s, f))
		}
	}
	checks := []map[string]map[string]seen{
		check(t, files, "node", "check.mjs"),
		check(t, files, python, "check.py"),
	}
	for _, s := range stories() {
		for _, f := range []transcript.Format{transcript.SRT, transcript.VTT} {
			want := s.want
			if f == transcript.SRT && s.srt != nil {
				want = s.srt
			}
			for _, results := range checks {
				compare(t, s.name+f.Extension(), results, want)
			}
		}
	}
}

func write(t *testing.T, dir string, s story, f transcript.Format) string {
	t.Helper()
	var b bytes.Buffer
	if err := transcript.Render(&b, f, &transcript.Transcript{Segments: s.segments}, transcript.Options{Layout: s.layout}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, s.name+f.Extension())
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// check runs one of the scripts beside this file over files. That it cannot
// run is a failure, not a reason to skip: nothing would be checked.
func check(t *testing.T, files []string, program, script string) map[string]map[string]seen {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command(program, append([]string{script}, files...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v; is everything there? `make test-tools` installs it\n%s", program, script, err, &stderr)
	}
	results := map[string]map[string]seen{}
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatalf("read what %s printed: %v", script, err)
	}
	return results
}

func compare(t *testing.T, file string, results map[string]map[string]seen, want []cue) {
	t.Helper()
	if len(results[file]) == 0 {
		t.Errorf("%s: no parser read it", file)
	}
	for parser, got := range results[file] {
		t.Run(fmt.Sprintf("%s by %s", file, parser), func(t *testing.T) {
			if len(got.Errors) > 0 {
				t.Errorf("errors: %q", got.Errors)
			}
			if g, w := sorted(got.Cues), sorted(want); !slices.Equal(g, w) {
				t.Errorf("%d cues, want %d\ngot  %v\nwant %v", len(g), len(w), g, w)
			}
		})
	}
}

// sorted is by start, the longer first: one parser hands cues out that way.
// The order in the file is what the validator among them checks.
func sorted(cues []cue) []cue {
	return slices.SortedStableFunc(slices.Values(cues), func(a, b cue) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(b.End, a.End))
	})
}
