package fault

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/agnivade/levenshtein"
)

// Short cuts a value that a caller sent to what a message can bear, and makes
// it valid UTF-8.
func Short(s string) string {
	const most = 80
	s = strings.ToValidUTF8(s, "\uFFFD")
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// Plain makes one line of a stranger's words, of which a terminal takes no
// orders: control characters become spaces, lines are joined by "; ", what only
// steers how text is shown goes, and so does what is beyond so many bytes.
func Plain(s string, most int) string {
	const join = "; "
	if len(s) > 2*most { // it is bounded again below: what goes makes it shorter
		s = strings.ToValidUTF8(s[:2*most], "") + "…"
	}
	lines := strings.FieldsFunc(strings.ToValidUTF8(s, " "), func(r rune) bool { return r == '\n' || r == '\r' || r == '\u2028' || r == '\u2029' })
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.Is(unicode.Cf, r):
			return -1
		}
		return ' '
	}, strings.Join(lines, join))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// PlainLines is Plain for words of several lines, of which it keeps 50. What is
// not the first line is set in by indent, so that it is not taken for something
// else.
func PlainLines(words, indent string) string {
	const mostLines, mostBytes = 50, 4 << 10
	lines := strings.Split(words, "\n")
	if len(lines) > mostLines {
		lines = append(lines[:mostLines], "…")
	}
	for i, line := range lines {
		lines[i] = Plain(line, mostBytes)
	}
	return strings.Join(lines, "\n"+indent)
}

// Address is an address as it is shown: without the name and the password in
// it, either of which may be what lets somebody in. A path is left as it is.
func Address(address string) string {
	const hidden = "…@"
	scheme, rest, is := strings.Cut(address, "://")
	if !is {
		return address
	}
	if u, err := url.Parse(address); err == nil {
		if u.User == nil {
			return address
		}
		u.User = nil
		_, rest, _ = strings.Cut(u.String(), "://")
		return scheme + "://" + hidden + rest
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		return scheme + "://" + hidden + rest[at+1:]
	}
	return address
}

// Bytes is a number of bytes for people, in units of 1024 as the settings
// write their limits, with three digits: "5 bytes", "74.1 MiB", "4 GiB".
func Bytes(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes {
			f := float64(n) / float64(u.bytes)
			if f >= 999.5 {
				return fmt.Sprintf("%.0f %s", f, u.name)
			}
			return fmt.Sprintf("%.3g %s", f, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// longestSlip bounds what is compared, in bytes: no name here is near as long,
// and the comparison's time is the product of both lengths.
const longestSlip = 64

// Near gives those of choices that given may be a slip of, the likeliest first
// and of equals the first in choices first.
func Near(given string, choices []string) []string {
	if len(given) > longestSlip {
		return nil
	}
	most := max(2, len(given)/3)
	distance := map[string]int{}
	var near []string
	for _, choice := range choices {
		if d := levenshtein.ComputeDistance(given, choice); d <= most {
			distance[choice] = d
			near = append(near, choice)
		}
	}
	slices.SortStableFunc(near, func(a, b string) int { return distance[a] - distance[b] })
	return near
}

// Nearest is the first of Near, "" where there is none.
func Nearest(given string, choices []string) string {
	if near := Near(given, choices); len(near) > 0 {
		return near[0]
	}
	return ""
}
