package decode

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report reads what ffmpeg says on standard error with -loglevel level+info.
// It is fed as an io.Writer and keeps a bounded amount.
type report struct {
	info      Info
	opened    bool          // the container was understood
	audio     bool          // and has a stream of sound
	inInput   bool          // the lines are about the input file
	declared  time.Duration // by the headers; 0 = unknown
	guessed   bool          // declared is a guess of ffmpeg's
	forbidden string        // the format that the whitelist refused
	partial   bool          // packets were missing or broken
	errors    []string      // the first few

	line []byte // begun and not ended
}

const (
	maxLine   = 4 << 10
	maxErrors = 8
)

// Write takes the lines apart.
func (s *report) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if room := maxLine - len(s.line); room > 0 {
			s.line = append(s.line, line[:min(len(line), room)]...)
		}
		if whole {
			s.take(strings.TrimRight(string(s.line), "\r"))
			s.line = s.line[:0]
		}
		rest = after
	}
	return len(p), nil
}

// linePattern: "[mp3 @ 0x55…] [error] text", the first part optional.
var linePattern = regexp.MustCompile(`^(?:\[([^\] ]+) @ [^\]]*\] )?\[(info|warning|error|fatal|panic)\] ?(.*)$`)

func (s *report) take(line string) {
	m := linePattern.FindStringSubmatch(line)
	if m == nil {
		if !s.opened && strings.TrimSpace(line) != "" {
			s.keepError(line) // not ffmpeg's: the loader's, when a library is missing
		}
		return
	}
	context, level, text := m[1], m[2], strings.TrimSpace(m[3])
	switch level {
	case "error", "fatal", "panic":
		s.takeError(context, text)
	case "warning":
		s.guessed = s.guessed || strings.HasPrefix(text, "Estimating duration")
		s.partial = s.partial || strings.Contains(text, "corrupt")
	default:
		s.takeInfo(text)
	}
}

func (s *report) takeError(context, text string) {
	s.keepError(strings.TrimSpace(context + " " + text))
	if strings.HasPrefix(text, "Format not on whitelist") {
		s.forbidden = context
	}
	for _, sign := range []string{"partial file", "moov atom not found", "Error while decoding", "Error submitting", "decode_frame() failed", "Truncat", "truncat", "End of file"} {
		s.partial = s.partial || strings.Contains(text, sign)
	}
}

func (s *report) keepError(text string) {
	if len(s.errors) < maxErrors {
		s.errors = append(s.errors, text)
	}
}

var (
	inputPattern    = regexp.MustCompile(`^Input #0, (\S+), from `)
	durationPattern = regexp.MustCompile(`^Duration: (\d+):(\d\d):(\d\d)\.(\d\d)`)
	streamPattern   = regexp.MustCompile(`^Stream #0:\d+(?:\[[^\]]*\])?(?:\([^)]*\))?: (Audio|Video): ([^ ,]+)(.*)$`)
	ratePattern     = regexp.MustCompile(`, (\d+) Hz, ([^,]+)`)
)

func (s *report) takeInfo(text string) {
	if m := inputPattern.FindStringSubmatch(text); m != nil {
		s.opened, s.inInput = true, true
		s.info.Format = m[1]
		return
	}
	if strings.HasPrefix(text, "Stream mapping:") || strings.HasPrefix(text, "Output #") {
		s.inInput = false
	}
	if !s.inInput {
		return
	}
	if m := durationPattern.FindStringSubmatch(text); m != nil {
		s.declared = clock(m[1:])
	}
	if m := streamPattern.FindStringSubmatch(text); m != nil {
		s.takeStream(m[1], m[2], m[3])
	}
}

func (s *report) takeStream(kind, codec, rest string) {
	switch {
	case kind == "Video":
		s.info.HasVideo = s.info.HasVideo || !strings.Contains(rest, "(attached pic)")
	case !s.audio: // the first one is decoded
		s.audio = true
		s.info.Codec = codec
		if m := ratePattern.FindStringSubmatch(rest); m != nil {
			s.info.SampleRate, _ = strconv.Atoi(m[1])
			s.info.Channels = channels(m[2])
		}
	}
}

