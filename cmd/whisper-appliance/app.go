package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

// app is what every command needs of its surroundings.
type app struct {
	paths   paths.Paths
	environ []string // as os.Environ gives it
	in      io.Reader
	out     io.Writer
	errOut  io.Writer
	jsonOut bool // --json: one JSON document on out
	url     string
	key     string
	trust   api.Trust // of the server at url
}

// The variables that stand for the flags that say which server, and how.
const (
	urlVariable         = "WHISPER_APPLIANCE_URL"
	keyVariable         = "WHISPER_APPLIANCE_KEY"
	fingerprintVariable = "WHISPER_APPLIANCE_FINGERPRINT"
	cacertVariable      = "WHISPER_APPLIANCE_CACERT"
)

// serverFlags gives c the flags that name a server. Only commands that talk to
// one have them: the others work on this machine, whatever runs elsewhere.
func (a *app) serverFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&a.url, "url", "", "`address` of the server; else $"+urlVariable+", else its socket on this machine")
	f.StringVar(&a.key, "key", "", "API `key`; better in $"+keyVariable+", where no other user sees it")
	f.StringVar(&a.trust.Fingerprint, "fingerprint", "", "`SHA256` of the certificate of an https server, as its log shows it; else $"+fingerprintVariable)
	f.StringVar(&a.trust.CACert, "cacert", "", "PEM `file` with authorities to trust beside this machine's; else $"+cacertVariable)
}

// client is the server that was named or the one that runs on this machine,
// false where there is none.
func (a *app) client(ctx context.Context) (*api.Client, bool, error) {
	key := a.orVariable(a.key, keyVariable)
	if url := a.orVariable(a.url, urlVariable); url != "" {
		trust := a.trust
		if trust == (api.Trust{}) {
			trust = api.Trust{Fingerprint: a.orVariable("", fingerprintVariable), CACert: a.orVariable("", cacertVariable)}
		}
		c, err := api.OverNetwork(url, trust)
		if err != nil {
			return nil, false, err
		}
		c.Key = key
		return c, true, nil
	}
	if a.trust != (api.Trust{}) {
		return nil, false, usageError{errors.New("--fingerprint and --cacert are for a server that --url names")}
	}
	return a.localServer(ctx)
}

// localServer is the server that runs on this machine, false where none does.
func (a *app) localServer(ctx context.Context) (*api.Client, bool, error) {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", a.paths.APISocket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, false, nil
	case err != nil:
		return nil, false, unreachable(a.paths.APISocket, err)
	}
	conn.Close()
	c := api.OverSocket(a.paths.APISocket)
	c.Key = a.orVariable(a.key, keyVariable)
	return c, true, nil
}

// unreachable is for a server that may well run: to work without it would load
// a second model beside its own.
func unreachable(socket string, err error) error {
	kind := fault.Unavailable
	if errors.Is(err, fs.ErrPermission) {
		kind = fault.Forbidden
	}
	return fault.New(kind, "socket_unreachable", "the server's socket %s cannot be reached", socket).Because(err).
		Try("see the modes of the socket and of its directories, or name the server's address with --url; `transcribe --alone` works without it")
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

// isCobraUsage tells cobra's own complaints about arguments and commands, which have no type.
func isCobraUsage(err error) bool {
	for _, start := range []string{"unknown command", "accepts ", "requires at least", "requires at most", "unknown flag", "unknown shorthand", "invalid argument", "flag needs an argument", "required flag", "if any flags in the group"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}
