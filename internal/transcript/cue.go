package transcript

import (
	"fmt"
	"strings"
	"time"
)

// timeStep is the distance of two neighbouring timestamp tokens of Whisper, in ms.
const timeStep = 20

// millis is d rounded to whole milliseconds; times before the start are 0.
// Rounding the whole, before it is split into parts, never makes 1000 ms.
func millis(d time.Duration) int64 {
	return max(0, d.Round(time.Millisecond).Milliseconds())
}

// span is start and end in ms, with an end that is not before the start.
func span(start, end time.Duration) (int64, int64) {
	from := millis(start)
	return from, max(from, millis(end))
}

// clock is HH:MM:SS, sep and three digits of milliseconds. Hours have as many
// digits as they need, at least two.
func clock(ms int64, sep rune) string {
	return fmt.Sprintf("%02d:%02d:%02d%c%03d", ms/3_600_000, ms/60_000%60, ms/1000%60, sep, ms%1000)
}

// lrcTag is [mm:ss.xx]: the format knows no hours, so minutes grow past 99.
func lrcTag(ms int64) string {
	cs := (ms + 5) / 10
	return fmt.Sprintf("[%02d:%02d.%02d]", cs/6000, cs/100%60, cs%100)
}

// lrcText is text on one line. Players read several time tags at the start of
// a line as repetitions of it: a space keeps text from being taken for one.
func lrcText(text string) string {
	text = oneLine(text)
	if len(text) > 1 && text[0] == '[' && text[1] >= '0' && text[1] <= '9' {
		return " " + text
	}
	return text
}

// srtText is the line of a cue. SubRip has no escapes: an arrow would be read
// as times, so it loses a dash, as in Whisper's own writer. Replacing once
// would not do: "--->" leaves an arrow behind.
func srtText(text string) string {
	text = oneLine(text)
	for strings.Contains(text, "-->") {
		text = strings.ReplaceAll(text, "-->", "->")
	}
	return text
}

// vttText is the line of a cue, escaped. With ">" goes the arrow.
func vttText(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(oneLine(text))
}

// oneLine is text with a space for each run of line ends and tabs. In every
// format with times a segment is one line: a blank line would end its cue, and
// a number followed by a time is a new cue to some parsers. U+2028 and U+2029
// count because some take them for line ends.
func oneLine(text string) string {
	var lines []string
	for _, line := range strings.FieldsFunc(text, isBreak) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

func isBreak(r rune) bool { return strings.ContainsRune("\n\t\u2028\u2029", r) }
