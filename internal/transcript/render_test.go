package transcript

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

const (
	ms   = time.Millisecond
	sec  = time.Second
	hour = time.Hour
)

func seg(start, end time.Duration, text string) Segment {
	return Segment{Start: start, End: end, Text: text}
}

// render fails the test where Render does.
func render(t *testing.T, f Format, tr *Transcript, o Options) string {
	t.Helper()
	var b strings.Builder
	if err := Render(&b, f, tr, o); err != nil {
		t.Fatalf("render %s: %v", f, err)
	}
	return b.String()
}

func TestRenderLines(t *testing.T) {
	talk := []Segment{
		seg(0, 2500*ms, " Hello, world."),
		seg(2500*ms, 4*sec, " It's <b> & \"c\"."),
	}
	tests := []struct {
		name     string
		format   Format
		segments []Segment
		want     string
	}{
		{"txt", Txt, talk, "Hello, world. It's <b> & \"c\".\n"},
		{"srt", SRT, talk, "1\n00:00:00,000 --> 00:00:02,500\nHello, world.\n\n" +
			"2\n00:00:02,500 --> 00:00:04,000\nIt's <b> & \"c\".\n\n"},
		{"vtt", VTT, talk, "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nHello, world.\n\n" +
			"00:00:02.500 --> 00:00:04.000\nIt's &lt;b&gt; &amp; \"c\".\n\n"},
		{"tsv", TSV, talk, "start\tend\ttext\n0\t2500\tHello, world.\n2500\t4000\tIt's <b> & \"c\".\n"},
		{"lrc", LRC, talk, "[00:00.00]Hello, world.\n[00:02.50]It's <b> & \"c\".\n"},

		{"empty txt", Txt, nil, "\n"},
		{"empty srt", SRT, nil, ""},
		{"empty vtt", VTT, nil, "WEBVTT\n\n"},
		{"empty tsv", TSV, nil, "start\tend\ttext\n"},
		{"empty words", Words, nil, "start\tend\tprobability\tword\n"},
		{"empty lrc", LRC, nil, ""},

		{"1 h", SRT, []Segment{seg(hour, hour+sec, "a")}, "1\n01:00:00,000 --> 01:00:01,000\na\n\n"},
		{"10 h", VTT, []Segment{seg(10*hour, 10*hour+61*sec, "a")}, "WEBVTT\n\n10:00:00.000 --> 10:01:01.000\na\n\n"},
		{"100 h", SRT, []Segment{seg(100*hour-ms, 100*hour, "a")}, "1\n99:59:59,999 --> 100:00:00,000\na\n\n"},
		{"100 h in lrc", LRC, []Segment{seg(100*hour, 101*hour, "a")}, "[6000:00.00]a\n"},
		{"100 h in tsv", TSV, []Segment{seg(100*hour, 101*hour, "a")}, "start\tend\ttext\n360000000\t363600000\ta\n"},
		{"minutes past 99", LRC, []Segment{seg(100*time.Minute+59994*ms, 2*hour, "a")}, "[100:59.99]a\n"},

		{"rounds up into the next hour", SRT, []Segment{seg(hour-400*time.Microsecond, hour+time.Second, "a")},
			"1\n01:00:00,000 --> 01:00:01,000\na\n\n"},
		{"rounds up into the next minute", LRC, []Segment{seg(59996*ms, 62*sec, "a")}, "[01:00.00]a\n"},
		{"no length after rounding", SRT, []Segment{seg(sec+600*time.Microsecond, sec+900*time.Microsecond, "a")},
			"1\n00:00:01,001 --> 00:00:01,021\na\n\n"},
		{"no length", SRT, []Segment{seg(sec, sec, "a")}, "1\n00:00:01,000 --> 00:00:01,020\na\n\n"},
		{"no length and no text", SRT, []Segment{seg(sec, sec, " "), seg(sec, 2*sec, "a")},
			"1\n00:00:01,000 --> 00:00:02,000\na\n\n"},
		{"ends before it starts", VTT, []Segment{seg(2*sec, sec, "a")}, "WEBVTT\n\n00:00:02.000 --> 00:00:02.020\na\n\n"},
		{"starts before the recording", SRT, []Segment{seg(-sec, sec, "a")}, "1\n00:00:00,000 --> 00:00:01,000\na\n\n"},
		{"overlap is kept", SRT, []Segment{seg(0, 5*sec, "a"), seg(sec, 2*sec, "b")},
			"1\n00:00:00,000 --> 00:00:05,000\na\n\n2\n00:00:01,000 --> 00:00:02,000\nb\n\n"},
		{"out of order is sorted", VTT, []Segment{seg(3*sec, 4*sec, "b"), seg(0, 5*sec, "a"), seg(3*sec, 9*sec, "c")},
			"WEBVTT\n\n00:00:00.000 --> 00:00:05.000\na\n\n00:00:03.000 --> 00:00:04.000\nb\n\n00:00:03.000 --> 00:00:09.000\nc\n\n"},
		{"text keeps its order", Txt, []Segment{seg(3*sec, 4*sec, " b"), seg(0, 5*sec, " a")}, "b a\n"},

		{"blank lines", SRT, []Segment{seg(0, sec, "\na\n\n \n  b \r\n\r\n\tc\u2028\u2029d\n")},
			"1\n00:00:00,000 --> 00:00:01,000\na b c d\n\n"},
		{"arrow in srt", SRT, []Segment{seg(0, sec, "a --> b ----> c -\x00-> d")},
			"1\n00:00:00,000 --> 00:00:01,000\na -> b -> c -> d\n\n"},
		{"arrow in vtt", VTT, []Segment{seg(0, sec, "a --> b")}, "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na --&gt; b\n\n"},
		{"tabs and newlines in tsv", TSV, []Segment{seg(0, sec, "\ta\tb\nc")}, "start\tend\ttext\n0\t1000\ta b c\n"},
		{"time tag in lrc", LRC, []Segment{seg(0, sec, "[00:01.00] a"), seg(sec, 2*sec, "[Music]")},
			"[00:00.00] [00:01.00] a\n[00:01.00][Music]\n"},
		{"controls", Txt, []Segment{seg(0, sec, "a\x00b\x1bc\x7f\u0090d\ve")}, "abcd e\n"},
		{"invalid UTF-8", SRT, []Segment{seg(0, sec, "a\xff\xfeb\xe5")}, "1\n00:00:00,000 --> 00:00:01,000\na\ufffd\ufffdb\ufffd\n\n"},
		{"right to left", VTT, []Segment{seg(0, sec, " שלום \u200fعالم")}, "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nשלום \u200fعالم\n\n"},
		{"beyond the basic plane", TSV, []Segment{seg(0, sec, "𠮷野家 👩‍👩‍👧")}, "start\tend\ttext\n0\t1000\t𠮷野家 👩‍👩‍👧\n"},

		{"words", Words, []Segment{{Words: []Word{
			{0, 400 * ms, " Hello,", 0.98765}, {400 * ms, 400 * ms, " wor\tld", 1}, {900 * ms, 800 * ms, ".", 0.5}, {sec, sec, " ", 1}}}},
			"start\tend\tprobability\tword\n0\t400\t0.9877\tHello,\n400\t400\t1.0000\twor ld\n900\t900\t0.5000\t.\n"},
		{"words without times", Words, []Segment{{Start: sec, End: 2 * sec, Text: " all of it", AvgLogProb: -0.6931471805599453}},
			"start\tend\tprobability\tword\n1000\t2000\t0.5000\tall of it\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := render(t, tt.format, &Transcript{Segments: tt.segments}, Options{}); got != tt.want {
				t.Errorf("got\n%q\nwant\n%q", got, tt.want)
			}
		})
	}
}

