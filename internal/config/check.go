package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// check is a rule for a string: whether it holds, and what would be right.
type check struct {
	ok   func(string) bool
	want string
}

// checkOf is the rule that a check tag names; a string without one may be
// anything.
func checkOf(name string) check {
	switch name {
	case "listen":
		return check{isListen, `an address and a port, such as ":5001" or "127.0.0.1:5001"`}
	case "path":
		return check{isPath, `empty, or the full path of a file or directory, from the root`}
	case "host":
		return check{isHost, `a host name or an address, such as "speech.lan" or "192.0.2.7"`}
	case "place":
		return check{isPlace, `a host with or without a port, such as "files.example.org", "*.example.org" or "192.0.2.7:8443"`}
	case "name":
		return check{isName, `a model's name, such as "base" or "large-v3-turbo"; "whisper-appliance models list" shows them`}
	case "mirror":
		return check{isMirror, `empty, the full path of a directory, or an address that begins with http:// or https://`}
	case "window":
		return check{isWindow, `empty, or two times of the day such as "02:00-05:00"`}
	case "day":
		return check{isDay, `one of mon, tue, wed, thu, fri, sat and sun`}
	case "source":
		return check{isSource, `the full path of a directory, or an address that begins with https:// or http://`}
	case "database":
		return check{isDatabase, `empty, or an address such as "postgres://user:password@host/name"`}
	case "version":
		return check{isVersion, `empty, or a version such as "1.4.2"`}
	case "language":
		return check{isLanguage, `"auto" or a language's code in two or three small letters, such as "en"`}
	}
	return check{func(string) bool { return true }, "a string"}
}

// isListen takes what a listener takes, short of service names.
func isListen(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host != "" && !isHost(host) {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// isDatabase takes what package database opens.
func isDatabase(s string) bool {
	u, err := url.Parse(s)
	return s == "" || err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") && u.Path != "" && u.Fragment == ""
}

func isPath(s string) bool {
	return s == "" || filepath.IsAbs(s) && !strings.ContainsRune(s, 0)
}

// isHost takes an address or a DNS name. A name may not look like an address
// gone wrong: its last label needs a letter.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label || !onlyOf(label, "-_", true) {
			return false
		}
	}
	return len(s) <= 253 && strings.ContainsAny(strings.ToLower(labels[len(labels)-1]), "abcdefghijklmnopqrstuvwxyz")
}

// isPlace takes what package outbound lists: a host, or all below one, and a port.
func isPlace(s string) bool {
	if host, port, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return false
		}
		s = host
	}
	name, wild := strings.CutPrefix(s, "*.")
	if _, err := netip.ParseAddr(name); err == nil {
		return !wild
	}
	return isHost(name)
}

// isName keeps a model's name from being a path or an option.
func isName(s string) bool {
	return s != "" && s[0] != '-' && s[0] != '.' && onlyOf(s, "-._", true)
}

func isMirror(s string) bool {
	u, err := url.Parse(s)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		return u.Host != ""
	}
	return isPath(s)
}

func isLanguage(s string) bool {
	lower := strings.ToLower(s) == s
	return s == "auto" || (len(s) == 2 || len(s) == 3) && lower && onlyOf(s, "", false)
}

// onlyOf reports whether s holds ASCII letters, the marks given and, where
// asked, digits, and nothing else.
func onlyOf(s, marks string, digits bool) bool {
	for _, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		digit := digits && r >= '0' && r <= '9'
		if !letter && !digit && !strings.ContainsRune(marks, r) {
			return false
		}
	}
	return true
}

// isWindow takes "" and HH:MM-HH:MM.
func isWindow(s string) bool {
	from, to, two := strings.Cut(s, "-")
	return s == "" || two && isClock(from) && isClock(to) && from != to
}

func isClock(s string) bool {
	_, err := time.Parse("15:04", s)
	return err == nil && len(s) == len("15:04")
}

func isDay(s string) bool {
	return slices.Contains([]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, s)
}

func isSource(s string) bool { return s != "" && isMirror(s) }

// isVersion leaves the rest to the updater, which knows how versions are
// compared.
func isVersion(s string) bool {
	return s == "" || len(s) <= 64 && s[0] >= '0' && s[0] <= '9' && onlyOf(s, ".-+", true)
}
