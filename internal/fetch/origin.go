package fetch

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/trust"
)

// origin is a source as the fetcher sees it.
type origin interface {
	// Metadata is that of trust.Source.
	Metadata(ctx context.Context, name string, most int64) ([]byte, error)

	// open gives an artefact from byte from on, or from its beginning where the
	// rest alone cannot be had or is of another file than tag says. The error is
	// passing where another attempt may do better; fs.ErrNotExist where there is
	// no such artefact. Reading ends with ctx.
	open(ctx context.Context, name string, from int64, tag string) (stream, error)
}

// stream is an artefact, or the rest of one.
type stream struct {
	io.ReadCloser
	from  int64  // of its first byte
	total int64  // bytes of the whole artefact; -1 where the source does not say
	tag   string // of the version that the source has; "" where it has none
}

// passing is a failure after which another attempt may do better.
type passing struct {
	err     error
	after   time.Duration // the source's wish, 0 = none
	refused bool          // it answered, with a status
}

func (e *passing) Error() string { return e.err.Error() }
func (e *passing) Unwrap() error { return e.err }

// origin is the source at an address or in a directory.
func (f *Fetcher) origin(address string) (origin, error) {
	if !strings.Contains(address, "://") {
		if !filepath.IsAbs(address) {
			return nil, badSource(address, "is neither an address nor a full path")
		}
		return directory{trust.Directory(address)}, nil
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, badSource(address, "is no address")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, badSource(address, "is no address of http or https")
	case u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, badSource(address, "has no host, or has a query")
	}
	return &web{base: u, client: f.Client, agent: f.Agent, pause: f.Pause, stall: f.Stall}, nil
}

func badSource(address, what string) error {
	return fault.New(fault.BadInput, "bad_source", "the source %q %s", fault.Short(fault.Address(address)), what).On("sources").
		Try("name an address such as https://example.org/releases, or a directory by its full path")
}

// directory is a source that is mounted here.
type directory struct{ trust.Source }

func (d directory) open(ctx context.Context, name string, from int64, _ string) (stream, error) {
	r, err := d.Target(ctx, name)
	if err != nil {
		return stream{}, directoryFault(err)
	}
	// The digest decides in the end whether beginning and rest are of one file.
	if s, ok := r.(io.Seeker); ok && from > 0 {
		if at, err := s.Seek(from, io.SeekStart); err != nil || at != from {
			r.Close()
			return stream{}, directoryFault(err)
		}
		return stream{ReadCloser: r, from: from, total: -1}, nil
	}
	return stream{ReadCloser: r, total: -1}, nil
}

func directoryFault(err error) error {
	var f *fault.Error
	if errors.As(err, &f) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fault.New(fault.Unavailable, "source_unreachable", "the artefact cannot be read from the source").Because(err).
		Try("see that the directory can be read by the user whisper-appliance-fetch")
}

// attempts in a row that bring nothing are the most that a source is asked.
const attempts = 5

// retry makes attempts until one succeeds, or fails in a way that another will
// not mend, or too many in a row have brought nothing.
func retry(ctx context.Context, pause time.Duration, attempt func() (brought bool, err error)) error {
	for failures := 0; ; {
		brought, err := attempt()
		if ctx.Err() != nil && err != nil {
			return context.Cause(ctx)
		}
		var p *passing
		if !errors.As(err, &p) {
			return err
		}
		if brought {
			failures = 0
		}
		if failures++; failures >= attempts {
			return gaveUp(p, failures)
		}
		if err := wait(ctx, max(pauseFor(pause, failures), p.after)); err != nil {
			return err
		}
	}
}

func gaveUp(p *passing, failures int) error {
	if p.refused {
		return fault.New(fault.Unavailable, "source_refused", "given up after %d attempts", failures).Because(p.err).
			Try("the source is overloaded or out of order: try again later, or name another")
	}
	return fault.New(fault.Unavailable, "source_unreachable", "given up after %d attempts", failures).Because(p.err).
		Try("see that the address is right and that this machine reaches it: network, names, proxy, firewall")
}

const longestPause = time.Minute

// wait returns early, with the reason, where ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