func TestRenderLeavesSegmentsInOrder(t *testing.T) {
	tr := &Transcript{Segments: []Segment{seg(sec, 2*sec, "b"), seg(0, sec, "a")}}
	render(t, SRT, tr, Options{})
	if tr.Segments[0].Text != "b" {
		t.Error("Render sorted the caller's segments")
	}
}

func TestRenderJSON(t *testing.T) {
	tr := &Transcript{Segments: []Segment{seg(0, sec, " a <b> & \"c\"\n\xff")}}
	if got, want := render(t, JSON, tr, Options{}), `{"text":"a <b> & \"c\"\n`+"\ufffd\"}\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := render(t, JSON, &Transcript{}, Options{}), "{\"text\":\"\"}\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func jfk() *Transcript {
	return &Transcript{
		Task: Transcribe, Language: "en", Duration: 11 * sec, Model: "tiny",
		Segments: []Segment{{
			Start: 320 * ms, End: 300*ms + 300*time.Microsecond, Text: " And so,", Tokens: []int{400, 370},
			AvgLogProb: -0.25, NoSpeechProb: 0.0625, CompressionRatio: 1.5, Temperature: 0.2,
			Words: []Word{{320 * ms, 640 * ms, " And", 0.9}, {640 * ms, 900 * ms, " so,", 0.8}},
		}, {Start: 1100 * ms, End: 2 * sec, Text: " my"}},
	}
}

func TestRenderVerboseJSON(t *testing.T) {
	const head = `{"task":"transcribe","language":"english","duration":11,"text":"And so, my"`
	const words = `,"words":[{"word":"And","start":0.32,"end":0.64},{"word":"so,","start":0.64,"end":0.9}]`
	const segments = `,"segments":[{"id":0,"seek":32,"start":0.32,"end":0.32,"text":" And so,","tokens":[400,370],` +
		`"temperature":0.2,"avg_logprob":-0.25,"compression_ratio":1.5,"no_speech_prob":0.0625},` +
		`{"id":1,"seek":110,"start":1.1,"end":2,"text":" my","tokens":[],` +
		`"temperature":0,"avg_logprob":0,"compression_ratio":0,"no_speech_prob":0}]`
	tests := []struct {
		name string
		tr   *Transcript
		o    Options
		want string
	}{
		{"plain", jfk(), Options{}, head + "}\n"},
		{"segments", jfk(), Options{Segments: true}, head + segments + "}\n"},
		{"words", jfk(), Options{Words: true}, head + words + "}\n"},
		{"both", jfk(), Options{Words: true, Segments: true}, head + words + segments + "}\n"},
		{"silence", &Transcript{}, Options{Words: true, Segments: true},
			`{"task":"transcribe","language":"","duration":0,"text":"","words":[],"segments":[]}` + "\n"},
		{"translation", &Transcript{Task: Translate, Language: "de"}, Options{},
			`{"task":"translate","language":"english","duration":0,"text":""}` + "\n"},
		{"unknown language", &Transcript{Language: "xx"}, Options{},
			`{"task":"transcribe","language":"xx","duration":0,"text":""}` + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := render(t, VerboseJSON, tt.tr, tt.o)
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if !json.Valid([]byte(got)) {
				t.Error("not valid JSON")
			}
		})
	}
}

