package model

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

const (
	attempts     = 5 // in a row that bring nothing
	longestPause = time.Minute
	maxRedirects = 5
)

// NewClient is the client that Pull uses where it is given none: proxies from
// the environment, a limit on each step before the body, none on the body.
func NewClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		ForceAttemptHTTP2:     true,
	}}
}

// checkRedirect ends long chains and keeps what began under TLS under TLS.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fault.New(fault.Unavailable, "bad_redirect", "it redirects more than %d times", maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fault.New(fault.Unavailable, "bad_redirect", "it redirects from https to %s", req.URL.Scheme)
	}
	return nil
}

// download fetches one file from one address into file, in as many attempts as
// it takes.
type download struct {
	store *Store
	entry Entry
	url   string
	file  *os.File
	o     PullOptions
	meter *meter

	offset  int64 // bytes in file that are kept
	state   partialState
	resumed int64 // bytes that were there before the first attempt
}

// partialState is what a later attempt needs: the beginning is good only for
// the same address and the same version of the file there.
type partialState struct {
	URL       string `json:"url"`
	Validator string `json:"validator"` // for If-Range: a strong ETag, or a Last-Modified
}

func readState(partial string) (partialState, bool) {
	var st partialState
	data, err := os.ReadFile(partial + stateSuffix)
	return st, err == nil && json.Unmarshal(data, &st) == nil && st.Validator != ""
}

// transientError is a failure that may pass.
type transientError struct {
	err   error
	after time.Duration // the server's wish, 0 = none
}

func (e *transientError) Error() string { return e.err.Error() }
func (e *transientError) Unwrap() error { return e.err }

func (d *download) run(ctx context.Context) error {
	if err := d.recall(); err != nil {
		return d.store.cannotWrite(err)
	}
	d.resumed = d.offset
	best := d.offset
	for failures := 0; ; {
		d.meter.from(d.url, failures+1)
		err := d.attempt(ctx)
		var passing *transientError
		if err == nil || ctx.Err() != nil || !errors.As(err, &passing) {
			return err
		}
		if d.offset > best {
			best, failures = d.offset, 0
		}
		if failures++; failures >= attempts {
			return fault.New(fault.Unavailable, "source_unreachable", "given up after %d attempts", failures).Because(passing.err)
		}
		if err := pause(ctx, d.pauseFor(failures, passing.after)); err != nil {
			return err
		}
	}
}

// recall takes up what an earlier pull from this address left.
func (d *download) recall() error {
	st, ok := readState(d.file.Name())
	size, err := d.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if !ok || st.URL != d.url || size >= d.entry.Size {
		return d.forget()
	}
	d.state, d.offset = st, size
	return nil
}

// forget begins the file anew.
func (d *download) forget() error {
	d.state, d.offset, d.resumed = partialState{}, 0, 0
	os.Remove(d.file.Name() + stateSuffix)
	return restart(d.file)
}

// pauseFor doubles with each failure and is spread, so that many machines that
// lost one server do not come back to it at once.
func (d *download) pauseFor(failures int, wish time.Duration) time.Duration {
	p := d.o.Pause << (failures - 1)
	p += time.Duration(rand.Int64N(int64(p)/2 + 1))
	return min(max(p, wish), longestPause)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errStalled = errors.New("no byte came for too long")

// attempt is one request. It returns nil when the file is complete, a
// transientError where the next attempt may bring more, and a fault where this
// source is of no use.
func (d *download) attempt(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(d.o.Stall, func() { cancel(errStalled) })
	defer watch.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return fault.New(fault.BadInput, "bad_source", "it is not an address").Because(err)
	}
	req.Header.Set("Accept-Encoding", "identity") // a range of what is packed is of no use
	if d.offset > 0 && d.state.Validator == "" {
		// Nothing tells whether the rest would be of the same file.
		if err := d.forget(); err != nil {
			return d.store.cannotWrite(err)
		}
	}
	if d.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.offset))
		req.Header.Set("If-Range", d.state.Validator)
	}
	resp, err := d.o.Client.Do(req)
	if err != nil {
		return connectError(ctx, err)
	}
	defer resp.Body.Close()
	if err := d.accept(resp); err != nil {
		return err
	}
	d.meter.phase(Downloading, d.offset, d.entry.Size)
	return d.receive(ctx, resp.Body, watch)
}

