package transcript

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// broadcasters is a layout as film services ask for it.
func broadcasters() *Layout {
	return &Layout{Width: 42, FullWidth: 16, Lines: 2, Speed: 17, Shortest: 834 * ms, Longest: 7 * sec}
}

// shown is the text of each cue, with a bar where a line ends.
func shown(cues []cue) (list []string) {
	for _, c := range cues {
		list = append(list, strings.Join(c.lines, "|"))
	}
	return list
}

func TestTextsAreLaidOut(t *testing.T) {
	one := func(l *Layout) { l.Lines = 1 }
	for name, tt := range map[string]struct {
		text string
		with func(*Layout)
		want []string
	}{
		"short":     {" Yes.", nil, []string{"Yes."}},
		"nothing":   {" \n\t", nil, nil},
		"fits":      {" Exactly as long as one line: it is 42 wide", nil, []string{"Exactly as long as one line: it is 42 wide"}},
		"one more":  {" Exactly as long as one line, and it is 43 w", nil, []string{"Exactly as long as one line,|and it is 43 w"}},
		"sentences": {" I went home early. She stayed until the end of it all, and nobody else cared about that.", nil, []string{"I went home early.|She stayed until the end of it all,", "and nobody else cared about that."}},
		"english": {" And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country.", nil,
			[]string{"And so, my fellow Americans,|ask not what your country can do for you,", "ask what you can do for your country."}},
		"before a preposition": {" The whole family went for a long walk in the park by the river", nil, []string{"The whole family went for a long|walk in the park by the river"}},
		"german": {" Die Donaudampfschifffahrtsgesellschaft wurde am 13. März 1829 gegründet und beförderte z. B. Getreide, Holz und Menschen bis ans Schwarze Meer.", nil,
			[]string{"Die Donaudampfschifffahrtsgesellschaft|wurde am 13. März 1829 gegründet", "und beförderte z. B. Getreide,|Holz und Menschen bis ans Schwarze Meer."}},
		"french": {" Je ne sais pas si tu as vu le film dont tout le monde parle, mais il paraît qu'il est vraiment formidable !", nil,
			[]string{"Je ne sais pas si tu as vu le film|dont tout le monde parle,", "mais il paraît qu'il|est vraiment formidable !"}},
		"french marks": {" Il a dit « bonjour tout le monde » ?", func(l *Layout) { l.Width = 22 }, []string{"Il a dit « bonjour|tout le monde » ?"}},
		"japanese": {"今日はとても天気がいいので、友達と一緒にコンピューターショップへ買い物に行きました。それから喫茶店でコーヒーを飲みました。", nil,
			[]string{"今日はとても天気がいいので、友達|と一緒にコンピューターショップへ", "買い物に行きました。それから|喫茶店でコーヒーを飲みました。"}},
		"japanese rules": {"「すごい。」とコンピューターは言った", func(l *Layout) { l.FullWidth = 7 }, []string{"「すごい。」と", "コンピューター|は言った"}},
		"chinese": {"人工智能正在改变我们的生活方式，从手机到汽车，从医疗到教育，几乎没有一个领域不受影响。", nil,
			[]string{"人工智能正在改变我们的生活方式，", "从手机到汽车，从医疗到教育，|几乎没有一个领域不受影响。"}},
		"chinese with latin": {"我买了一台MacBook Pro电脑花了12000元", one, []string{"我买了一台MacBook", "Pro电脑花了12000元"}},
		"korean": {" 오늘은 날씨가 매우 좋아서 친구와 함께 공원에 산책을 갔습니다. 그리고 커피를 마셨습니다.", nil,
			[]string{"오늘은 날씨가 매우 좋아서 친구와|함께 공원에 산책을 갔습니다.", "그리고 커피를 마셨습니다."}},
		"arabic": {" ذهبت إلى المدرسة في الصباح الباكر، وعندما وصلت وجدت أن الباب مغلق ولم يكن هناك أحد.", nil,
			[]string{"ذهبت إلى المدرسة في الصباح الباكر، وعندما|وصلت وجدت أن الباب مغلق ولم يكن هناك أحد."}},
		"thai": {"วันนี้อากาศดีมากฉันจึงไปเดินเล่นที่สวนสาธารณะกับเพื่อนของฉัน", nil, []string{"วันนี้อากาศดีมากฉันจึงไปเดินเล่|นที่สวนสาธารณะกับเพื่อนของฉัน"}},
		"address": {" See https://example.org/a/very/long/address/that/goes/on/and/on for more.", nil,
			[]string{"See|https://example.org/a/very/long/address/that/goes/on/and/on", "for more."}},
		"number and unit":  {" The new line is exactly 12\u00a0000\u202fkm long", func(l *Layout) { l.Width = 28 }, []string{"The new line is exactly|12\u00a0000\u202fkm long"}},
		"number and space": {" It was a cable of 25 kilometers", func(l *Layout) { l.Width = 22 }, []string{"It was a cable|of 25 kilometers"}},
		"title":            {" This letter was sent by Dr. Miller himself", func(l *Layout) { l.Width = 30 }, []string{"This letter was sent|by Dr. Miller himself"}},
		"short sentences":  {" That was in 1998. Oh. Mrs. May was not yet there, and so she cannot know of it", func(l *Layout) { l.Width = 30 }, []string{"That was in 1998. Oh.", "Mrs. May was not yet there,|and so she cannot know of it"}},
		"words of a line":  {" one two three four five", func(l *Layout) { l.Words = 2; l.Lines = 1 }, []string{"one two", "three", "four five"}},
		"three lines":      {" aaaa bbbb cccc dddd eeee ffff", func(l *Layout) { l.Lines = 3; l.Width = 10 }, []string{"aaaa bbbb|cccc dddd|eeee ffff"}},
		"looks like times": {" 1\n00:00:00,000 --> 00:00:09,000", nil, []string{"1 00:00:00,000 --> 00:00:09,000"}},
		"lone space":       {" a \u00a0 b", nil, []string{"a \u00a0 b"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := broadcasters()
			if tt.with != nil {
				tt.with(l)
			}
			n := time.Duration(columnsOf(tt.text))
			if got := shown(l.cues(seg(sec, sec+n*70*ms, tt.text))); !slices.Equal(got, tt.want) {
				t.Errorf("\ngot  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// spoken is a segment whose words begin at so many ms and last for 200.
func spoken(text string, at ...int) Segment {
	s := Segment{Text: text}
	for i, word := range strings.Fields(text) {
		start := time.Duration(at[i]) * ms
		s.Words = append(s.Words, Word{Start: start, End: start + 200*ms, Text: " " + word})
	}
	s.Start, s.End = s.Words[0].Start, s.Words[len(s.Words)-1].End
	return s
}

func TestTimesOfCues(t *testing.T) {
	narrow := func(l *Layout) { l.Width, l.Lines = 10, 1 }
	for name, tt := range map[string]struct {
		segments []Segment
		with     func(*Layout)
		want     []string
	}{
		"as spoken":                 {[]Segment{seg(sec, 3*sec, "a b")}, nil, []string{"1000-3000 a b"}},
		"long enough to see":        {[]Segment{seg(sec, 1200*ms, "a")}, nil, []string{"1000-1834 a"}},
		"long enough to read":       {[]Segment{seg(0, sec, strings.Repeat("a", 34))}, nil, []string{"0-2000 " + strings.Repeat("a", 34)}},
		"not longer than allowed":   {[]Segment{seg(0, 20*sec, "a")}, nil, []string{"0-7000 a"}},
		"into the silence":          {[]Segment{seg(0, 200*ms, "a"), seg(2*sec, 4*sec, "b")}, nil, []string{"0-834 a", "2000-4000 b"}},
		"as far as the next allows": {[]Segment{seg(0, sec, strings.Repeat("a", 34)), seg(1500*ms, 4*sec, "b")}, nil, []string{"0-1416 " + strings.Repeat("a", 34), "1500-4000 b"}},
		"two frames between":        {[]Segment{seg(0, 2*sec, "a"), seg(2*sec, 4*sec, "b")}, nil, []string{"0-1916 a", "2000-4000 b"}},
		"a short pause is closed":   {[]Segment{seg(0, 2*sec, "a"), seg(2400*ms, 4*sec, "b")}, nil, []string{"0-2316 a", "2400-4000 b"}},
		"a pause is left":           {[]Segment{seg(0, 2*sec, "a"), seg(2500*ms, 4*sec, "b")}, nil, []string{"0-2000 a", "2500-4000 b"}},
		"or nothing":                {[]Segment{seg(0, 870*ms, "a"), seg(870*ms, 4*sec, "b")}, nil, []string{"0-870 a", "870-4000 b"}},
		"no length":                 {[]Segment{seg(sec, sec, "a"), seg(sec, 4*sec, "b")}, nil, []string{"1000-1834 a", "1834-4000 b"}},
		"no length, twice":          {[]Segment{seg(sec, sec, "a"), seg(sec, sec, "b")}, nil, []string{"1000-1417 a", "1417-2251 b"}},
		"one inside another":        {[]Segment{seg(0, 6*sec, "a"), seg(2*sec, 3*sec, "b")}, nil, []string{"0-1916 a", "2000-3000 b"}},
		"out of order":              {[]Segment{seg(5*sec, 6*sec, "b"), seg(0, sec, "a")}, nil, []string{"0-1000 a", "5000-6000 b"}},
		"ends before it begins":     {[]Segment{seg(3*sec, 2*sec, "a")}, nil, []string{"3000-3834 a"}},
		"by words": {[]Segment{spoken("alpha beta gamma delta", 1000, 1200, 5000, 5900)}, narrow,
			[]string{"1000-1834 alpha beta", "5000-5900 gamma", "5900-6734 delta"}},
		"words of another text": {[]Segment{{Start: 0, End: 4 * sec, Text: "alpha gamma", Words: []Word{{Start: 3 * sec, End: 4 * sec, Text: "other"}}}}, narrow,
			[]string{"0-1916 alpha", "2000-4000 gamma"}},
		"a stop parts what a comma would": {[]Segment{spoken("one two three four five six", 0, 300, 600, 9000, 9300, 9600)}, nil,
			[]string{"0-834 one two three", "9000-9834 four five six"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := broadcasters()
			if tt.with != nil {
				tt.with(l)
			}
			var got []string
			for _, c := range parsed(t, render(t, SRT, &Transcript{Segments: tt.segments}, Options{Layout: l})) {
				got = append(got, fmt.Sprintf("%d-%d %s", c.start, c.end, strings.Join(c.lines, "|")))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("\ngot  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// parsed reads what is rendered as SRT, and checks its numbers.
func parsed(t *testing.T, srt string) (list []cue) {
	t.Helper()
	for i, block := range strings.Split(strings.TrimSuffix(srt, "\n\n"), "\n\n") {
		if block == "" {
			continue
		}
		lines := strings.Split(block, "\n")
		if len(lines) < 3 || lines[0] != fmt.Sprint(i+1) {
			t.Fatalf("not a cue: %q", block)
		}
		var at [8]int64
		if _, err := fmt.Sscanf(lines[1], "%d:%d:%d,%d --> %d:%d:%d,%d", &at[0], &at[1], &at[2], &at[3], &at[4], &at[5], &at[6], &at[7]); err != nil {
			t.Fatalf("times %q: %v", lines[1], err)
		}
		list = append(list, cue{
			start: ((at[0]*60+at[1])*60+at[2])*1000 + at[3], end: ((at[4]*60+at[5])*60+at[6])*1000 + at[7], lines: lines[2:],
		})
	}
	return list
}

// spokenWords are what random speech is made of.
func spokenWords() []string {
	return []string{" a", " the", " word", " it's", " Wort,", " Ende.", " Dr.", " 42", " 12\u00a0kg", " Donaudampfschifffahrtsgesellschaftskapitän", " !", " «", " »",
		" שלום,", " مرحبا", " привет", "谢谢", "观看。", "コンピューター", "、", "です", " 오늘은", "สวัสดี", "👩\u200d👩\u200d👧", " https://example.org/" + strings.Repeat("x", 60), "\n", " --> ", "é", "\u00a0"}
}

func randomSpeech(r *rand.Rand) []Segment {
	var list []Segment
	all := spokenWords()
	start := time.Duration(0)
	for range r.IntN(8) {
		start += time.Duration(r.IntN(4000)) * ms
		s := Segment{Start: start, End: start + time.Duration(r.IntN(12000)-500)*ms}
		at := start
		for range r.IntN(40) {
			w := Word{Start: at, Text: all[r.IntN(len(all))]}
			at += time.Duration(r.IntN(900)) * ms
			w.End = at
			s.Text += w.Text
			s.Words = append(s.Words, w)
		}
		if r.IntN(3) == 0 {
			s.Words = nil
		}
		list = append(list, s)
	}
	return list
}

func TestLayoutHolds(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 400 {
		l := broadcasters()
		l.Width, l.FullWidth, l.Lines, l.Words = 10+r.IntN(50), 5+r.IntN(20), 1+r.IntN(3), max(0, r.IntN(20)-10)
		segments := randomSpeech(r)
		whole := render(t, SRT, &Transcript{Segments: segments}, Options{Layout: l})
		if got := streamLaid(t, l, segments); got != whole {
			t.Fatalf("streamed %q, rendered %q", got, whole)
		}
		checkTimes(t, l, parsed(t, whole))
		for _, s := range segments {
			checkText(t, l, s)
		}
	}
}

func streamLaid(t *testing.T, l *Layout, segments []Segment) string {
	t.Helper()
	var b strings.Builder
	s, err := NewStreamer(&b, SRT)
	if err != nil {
		t.Fatal(err)
	}
	s.Layout = l
	for _, seg := range segments {
		if err := s.Segment(seg); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func checkTimes(t *testing.T, l *Layout, cues []cue) {
	t.Helper()
	for i, c := range cues {
		if c.end-c.start < timeStep || c.end-c.start > l.Longest.Milliseconds() {
			t.Fatalf("cue %d: %d to %d", i, c.start, c.end)
		}
		if i == 0 {
			continue
		}
		if gap := c.start - cues[i-1].end; gap < 0 || gap > 0 && gap < frames {
			t.Fatalf("%d ms between cues %d and %d: %+v", gap, i-1, i, cues)
		}
	}
}

func checkText(t *testing.T, l *Layout, s Segment) {
	t.Helper()
	text := strings.TrimSpace(Clean(s.Text))
	pieces := piecesOf(s)
	width := l.widthFor(pieces)
	longest := 0
	for _, p := range pieces {
		longest = max(longest, p.columns)
	}
	var all []string
	for _, c := range l.cues(s) {
		if len(c.lines) == 0 || len(c.lines) > l.Lines {
			t.Fatalf("%d lines: %q", len(c.lines), c.lines)
		}
		for _, line := range c.lines {
			if strings.TrimSpace(line) == "" || columnsOf(line) > max(width, longest) {
				t.Fatalf("line %q of %d columns, of at most %d", line, columnsOf(line), width)
			}
		}
		all = append(all, c.lines...)
	}
	if got := strings.Join(all, ""); string(letters(got)) != string(letters(text)) {
		t.Fatalf("text %q became %q", text, got)
	}
	if got := strings.Join(all, " "); !strings.ContainsFunc(text, UnspacedRune) && !slices.Equal(strings.Fields(got), strings.Fields(text)) {
		t.Fatalf("words of %q became %q", text, got)
	}
}

func TestLongTextIsLaidOutInTime(t *testing.T) {
	l := &Layout{Width: 100, FullWidth: 50, Lines: 4, Speed: 17, Shortest: sec, Longest: 7 * sec}
	for _, text := range []string{strings.Repeat("観", 400), strings.Repeat(" a", 400)} {
		begun := time.Now()
		n := len(l.cues(seg(0, 30*sec, text)))
		if took := time.Since(begun); n < 2 || took > 5*sec {
			t.Errorf("%d cues in %v", n, took)
		}
	}
}
