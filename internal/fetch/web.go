package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/trust"
)

// NewClient is the client of a Fetcher that is given none: proxies from the
// environment, a bound on each step before the body; the body is bounded by
// Fetcher.Stall and Fetcher.Limit.
func NewClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // a range of what is packed is of no use
		ForceAttemptHTTP2:      true,
	}}
}

// web is a source at an address.
type web struct {
	base   *url.URL
	client *http.Client
	agent  string
	pause  time.Duration
	stall  time.Duration
}

// Metadata stands at trust.Source.
func (w *web) Metadata(ctx context.Context, name string, most int64) (data []byte, err error) {
	err = retry(ctx, w.pause, func() (bool, error) {
		data, err = w.metadata(ctx, name, most)
		return false, err
	})
	return data, err
}

func (w *web) metadata(ctx context.Context, name string, most int64) ([]byte, error) {
	ctx, watch := outbound.Watched(ctx, w.stall)
	defer watch.End()
	resp, err := w.get(ctx, trust.MetadataDir, name, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	// Stores in the cloud say "forbidden" for what is not there, and a client
	// that follows roots always asks for one that is not.
	if resp.StatusCode == http.StatusForbidden && strings.HasSuffix(name, ".root.json") {
		return nil, fs.ErrNotExist
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refused(resp)
	}
	if resp.ContentLength > most {
		return nil, trust.TooLong(name, most)
	}
	data, err := io.ReadAll(watch.Reader(io.LimitReader(resp.Body, most+1)))
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	if int64(len(data)) > most {
		return nil, trust.TooLong(name, most)
	}
	return data, nil
}

// open stands at origin.
func (w *web) open(ctx context.Context, name string, from int64, tag string) (stream, error) {
	header := http.Header{}
	if from > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		if tag != "" {
			header.Set("If-Range", tag)
		}
	}
	resp, err := w.get(ctx, trust.TargetsDir, name, header)
	if err != nil {
		return stream{}, err
	}
	s := stream{ReadCloser: resp.Body, total: resp.ContentLength, tag: strongTag(resp.Header)}
	switch resp.StatusCode {
	case http.StatusOK:
		return s, nil
	case http.StatusPartialContent:
		s.from, s.total, err = contentRange(resp.Header.Get("Content-Range"))
		if err == nil && s.from == from && (tag == "" || s.tag == "" || s.tag == tag) {
			return s, nil
		}
		err = errOtherRest
	case http.StatusRequestedRangeNotSatisfiable:
		err = errOtherRest
	default:
		err = refused(resp)
	}
	resp.Body.Close()
	return stream{}, err
}

// errOtherRest is for a rest that does not belong to what is there.
var errOtherRest = errors.New("the source sends another rest than was asked for")

// contentRange reads "bytes 10-99/100"; total is -1 for "bytes 10-99/*".
func contentRange(value string) (from, total int64, err error) {
	span, whole, _ := strings.Cut(strings.TrimPrefix(value, "bytes "), "/")
	first, _, _ := strings.Cut(span, "-")
	if from, err = strconv.ParseInt(first, 10, 64); err != nil || whole == "*" {
		return from, -1, err
	}
	total, err = strconv.ParseInt(whole, 10, 64)
	return from, total, err
}

// strongTag is the ETag, where it says that every byte is the same.
func strongTag(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) && len(tag) < 256 {
		return tag
	}
	return ""
}

// get makes one request for a file below the base.
func (w *web) get(ctx context.Context, dir, name string, header http.Header) (*http.Response, error) {
	u := w.base.JoinPath(dir, name)
	// A plus is a plus in a path; there are stores that take it for a space.
	u.RawPath = strings.ReplaceAll(u.EscapedPath(), "+", "%2B")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, badSource(u.String(), "is no address")
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("User-Agent", w.agent)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := w.client.Do(req)
	var of *url.Error // it names the address, and whoever is let in by it
	if errors.As(err, &of) {
		err = fmt.Errorf("%s: %w", fault.Address(of.URL), of.Err)
	}
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	return resp, nil
}

// unreachable sorts errors of a connection.
func unreachable(ctx context.Context, err error) error {
	var f *fault.Error
	switch {
	case errors.Is(context.Cause(ctx), outbound.ErrStalled):
		return &passing{err: outbound.ErrStalled}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &f):
		return f
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, new(x509.UnknownAuthorityError)):
		return fault.New(fault.Unavailable, "source_unreachable", "the source's certificate is not accepted").Because(err).
			Try("see that this machine's clock is right and its package ca-certificates up to date")
	}
	return &passing{err: err}
}

// refused sorts statuses that are of no use.
func refused(resp *http.Response) error {
	err := fmt.Errorf("the source answers %s", resp.Status)
	switch {
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode >= 500:
		return &passing{err: err, after: outbound.RetryAfter(resp.Header, longestPause), refused: true}
	}
	return fault.New(fault.Unavailable, "source_refused", "the source answers %s", resp.Status).
		Try("see that the address is right, and who may read there")
}

// pauseFor doubles with each failure and is spread, so that many machines that
// lost one source do not come back to it at once.
func pauseFor(pause time.Duration, failures int) time.Duration {
	pause <<= failures - 1
	return min(pause+time.Duration(rand.Int64N(int64(pause)/2+1)), longestPause)
}