// connectError tells what will not pass, a certificate or a redirect that is
// refused, from what may.
func connectError(ctx context.Context, err error) error {
	var refused *fault.Error
	var badCertificate *tls.CertificateVerificationError
	var unknownAuthority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &badCertificate), errors.As(err, &unknownAuthority):
		return fault.New(fault.Unavailable, "bad_certificate", "its certificate cannot be trusted").Because(err)
	case errors.Is(context.Cause(ctx), errStalled):
		err = errStalled
	}
	return &transientError{err: err}
}

// accept looks at the answer's head and sets the file to where the body goes.
func (d *download) accept(resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusOK:
		return d.acceptWhole(resp)
	case resp.StatusCode == http.StatusPartialContent && d.offset > 0:
		return d.acceptRest(resp)
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return d.again(errors.New("the file there is shorter than what was fetched of it"))
	case resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		return &transientError{err: fmt.Errorf("it answers %s", resp.Status), after: retryAfter(resp)}
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return fault.New(fault.NotFound, "not_in_source", "it has no such file (%s)", resp.Status)
	}
	return fault.New(fault.Unavailable, "source_refused", "it answers %s", resp.Status)
}

// acceptWhole begins the file: the server had no use for the range, or the file
// there is another one by now.
func (d *download) acceptWhole(resp *http.Response) error {
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		return fault.New(fault.Unavailable, "not_a_model", "it sends a web page instead of the model").
			Try("a login page of the network may stand in between")
	}
	if resp.ContentLength >= 0 && resp.ContentLength != d.entry.Size {
		return fault.New(fault.Unavailable, "wrong_size", "its file has %d bytes and has to have %d", resp.ContentLength, d.entry.Size)
	}
	if err := d.forget(); err != nil {
		return d.store.cannotWrite(err)
	}
	d.state = partialState{URL: d.url, Validator: validator(resp.Header)}
	data, err := json.Marshal(d.state)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.file.Name()+stateSuffix, data, 0o644); err != nil {
		return d.store.cannotWrite(err)
	}
	return nil
}

// validator is what If-Range may carry: it must change with the content.
func validator(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return h.Get("Last-Modified")
}

func (d *download) acceptRest(resp *http.Response) error {
	var from, to, total int64
	got := resp.Header.Get("Content-Range")
	if _, err := fmt.Sscanf(got, "bytes %d-%d/%d", &from, &to, &total); err != nil || from != d.offset || total != d.entry.Size {
		return d.again(fmt.Errorf("it sends the range %q and not the one from byte %d of %d", got, d.offset, d.entry.Size))
	}
	if v := validator(resp.Header); v != "" && v != d.state.Validator {
		return d.again(errors.New("the file there has changed"))
	}
	_, err := d.file.Seek(d.offset, io.SeekStart)
	if err != nil {
		return d.store.cannotWrite(err)
	}
	return nil
}

// again forgets what was fetched and has the next attempt begin anew.
func (d *download) again(why error) error {
	if err := d.forget(); err != nil {
		return d.store.cannotWrite(err)
	}
	return &transientError{err: why}
}

func retryAfter(resp *http.Response) time.Duration {
	var seconds int
	if _, err := fmt.Sscanf(resp.Header.Get("Retry-After"), "%d", &seconds); err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, longestPause)
}

// receive writes the body to the file. Not a byte more than the model has is
// taken, whatever the server says or sends.
func (d *download) receive(ctx context.Context, body io.Reader, watch *time.Timer) error {
	buf := make([]byte, 128<<10)
	for {
		n, err := body.Read(buf)
		watch.Reset(d.o.Stall)
		if n > 0 {
			if err := d.keep(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && d.offset == d.entry.Size:
			return nil
		case errors.Is(context.Cause(ctx), errStalled):
			return &transientError{err: errStalled}
		case err != nil:
			return &transientError{err: fmt.Errorf("the connection ended at byte %d of %d: %w", d.offset, d.entry.Size, err)}
		}
	}
}

func (d *download) keep(data []byte) error {
	if d.offset == 0 && len(data) >= 4 && string(data[:4]) != "lmgg" {
		return d.useless(fault.New(fault.Unavailable, "not_a_model", "what it sends is not a model: it begins with %q", data[:min(16, len(data))]))
	}
	if d.offset+int64(len(data)) > d.entry.Size {
		return d.useless(fault.New(fault.Unavailable, "wrong_size", "it sends more than the %d bytes that the model has", d.entry.Size))
	}
	n, err := d.file.Write(data)
	d.offset += int64(n)
	d.meter.add(int64(n))
	if err != nil {
		return d.store.cannotWrite(err)
	}
	return nil
}

// useless drops what was fetched: no attempt can make it good.
func (d *download) useless(why error) error {
	if err := d.forget(); err != nil {
		return d.store.cannotWrite(err)
	}
	return why
}
