package transcript

import (
	"strconv"
	"time"

	"whisper-appliance/internal/fault"
)

// Layout says how the text of segments is laid out as the cues of srt and vtt.
// Widths and speeds are in columns: a full-width character takes two, a
// combining mark none.
//
// The bounds in it are kept but for what has no other way: a word wider than a
// line has the line to itself, and text that is spoken faster than it can be
// read stays for as long as the next cue lets it.
type Layout struct {
	Width     int           // of a line, in columns
	FullWidth int           // of a line that is Chinese, Japanese or Korean in the main, in full-width characters
	Lines     int           // of a cue, at most
	Words     int           // of a line, at most; 0 = any number. Without spaces each character is one
	Speed     int           // columns a second that people can read
	Shortest  time.Duration // that a cue stays, where the next one lets it
	Longest   time.Duration // that a cue stays
}

// Style is what a cue is.
type Style string

// The styles.
const (
	Broadcast  Style = "broadcast" // laid out for people: see Layout
	PerSegment Style = "segments"  // one cue for each segment, on one line, as Whisper's own
)

// The names of what may be asked for of subtitles. Three of them are those of
// the options of Whisper's own program.
const (
	styleField = "subtitle_style"
	widthField = "max_line_width"
	linesField = "max_line_count"
	wordsField = "max_words_per_line"
	speedField = "max_cps"
)

// LayoutFields lists the names that ChooseLayout reads.
func LayoutFields() []string {
	return []string{styleField, widthField, linesField, wordsField, speedField}
}

// Cues says that f is made of cues, which can be laid out.
func (f Format) Cues() bool { return f == SRT || f == VTT }

// ChooseLayout is what a request asks for of the cues of f, nil for one cue a
// segment. get gives the value of a field of LayoutFields, "" for one that was
// not sent; usual holds where nothing is sent. A number that is sent asks for
// Broadcast. What is wrong is a fault that names its field.
func ChooseLayout(f Format, usual Style, settings Layout, get func(field string) string) (*Layout, error) {
	style, bounds := Style(get(styleField)), boundsOf(&settings)
	sent := ""
	for _, b := range bounds {
		if sent == "" && get(b.field) != "" {
			sent = b.field
		}
	}
	if !f.Cues() {
		if style != "" {
			sent = styleField
		}
		return nil, needsCues(sent, f)
	}
	switch {
	case style == "" && sent != "":
		style = Broadcast
	case style == "":
		style = usual
	case style != Broadcast && style != PerSegment:
		return nil, fault.New(fault.BadInput, "invalid_value", "%s is %q; it must be %s or %s", styleField, fault.Short(string(style)), Broadcast, PerSegment).On(styleField)
	}
	if style == PerSegment {
		return nil, conflicting(sent)
	}
	for _, b := range bounds {
		if err := b.read(get(b.field)); err != nil {
			return nil, err
		}
	}
	if get(widthField) != "" {
		settings.FullWidth = settings.Width / 2
	}
	return &settings, nil
}

func needsCues(field string, f Format) error {
	if field == "" {
		return nil
	}
	return fault.New(fault.BadInput, "invalid_value", "%s is for the formats srt and vtt; this one is %s", field, f).On(field).
		Try("ask for srt or vtt, or leave %s out", field)
}

func conflicting(field string) error {
	if field == "" {
		return nil
	}
	return fault.New(fault.BadInput, "invalid_value", "%s says how cues are laid out, and with %s %s they are not", field, styleField, PerSegment).On(field).
		Try("leave one of them out")
}

// bound is a number of a Layout that may be sent.
type bound struct {
	field       string
	to          *int
	least, most int
}

func boundsOf(l *Layout) []bound {
	return []bound{
		{widthField, &l.Width, 10, 100},
		{linesField, &l.Lines, 1, 4},
		{wordsField, &l.Words, 1, 50},
		{speedField, &l.Speed, 5, 100},
	}
}

func (b bound) read(value string) error {
	if value == "" {
		return nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < b.least || n > b.most {
		return fault.New(fault.BadInput, "invalid_value", "%s is %q; it must be a whole number from %d to %d", b.field, fault.Short(value), b.least, b.most).On(b.field)
	}
	*b.to = n
	return nil
}
