package diagnose

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// scrubber takes out of text what nobody else should read.
type scrubber struct {
	block *regexp.Regexp // PEM, of several lines
	rules []rule
	words *regexp.Regexp // see line
	host  hostName
	bound *regexp.Regexp // the numbers of an IPv4 address
	hex   *regexp.Regexp // one of an IPv6 address
	card  *regexp.Regexp // the address of a network card
}

// rule replaces what it finds. It is tried on lines with one of its hints, in
// small letters: an expression on eight megabytes takes its time.
type rule struct {
	hints []string
	find  *regexp.Regexp
	with  string
}

const removed = "(removed)"

// escapes are those of JSON: what stands before a word in them is none of it.
const escapes = `\\\\|\\[bfnrt"/]|\\u[0-9A-Fa-f]{4}|`

func newScrubber(host string) *scrubber {
	s := &scrubber{
		block: regexp.MustCompile(`(?s)-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|$)`),
		words: regexp.MustCompile(escapes + `[\w.:-]+`),
		bound: regexp.MustCompile(`\b\d{1,3}(?:\.\d{1,3}){3,}\b`),
		hex:   regexp.MustCompile(`^[0-9A-Fa-f]{0,4}$`),
		card:  regexp.MustCompile(`\b[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5,}\b`),
		host:  newHostName(host),
	}
	for _, r := range []struct{ hints, find, with string }{
		{"environment credential", `^(\s*(?:Environment|SetCredential\w*|LoadCredential\w*)\s*=).*`, "${1}" + removed},
		{"bearer basic", `(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}`, "$1 " + removed},
		{"passw secret token api appliance_key authorization cookie",
			`(?i)((?:password|passwd|secret|token|api-?_?key|appliance_key|authorization|cookie)\\?"?\s*[=:]\s*)(\\?"[^"]*"|'[^']*'|[^\s,;"'}\]]+)`, "${1}" + removed},
		{"wa_", `\bwa_[A-Za-z0-9_-]{8,}`, removed},             // keys of ours
		{"sk- pk-", `\b(?:sk|pk)-[A-Za-z0-9_-]{16,}`, removed}, // and such as others give
		{"://", `(?i)\b([a-z][a-z0-9+.-]*://)[^/\s"'<>@]*@`, "${1}"},
		{"://", `(?i)\b([a-z][a-z0-9+.-]*://[^\s"'<>?#]*)[?#][^\s"'<>]*`, "${1}"},
		{"0 1 2 3 4 5 6 7 8 9", `\b[0-9a-fA-F]{64}\b`, removed}, // digests: of keys, among others
		// Of network cards, in the names of their interfaces.
		{"enx wlx wwx", `(?i)\b(enx|wlx|wwx)[0-9a-f]{12}\b`, "${1}ADDRESS"},
	} {
		s.rules = append(s.rules, rule{strings.Fields(r.hints), regexp.MustCompile(r.find), r.with})
	}
	return s
}

// text is given without secrets, addresses and the machine's name.
func (s *scrubber) text(given string) string {
	if strings.Contains(given, "-----BEGIN") {
		given = s.block.ReplaceAllString(given, removed)
	}
	var b strings.Builder
	for line := range strings.Lines(joined(given)) {
		b.WriteString(s.line(line))
	}
	return b.String()
}

// joined puts lines together that are one to systemd: a backslash at the end
// continues, also past comments.
func joined(given string) string {
	if !strings.Contains(given, "\\\n") && !strings.Contains(given, "\\\r\n") {
		return given
	}
	var b strings.Builder
	within := false
	for line := range strings.Lines(given) {
		bare := strings.TrimSpace(line)
		if within && bare != "" && strings.ContainsRune("#;", rune(bare[0])) {
			continue
		}
		head, continues := strings.CutSuffix(strings.TrimRight(line, "\r\n"), `\`)
		if within = continues; continues {
			line = head + " "
		}
		b.WriteString(line)
	}
	return b.String()
}

// line takes out what the rules find, and then looks at the words: whatever
// may be a name or an address with what is around it.
func (s *scrubber) line(line string) string {
	small := strings.ToLower(line)
	for _, r := range s.rules {
		if slices.ContainsFunc(r.hints, func(h string) bool { return strings.Contains(small, h) }) {
			line = r.find.ReplaceAllString(line, r.with)
		}
	}
	named := s.host.in(small)
	if !named && !strings.ContainsAny(line, ".:-") {
		return line
	}
	return s.words.ReplaceAllStringFunc(line, func(word string) string {
		if word[0] == '\\' {
			return word
		}
		if named {
			word = s.host.hidden(word)
		}
		return s.hidden(word)
	})
}

// hidden is a word with the addresses in it taken out, alone, with a port or
// after another word. Those that every machine has stay.
func (s *scrubber) hidden(word string) string {
	colons := strings.Count(word, ":")
	if colons+strings.Count(word, "-") >= 5 {
		word = s.card.ReplaceAllString(word, "ADDRESS")
	}
	if colons >= 2 {
		word = s.hidden6(word)
	}
	if strings.Count(word, ".") < 3 {
		return word
	}
	return s.bound.ReplaceAllStringFunc(word, func(found string) string {
		addr, err := netip.ParseAddr(found)
		if err == nil && (addr.IsLoopback() || addr.IsUnspecified()) {
			return found
		}
		return "ADDRESS"
	})
}

// hidden6 takes IPv6 addresses out of a word: of its parts between colons the
// longest rows that are one.
func (s *scrubber) hidden6(word string) string {
	parts := strings.Split(word, ":")
	for from := 0; from < len(parts); from++ {
		for to := min(len(parts), from+9); to-from > 2; to-- {
			last := strings.TrimRight(parts[to-1], ".-") // of a sentence
			text := strings.Join(append(slices.Clone(parts[from:to-1]), last), ":")
			if !s.hex.MatchString(parts[from]) || len(text) < 3 {
				continue
			}
			addr, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			if !addr.IsLoopback() && !addr.IsUnspecified() {
				parts = slices.Replace(parts, from, to, "ADDRESS"+strings.TrimPrefix(parts[to-1], last))
			}
			break
		}
	}
	return strings.Join(parts, ":")
}

// hostName is this machine's, as it may stand in a text.
type hostName struct {
	full, short string // small letters; "" where it is not known

	// common is a name that our own words are made of: it is taken out where it
	// stands alone, for with a dot or a dash beside it it is a unit or a file.
	common bool
}

func newHostName(host string) hostName {
	full := strings.ToLower(strings.TrimSuffix(host, "."))
	short, _, _ := strings.Cut(full, ".")
	if len(short) < 2 || short == "localhost" || short == "whisper-appliance" || short == "appliance" {
		return hostName{} // what everything here is called
	}
	ours := []string{"whisper", "whisperappliance", "server", "engine", "decoder", "config", "settings", "journal", "systemd"}
	return hostName{full, short, slices.Contains(ours, short)}
}

// in tells whether a line in small letters may hold it.
func (h hostName) in(small string) bool { return h.short != "" && strings.Contains(small, h.short) }

// hidden is a word of letters, digits, dots, dashes and colons without the
// name. Beside a dash it is another name; with dots around it is this machine's
// in some domain, unless it is a common one.
func (h hostName) hidden(word string) string {
	parts := strings.Split(word, ":")
	for i, part := range parts {
		bare := strings.Trim(part, ".")
		small := strings.ToLower(bare)
		if small == h.short || small == h.full || !h.common && slices.Contains(strings.Split(small, "."), h.short) {
			parts[i] = strings.Replace(part, bare, "HOST", 1)
		}
	}
	return strings.Join(parts, ":")
}
