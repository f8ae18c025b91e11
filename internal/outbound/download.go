package outbound

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
)

// Standards of how fast a download has to come, and how much of it in a Pace.
const (
	standardLongest = 2 * time.Hour
	standardPace    = 5 * time.Minute
	slowest         = 1 << 20
)

// longestAfter is the most that a place's wish for a pause counts.
const longestAfter = time.Hour

// Transfer says how a file is brought.
type Transfer struct {
	Most  int64                        // bytes of it; more are refused
	Began func(size int64) error       // called before its first byte; size is -1 where it is not known. Its error ends the transfer
	Got   func(done, size int64) error // called as bytes come, as Began
}

// Within is for all tries to download one file: they end with url_too_slow after
// Longest.
func (p *Places) Within(ctx context.Context) (context.Context, context.CancelFunc) {
	longest := orElse(p.Longest, standardLongest)
	return context.WithTimeoutCause(ctx, longest, p.tooSlow(fmt.Sprintf("takes longer than %v to come", longest)))
}

func (p *Places) tooSlow(how string) *fault.Error {
	return fault.New(fault.BadInput, "url_too_slow", "what %s leads to %s", p.Field, how).On(p.Field).
		Try("send the recording itself, or have it served from nearby")
}

// Download writes what is at an address to w, and gives how many bytes that are.
// Errors of w and of t's functions are returned as they are. ctx is Within's.
//
// Faults: Do's; url_refused, url_too_slow, empty_url (BadInput), url_too_large
// (TooLarge).
func (p *Places) Download(ctx context.Context, address string, w io.Writer, t Transfer) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		_, err = p.Check(address)
		return 0, err
	}
	resp, err := p.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if err := p.answered(req.URL.Host, resp); err != nil {
		return 0, err
	}
	if resp.ContentLength > t.Most {
		return 0, p.tooLarge(t.Most)
	}
	if err := t.Began(resp.ContentLength); err != nil {
		return 0, err
	}
	pace := orElse(p.Pace, standardPace)
	since, from := time.Now(), int64(0)
	n, err := io.Copy(w, &counted{r: io.LimitReader(resp.Body, t.Most+1), told: func(n int64) error {
		if time.Since(since) > pace {
			if n-from < slowest {
				return p.tooSlow(fmt.Sprintf("comes with less than %s in %v", fault.Bytes(slowest), pace))
			}
			since, from = time.Now(), n
		}
		return t.Got(n, resp.ContentLength)
	}})
	switch {
	case err != nil:
		return n, err
	case n > t.Most:
		return n, p.tooLarge(t.Most)
	case n == 0:
		return n, fault.New(fault.BadInput, "empty_url", "what %s leads to is empty", p.Field).On(p.Field).Try("see that the address is the file's own")
	}
	return n, nil
}

func (p *Places) tooLarge(most int64) error {
	return fault.New(fault.TooLarge, "url_too_large", "what %s leads to is larger than the limit of %s", p.Field, fault.Bytes(most)).On(p.Field).
		Try("compress it (opus or mp3), or raise [server] max_upload and [jobs] disk")
}

// answered sorts what a place answers with: later, never, or the file.
func (p *Places) answered(host string, resp *http.Response) error {
	host = fault.Short(host)
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return nil
	case Later(code):
		f := fault.New(fault.Unavailable, CodeUnreachable, "%s answers %d %s", host, code, http.StatusText(code)).On(p.Field).Try("try again later")
		f.After = RetryAfter(resp.Header, longestAfter)
		return f
	default:
		return fault.New(fault.BadInput, "url_refused", "%s answers %d %s", host, code, http.StatusText(code)).On(p.Field).
			Try("see that the address is right, and that everybody who has it may read there")
	}
}

// Later tells whether a status means that the same may go well at another time.
func Later(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// RetryAfter is a wish for a pause, in seconds or as a date, and no longer than
// most; 0 where there is none.
func RetryAfter(h http.Header, most time.Duration) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, most)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), 0), most)
	}
	return 0
}

// Host is an address as logs see it, and who else is told of it: any more may be
// what lets somebody in.
func Host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// Shown is an address as those see it whose it is, and administrators: without
// what follows a question mark.
func Shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	query := u.RawQuery != ""
	u.User, u.RawQuery, u.Fragment, u.RawFragment = nil, "", "", ""
	if query {
		return u.String() + "?…"
	}
	return u.String()
}

// counted tells how much was read of r.
type counted struct {
	r    io.Reader
	n    int64
	told func(n int64) error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += int64(n); n > 0 {
		if stop := c.told(c.n); stop != nil {
			return n, stop
		}
	}
	return n, err
}
