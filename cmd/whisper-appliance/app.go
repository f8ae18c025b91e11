package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/paths"
)

// app is what every command needs of its surroundings.
type app struct {
	paths   paths.Paths
	environ []string // as os.Environ gives it
	out     io.Writer
	errOut  io.Writer
	jsonOut bool // --json: one JSON document on out
	url     string
	key     string
}

// The variables that stand for --url and --key.
const (
	urlVariable = "WHISPER_APPLIANCE_URL"
	keyVariable = "WHISPER_APPLIANCE_KEY"
)

// client is the server that was named or the one that runs on this machine,
// false where there is none.
func (a *app) client(ctx context.Context) (*api.Client, bool) {
	key := a.orVariable(a.key, keyVariable)
	if url := a.orVariable(a.url, urlVariable); url != "" {
		return &api.Client{Base: strings.TrimSuffix(url, "/"), Key: key}, true
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", a.paths.APISocket)
	if err != nil {
		return nil, false
	}
	conn.Close()
	c := api.OverSocket(a.paths.APISocket)
	c.Key = key
	return c, true
}

// orVariable is value, or else the environment's.
func (a *app) orVariable(value, name string) string {
	if value != "" {
		return value
	}
	i := slices.IndexFunc(a.environ, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	if i < 0 {
		return ""
	}
	return strings.TrimPrefix(a.environ[i], name+"=")
}

// terminal reports whether w shows to a person.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// meter draws one line of progress, over and over; on no terminal nothing.
type meter struct {
	w     io.Writer
	on    bool
	last  time.Time
	drawn bool
}

func (a *app) meter(quiet bool) *meter {
	return &meter{w: a.errOut, on: !quiet && terminal(a.errOut)}
}

// show draws the line, not more often than a person can read.
func (m *meter) show(format string, args ...any) {
	if !m.on || time.Since(m.last) < 100*time.Millisecond {
		return
	}
	m.last, m.drawn = time.Now(), true
	fmt.Fprintf(m.w, "\r\x1b[K"+format, args...)
}

// clear takes the line away.
func (m *meter) clear() {
	if m.drawn {
		fmt.Fprint(m.w, "\r\x1b[K")
		m.drawn = false
	}
}

// clock is d for people: 1:02:03 or 2:03.
func clock(d time.Duration) string {
	s := int(d.Round(time.Second).Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// size is n for people.
func size(n int64) string {
	switch f := float64(n); {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", f/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", f/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.0f kB", f/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}

// isCobraUsage tells cobra's own complaints about arguments and commands, which have no type.
func isCobraUsage(err error) bool {
	for _, start := range []string{"unknown command", "accepts ", "requires at least", "requires at most", "unknown flag", "unknown shorthand", "invalid argument", "flag needs an argument", "required flag", "if any flags in the group"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}
