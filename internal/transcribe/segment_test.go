package transcribe

import (
	"context"
	"reflect"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/transcript"
)

func TestAbsolute(t *testing.T) {
	w := audio.Window{Start: 10 * time.Second, End: 20 * time.Second}
	s := time.Second
	for name, c := range map[string]struct{ start, end, wantStart, wantEnd time.Duration }{
		"inside":            {1 * s, 2 * s, 11 * s, 12 * s},
		"beyond the window": {9 * s, 29 * s, 19 * s, 20 * s},
		"all beyond":        {25 * s, 29 * s, 20 * s, 20 * s},
		"before it":         {-3 * s, 2 * s, 10 * s, 12 * s},
		"backwards":         {5 * s, 4 * s, 15 * s, 15 * s},
		"no length":         {5 * s, 5 * s, 15 * s, 15 * s},
	} {
		t.Run(name, func(t *testing.T) {
			got := absolute(engine.Segment{Start: c.start, End: c.end}, w, 0)
			if got.Start != c.wantStart || got.End != c.wantEnd {
				t.Errorf("%v to %v, want %v to %v", got.Start, got.End, c.wantStart, c.wantEnd)
			}
		})
	}
}

func TestAbsoluteKeepsAll(t *testing.T) {
	got := absolute(engine.Segment{
		Start: time.Second, End: 2 * time.Second, Text: " a b", AvgLogProb: -0.5, NoSpeechProb: 0.25,
		Words:  []engine.Word{{Start: time.Second, End: 40 * time.Second, Text: " a", Prob: 0.75}, {Start: 2 * time.Second, End: 2 * time.Second, Text: " b", Prob: 0.5}},
		Tokens: []engine.Token{{ID: 7}, {ID: 9}},
	}, audio.Window{Start: 30 * time.Second, End: 60 * time.Second}, 0.5)
	want := transcript.Segment{
		Start: 31 * time.Second, End: 32 * time.Second, Text: " a b", AvgLogProb: -0.5, NoSpeechProb: 0.25,
		Words:  []transcript.Word{{Start: 31 * time.Second, End: 60 * time.Second, Text: " a", Prob: 0.75}, {Start: 32 * time.Second, End: 32 * time.Second, Text: " b", Prob: 0.5}},
		Tokens: []int{7, 9}, Temperature: 0.5, CompressionRatio: transcript.CompressionRatio(" a b"),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if empty := absolute(engine.Segment{}, audio.Window{}, 0); empty.Tokens == nil {
		t.Error("no tokens are null, not []")
	}
}

func TestJoined(t *testing.T) {
	for name, c := range map[string]struct{ before, text, want string }{
		"Latin":                       {"said.", "Then", " Then"},
		"Latin with its space":        {"said.", " Then", " Then"},
		"Cyrillic":                    {"да", "нет", " нет"},
		"Arabic":                      {"نعم", "لا", " لا"},
		"Korean writes spaces":        {"네", "아니요", " 아니요"},
		"Han":                         {"你好", "世界", "世界"},
		"Hiragana":                    {"です", "そう", "そう"},
		"Katakana":                    {"テスト", "テスト", "テスト"},
		"Thai":                        {"สวัสดี", "ครับ", "ครับ"},
		"after a full-width stop":     {"你好。", "世界", "世界"},
		"Latin after full-width stop": {"你好！", "OK", "OK"},
		"Han after Latin":             {"OK", "世界", "世界"},
		"after a space":               {"said ", "then", "then"},
		"nothing before":              {"", " Then", " Then"},
		"half a character before":     {"said \xe4\xbd", "\xa0", "\xa0"},
	} {
		t.Run(name, func(t *testing.T) {
			got := joined(c.before, transcript.Segment{Text: c.text, Words: []transcript.Word{{Text: c.text}, {Text: "x"}}})
			if got.Text != c.want || got.Words[0].Text != c.want || got.Words[1].Text != "x" {
				t.Errorf("%q, words %v; want %q", got.Text, got.Words, c.want)
			}
		})
	}
}

// TestRunJoins: the seam is between the last text there is and the next.
func TestRunJoins(t *testing.T) {
	windows := [][]string{{"One", " two", ""}, {"", "three", "four"}, {"five"}}
	e := &fakeEngine{answer: func(_ context.Context, n int, _ call, observe func(engine.Event)) (engine.Done, error) {
		for i, text := range windows[n] {
			observe(segment(text, time.Duration(i)*time.Second, time.Duration(i+1)*time.Second))
		}
		return engine.Done{Language: "en"}, nil
	}}
	got, err := service(t, e, threeWindows()).Run(t.Context(), Job{}, ignore)
	if err != nil || got.Text() != "One two threefour five" {
		t.Errorf("text %q, %v", got.Text(), err)
	}
}
