package diagnose

import (
	"net/netip"
	"regexp"
	"strings"
)

// scrubber takes out of text what nobody else should read.
type scrubber struct {
	rules   []rule
	address *regexp.Regexp
	host    *regexp.Regexp // nil where the machine's name is not known
}

type rule struct {
	find *regexp.Regexp
	with string
}

const removed = "(removed)"

func newScrubber(host string) *scrubber {
	s := &scrubber{address: regexp.MustCompile(`[0-9A-Fa-f:.]{3,}`)}
	for _, r := range [][2]string{
		{`(?s)-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|$)`, removed},
		{`(?m)^(\s*(?:Environment|SetCredential\w*|LoadCredential\w*)\s*=).*$`, "${1}" + removed},
		{`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}`, "$1 " + removed},
		{`(?i)([\w-]*(?:password|passwd|secret|token|api-?_?key|appliance_key|authorization|cookie)"?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;"'}\]]+)`, "${1}" + removed},
		{`\bwa_[A-Za-z0-9_-]{8,}`, removed},         // keys of ours
		{`\b(?:sk|pk)-[A-Za-z0-9_-]{16,}`, removed}, // and such as others give
		{`\b[0-9a-fA-F]{64}\b`, removed},            // digests: of keys, among others
		{`(?i)\b([a-z][a-z0-9+.-]*://)[^/\s"'<>@]*@`, "${1}"},
		{`(?i)\b([a-z][a-z0-9+.-]*://[^\s"'<>?#]*)[?#][^\s"'<>]*`, "${1}"},
	} {
		s.rules = append(s.rules, rule{regexp.MustCompile(r[0]), r[1]})
	}
	if short, _, _ := strings.Cut(host, "."); len(short) > 1 && short != "localhost" {
		s.host = regexp.MustCompile(`(?i)\b` + regexp.QuoteMeta(short) + `(?:` + regexp.QuoteMeta(strings.TrimPrefix(host, short)) + `)?\b`)
	}
	return s
}

// text is s without secrets, addresses and the machine's name.
func (s *scrubber) text(text string) string {
	for _, r := range s.rules {
		text = r.find.ReplaceAllString(text, r.with)
	}
	text = s.address.ReplaceAllStringFunc(text, hidden)
	if s.host != nil {
		text = s.host.ReplaceAllStringFunc(text, func(found string) string {
			if strings.EqualFold(found, "whisper-appliance") || strings.EqualFold(found, "appliance") {
				return found // what everything here is called
			}
			return "HOST"
		})
	}
	return text
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
