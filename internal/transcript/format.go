package transcript

import (
	"strings"

	"whisper-appliance/internal/fault"
)

// Format is a way to write a transcript down. Every format is UTF-8 without a
// byte order mark and ends its lines with a single newline.
type Format string

// The formats.
const (
	Txt         Format = "txt"          // the text and a newline; "text" in OpenAI's API
	JSON        Format = "json"         // {"text": …}
	VerboseJSON Format = "verbose_json" // with language, duration, segments and words, as OpenAI's
	SRT         Format = "srt"          // SubRip subtitles
	VTT         Format = "vtt"          // WebVTT subtitles
	TSV         Format = "tsv"          // start, end (ms) and text, tab separated, under a header; as Whisper's
	Words       Format = "words"        // start, end (ms), probability and word, tab separated, under a header
	LRC         Format = "lrc"          // lyrics: [mm:ss.xx]text
)

// Formats lists all formats.
func Formats() []Format {
	return []Format{Txt, JSON, VerboseJSON, SRT, VTT, TSV, Words, LRC}
}

// ParseFormat reads a format's name, in any case; "text" is OpenAI's name for
// txt. Any other name is a fault of kind BadInput that lists the right ones.
func ParseFormat(name string) (Format, error) {
	wanted := Format(strings.ToLower(name))
	if wanted == "text" {
		return Txt, nil
	}
	var names []string
	for _, f := range Formats() {
		if f == wanted {
			return f, nil
		}
		names = append(names, string(f))
	}
	return "", fault.New(fault.BadInput, "unknown_format",
		"%q is not a format of a transcript", fault.Short(name)).
		On("response_format").
		Try("use one of text, %s", strings.Join(names, ", "))
}

// ContentType is the media type of f for HTTP. SRT and LRC have no registered
// type and are plain text, as in OpenAI's API; "" for what is no format.
func ContentType(f Format) string {
	switch f {
	case JSON, VerboseJSON:
		return "application/json"
	case VTT:
		return "text/vtt; charset=utf-8"
	case TSV, Words:
		return "text/tab-separated-values; charset=utf-8"
	case Txt, SRT, LRC:
		return "text/plain; charset=utf-8"
	}
	return ""
}

// Extension is what a file name in format f ends with, with its dot.
func (f Format) Extension() string {
	switch f {
	case VerboseJSON:
		return ".json"
	case Words:
		return ".words.tsv"
	}
	return "." + string(f)
}

// NeedsWords says that f shows word times, so the engine must be asked for them.
func (f Format) NeedsWords() bool { return f == Words }

// Streams says that f can be written while segments arrive (see NewStreamer).
// The JSON formats cannot: their first keys speak of the whole.
func (f Format) Streams() bool {
	switch f {
	case Txt, SRT, VTT, TSV, Words, LRC:
		return true
	}
	return false
}