// clock turns hours, minutes, seconds and hundredths into a duration.
func clock(parts []string) time.Duration {
	var n [4]int
	for i, p := range parts {
		n[i], _ = strconv.Atoi(p)
	}
	return time.Duration(n[0])*time.Hour + time.Duration(n[1])*time.Minute +
		time.Duration(n[2])*time.Second + time.Duration(n[3])*10*time.Millisecond
}

// channels counts those of a layout by ffmpeg's name: "stereo", "5.1(side)", "3 channels".
func channels(layout string) int {
	layout, _, _ = strings.Cut(strings.TrimSpace(layout), "(")
	switch layout {
	case "mono":
		return 1
	case "stereo", "downmix":
		return 2
	case "quad":
		return 4
	}
	if n, _, ok := strings.Cut(layout, " channels"); ok {
		count, _ := strconv.Atoi(n)
		return count
	}
	total := 0
	for part := range strings.SplitSeq(layout, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return 0
		}
		total += n
	}
	return total
}

// lost reports whether the file held less sound than it should have. Where the
// headers name a length, it decides: a broken packet in a file that is all
// there is often a tag of another program. A video may be longer than its
// sound, and a guess proves nothing: there broken packets decide.
func (s *report) lost(got time.Duration) bool {
	if s.declared == 0 || s.guessed || s.info.HasVideo {
		return s.partial
	}
	missing := s.declared - got
	if s.partial {
		return missing > 250*time.Millisecond
	}
	return missing > time.Second+s.declared/50
}

// endsEarly is the note on a file of which only a part was there.
func (s *report) endsEarly(got time.Duration) string {
	note := endsEarly(got)
	if s.declared > got+time.Second && !s.guessed {
		note += fmt.Sprintf(" of %.1f s that it promises", s.declared.Seconds())
	}
	return note
}

func endsEarly(got time.Duration) string {
	return fmt.Sprintf("the file ends early or is damaged: %.1f s of sound could be read", got.Seconds())
}

// refusal names the reason why ffmpeg would not have the file.
func (s *report) refusal() *failure {
	switch {
	case s.forbidden != "":
		return s.refusedFormat()
	case s.opened && !s.audio:
		return fail(CodeNoAudioStream, "%s", s.why())
	case s.partial:
		return fail(CodeTruncated, "%s", s.why())
	case slices.ContainsFunc(s.errors, func(e string) bool { return strings.HasSuffix(e, "Permission denied") }):
		return fail(CodeDecoderFailed, "%s", s.why())
	}
	return fail(CodeUndecodable, "%s", s.why())
}

// refusedFormat tells lists from pictures and both from the rest.
func (s *report) refusedFormat() *failure {
	lists := []string{"hls", "concat", "dash", "sdp", "rtsp", "rtp", "sap", "imf", "webm_dash_manifest", "ivr", "applehttp"}
	pictures := []string{"image2", "image2pipe", "gif", "apng", "ico", "fits", "yuv4mpegpipe", "mjpeg", "h264", "hevc", "m4v", "av1", "obu", "ivf"}
	switch {
	case slices.Contains(lists, s.forbidden):
		return fail(CodeForbiddenFormat, "format %s", s.forbidden)
	case slices.Contains(pictures, s.forbidden), strings.HasSuffix(s.forbidden, "_pipe"):
		return fail(CodeNoAudioStream, "format %s", s.forbidden)
	}
	return fail(CodeUndecodable, "format %s", s.forbidden)
}

func (s *report) outOfMemory() bool {
	return slices.ContainsFunc(s.errors, func(e string) bool { return strings.Contains(e, "Cannot allocate memory") })
}

// why is what ffmpeg gave as its reasons, for the log.
func (s *report) why() string { return strings.Join(s.errors, "; ") }
