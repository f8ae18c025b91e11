package diagnose

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// scrubber takes out of text what nobody else should read.
type scrubber struct {
	block   *regexp.Regexp // PEM, of several lines
	rules   []rule
	address *regexp.Regexp
	host    *regexp.Regexp // nil where the machine's name is not known
	short   string         // its first part, in small letters
}

// rule replaces what it finds. It is tried on lines with one of its hints, in
// small letters: an expression on eight megabytes takes its time.
type rule struct {
	hints []string
	find  *regexp.Regexp
	with  string
}

const removed = "(removed)"

func newScrubber(host string) *scrubber {
	s := &scrubber{
		block:   regexp.MustCompile(`(?s)-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|$)`),
		address: regexp.MustCompile(`[0-9A-Fa-f:.]{3,}`),
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
	} {
		s.rules = append(s.rules, rule{strings.Fields(r.hints), regexp.MustCompile(r.find), r.with})
	}
	if short, _, _ := strings.Cut(host, "."); len(short) > 1 && short != "localhost" {
		s.short = strings.ToLower(short)
		s.host = regexp.MustCompile(`(?i)\b` + regexp.QuoteMeta(short) + `(?:` + regexp.QuoteMeta(strings.TrimPrefix(host, short)) + `)?\b`)
	}
	return s
}

// text is given without secrets, addresses and the machine's name.
func (s *scrubber) text(given string) string {
	if strings.Contains(given, "-----BEGIN") {
		given = s.block.ReplaceAllString(given, removed)
	}
	var b strings.Builder
	for line := range strings.Lines(given) {
		b.WriteString(s.line(line))
	}
	return b.String()
}

func (s *scrubber) line(line string) string {
	small := strings.ToLower(line)
	for _, r := range s.rules {
		if slices.ContainsFunc(r.hints, func(h string) bool { return strings.Contains(small, h) }) {
			line = r.find.ReplaceAllString(line, r.with)
		}
	}
	if strings.ContainsAny(line, ".:") {
		line = s.address.ReplaceAllStringFunc(line, hidden)
	}
	if s.host == nil || !strings.Contains(small, s.short) {
		return line
	}
	return s.host.ReplaceAllStringFunc(line, func(found string) string {
		if strings.EqualFold(found, "whisper-appliance") || strings.EqualFold(found, "appliance") {
			return found // what everything here is called
		}
		return "HOST"
	})
}

// hidden is a word that may be an address, alone or with a port. Those that
// every machine has stay.
func hidden(word string) string {
	trimmed := strings.TrimRight(word, ":.")
	rest := word[len(trimmed):]
	addr, err := netip.ParseAddr(trimmed)
	if at, portErr := netip.ParseAddrPort(trimmed); err != nil && portErr == nil {
		_, port, _ := strings.Cut(trimmed, ":")
		addr, err, rest = at.Addr(), nil, ":"+port+rest
	}
	if err != nil || addr.IsLoopback() || addr.IsUnspecified() {
		return word
	}
	return "ADDRESS" + rest
}