// full is a disk or a connection that takes n bytes and then fails.
type full struct{ n int }

var errFull = errors.New("no more")

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.n {
		return f.n, errFull
	}
	f.n -= len(p)
	return len(p), nil
}

func TestRenderReportsTheWriter(t *testing.T) {
	for _, f := range Formats() {
		if err := Render(&full{}, f, jfk(), Options{}); !errors.Is(err, errFull) {
			t.Errorf("%s: got error %v, want the writer's", f, err)
		}
	}
}

func TestStreamerReportsTheWriter(t *testing.T) {
	for _, n := range []int{0, 3, 10, 30} {
		s, err := NewStreamer(&full{n}, VTT)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(s.Header(), s.Segment(seg(0, sec, "some text")), s.Segment(seg(0, sec, "more")))
		if !errors.Is(err, errFull) {
			t.Errorf("after %d bytes: got error %v, want the writer's", n, err)
		}
	}
}

func TestUnknownFormat(t *testing.T) {
	var fe *fault.Error
	if err := Render(io.Discard, "docx", jfk(), Options{}); !errors.As(err, &fe) || fe.Kind != fault.BadInput {
		t.Errorf("render: got %v, want a fault of kind BadInput", err)
	}
	if _, err := NewStreamer(io.Discard, JSON); !errors.As(err, &fe) || fe.Field != "response_format" {
		t.Errorf("stream json: got %v, want a fault on response_format", err)
	}
}
