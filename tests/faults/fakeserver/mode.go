package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The modes. The first line of share/mode is one of them with its values, which
// may be left out. "in ROLE MODE" holds in one place alone: preflight, next or
// server. "marked" is what the file "mode" beside the server's Unix socket says,
// read at each start; good without it. The lines after the first may set "takes D", the time of a
// transcription (5ms), and "grace D", how long a stop goes on answering (1.5s).
// Without the file the server is good.
const (
	good          = "good"
	crash         = "crash"              // at the start
	crashAfter    = "crash-after"        // D after READY: degrade-after D crash
	hang          = "hang"               // neither READY nor an answer
	noWatchdog    = "no-watchdog"        // READY, and from then on neither signs nor answers
	wedgeAfter    = "wedge-after"        // degrade-after D no-watchdog
	notReady      = "not-ready"          // the engine fails: /readyz 503, no transcription
	slow          = "slow"               // FACTOR (3): a transcription takes so many times as long
	leak          = "leak"               // MIB (20) of memory more each second, to a GiB
	failing       = "errors"             // PERCENT (50) of the transcriptions and API calls are 500
	degradeAfter  = "degrade-after"      // D MODE …: good until D after READY
	slowStop      = "exit-on-stop-slow"  // D (10s): a stop takes so much longer
	marked        = "marked"             // see above
	defaultTakes  = 5 * time.Millisecond // on top of which nothing is computed
	defaultGrace  = 1500 * time.Millisecond
	defaultFactor = 3
	defaultLeak   = 20
	defaultErrors = 50
	defaultStop   = 10 * time.Second
)

// mode is how the server behaves.
type mode struct {
	name  string
	value float64       // FACTOR, MIB or PERCENT
	after time.Duration // D
	then  *mode         // of degrade-after
	in    string        // ROLE; "" = everywhere

	takes, grace time.Duration // of the first mode alone
}

func readMode(dir string) (mode, error) {
	path := filepath.Join(dir, "share", "mode")
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		data, err = []byte(good), nil
	}
	if err != nil {
		return mode{}, err
	}
	m, err := parseModes(string(data))
	if err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func parseModes(text string) (mode, error) {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	m, err := parseMode(strings.Fields(first))
	if err != nil {
		return m, err
	}
	m.takes, m.grace = defaultTakes, defaultGrace
	for line := range strings.Lines(rest) {
		words := strings.Fields(line)
		if len(words) != 2 {
			return m, fmt.Errorf("%q is neither \"takes D\" nor \"grace D\"", line)
		}
		d, err := time.ParseDuration(words[1])
		switch {
		case err != nil:
			return m, err
		case words[0] == "takes":
			m.takes = d
		case words[0] == "grace":
			m.grace = d
		default:
			return m, fmt.Errorf("nothing is called %q", words[0])
		}
	}
	return m, nil
}

func parseMode(words []string) (m mode, err error) {
	if len(words) == 0 {
		return mode{name: good}, nil
	}
	if words[0] == "in" && len(words) > 2 && len(words[1]) > 0 {
		m, err := parseMode(words[2:])
		m.in = words[1]
		return m, err
	}
	m, values := mode{name: words[0]}, words[1:]
	switch m.name {
	case good, crash, hang, noWatchdog, notReady, marked:
	case slow:
		m.value, values, err = number(values, defaultFactor)
	case leak:
		m.value, values, err = number(values, defaultLeak)
	case failing:
		m.value, values, err = number(values, defaultErrors)
	case slowStop:
		m.after, values, err = length(values, defaultStop)
	case crashAfter, wedgeAfter:
		m.then = &mode{name: map[string]string{crashAfter: crash, wedgeAfter: noWatchdog}[m.name]}
		m.name = degradeAfter
		m.after, values, err = length(values, 0)
	case degradeAfter:
		if m.after, values, err = length(values, 0); err == nil {
			var then mode
			then, err = parseMode(values)
			m.then, values = &then, nil
		}
	default:
		return m, fmt.Errorf("there is no mode %q", m.name)
	}
	if err == nil && len(values) > 0 {
		err = fmt.Errorf("mode %s does not know %q", m.name, values)
	}
	return m, err
}

// roles of a server, by a part of the name of a socket that it is handed.
const (
	rehearsal = "preflight"
	candidate = "next"
	regular   = "server"
)

// role is the server's, by the names of its sockets.
func role(sockets string) string {
	for _, r := range []string{rehearsal, candidate} {
		if strings.Contains(sockets, "-"+r+"@") {
			return r
		}
	}
	return regular
}

// here is the mode of a server with that role, whose Unix socket is in run.
func (m mode) here(role, run string) (mode, error) {
	out := m
	var err error
	switch {
	case m.in != "" && m.in != role:
		out = mode{name: good}
	case m.name == marked && (role != regular || run == ""):
		out = mode{name: good}
	case m.name == marked:
		text, readErr := os.ReadFile(filepath.Join(run, "mode"))
		if readErr != nil && !os.IsNotExist(readErr) {
			return m, readErr
		}
		out, err = parseMode(strings.Fields(string(text)))
	}
	out.takes, out.grace = m.takes, m.grace
	return out, err
}

func number(words []string, otherwise float64) (float64, []string, error) {
	if len(words) == 0 {
		return otherwise, nil, nil
	}
	v, err := strconv.ParseFloat(words[0], 64)
	return v, words[1:], err
}

func length(words []string, otherwise time.Duration) (time.Duration, []string, error) {
	if len(words) == 0 {
		return otherwise, nil, nil
	}
	d, err := time.ParseDuration(words[0])
	return d, words[1:], err
}
