// Package outbound goes where users send the appliance: to fetch a recording, or
// to tell somebody that one is done. Whoever may transcribe can name such a
// place, and must not reach through the appliance what only it can reach.
//
// So a place's host has to be in a list that an administrator keeps, by name and
// port; and what its name leads to is looked at when the connection is made,
// after the last lookup: an address of this machine or of its own networks is
// refused, unless the administrator has named its network. Both hold anew for
// each request and each redirect; nothing goes through a proxy, and no connection
// is used twice. It trusts the settings, the certificates that the machine
// trusts, and nobody who answers: what comes is bounded in time and size. It
// writes nothing but what Download is given to write to.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"whisper-appliance/internal/fault"
)

// CodeUnreachable is the code of what may pass: no answer, one that breaks off,
// or one that says "later".
const CodeUnreachable = "place_unreachable"

// longestAddress is what an address may have, in bytes.
const longestAddress = 2048

// Standards of Places.
const (
	standardWait  = 30 * time.Second
	standardStall = time.Minute
	dialTime      = 10 * time.Second
)

// Places are those that users may name for one purpose. Its fields are set before
// its first use and not changed after.
type Places struct {
	Field    string                // of the requests that name one, "url"
	Setting  string                // with the hosts, for hints: "recordings in [outbound]"
	Hosts    func() []string       // as they are now: "files.example.org", "*.example.org", "192.0.2.7:8443"; without a port http's and https' own
	Networks func() []netip.Prefix // addresses that are no strangers' and may be gone to all the same; nil = none

	Redirects int           // followed at most
	Agent     string        // the User-Agent
	Wait      time.Duration // for an answer to begin, redirects included; 0 = 30 s
	Stall     time.Duration // for the next bytes of it; 0 = 1 minute
	Pace      time.Duration // in which a download has to bring a MiB; 0 = 5 minutes
	Longest   time.Duration // for a download, with all its tries; 0 = 2 hours
	Resolver  *net.Resolver // nil = the machine's

	setup  sync.Once
	client *http.Client
}

// Check reads an address that a user has named, and refuses one that may not be
// gone to. Where its name leads is seen when it is gone to.
//
// Faults: outbound_off, host_not_allowed (Forbidden), bad_url (BadInput).
func (p *Places) Check(address string) (*url.URL, error) {
	if len(p.Hosts()) == 0 {
		return nil, fault.New(fault.Forbidden, "outbound_off", "the appliance goes nowhere for %s: no host is allowed", p.Field).On(p.Field).
			Try("an administrator names the hosts that it may go to as %s", p.Setting)
	}
	u, err := p.parse(address)
	if err != nil {
		return nil, err
	}
	if !allowed(p.Hosts(), u) {
		return nil, fault.New(fault.Forbidden, "host_not_allowed", "the host %s is not one that the appliance may go to for %s", fault.Short(u.Host), p.Field).On(p.Field).
			Try("an administrator adds it as %s", p.Setting)
	}
	return u, nil
}

// parse reads an address, strictly.
func (p *Places) parse(address string) (*url.URL, error) {
	bad := func(what string) error {
		return fault.New(fault.BadInput, "bad_url", "%s %s", p.Field, what).On(p.Field).Try("it must be like https://files.example.org/talk.mp3")
	}
	if len(address) > longestAddress {
		return nil, bad("is too long an address")
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, bad("is no address")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, bad("is no address that begins with https:// or http://")
	case u.User != nil:
		return nil, bad("has a user or a password in it, which is not sent")
	case u.Hostname() == "" || strings.ContainsFunc(u.Host, func(r rune) bool { return r <= ' ' || r > '~' || r == '%' }):
		return nil, bad("has no host that can be gone to; a name in other letters is written as xn--…")
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// allowed tells whether one of the patterns is of the host and port of u.
func allowed(patterns []string, u *url.URL) bool {
	host, port := plainHost(u.Hostname()), portOf(u.Scheme, u.Port())
	for _, pattern := range patterns {
		name, on := pattern, ""
		if h, p, err := net.SplitHostPort(pattern); err == nil {
			name, on = h, p
		}
		if port != portOf(u.Scheme, on) {
			continue
		}
		name = plainHost(name)
		if below, wild := strings.CutPrefix(name, "*"); name == host || wild && len(host) > len(below) && strings.HasSuffix(host, below) {
			return true
		}
	}
	return false
}

// plainHost is a host as it is compared: a name in small letters, an address in
// its one form.
func plainHost(host string) string {
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String()
	}
	return host
}

func portOf(scheme, port string) string {
	switch {
	case port != "":
		return port
	case scheme == "https":
		return "443"
	}
	return "80"
}

// Do sends a request to a place. The answer's body ends where nothing more of it
// comes for Stall, and is closed by the caller.
//
// Faults: Check's; address_not_allowed, redirect_not_allowed (Forbidden),
// too_many_redirects (BadInput), place_unreachable (Unavailable).
func (p *Places) Do(req *http.Request) (*http.Response, error) {
	if _, err := p.Check(req.URL.String()); err != nil {
		return nil, err
	}
	p.setup.Do(func() { p.client = p.newClient() })
	ctx, watch := Watched(req.Context(), orElse(p.Wait, standardWait))
	req = req.WithContext(ctx)
	req.Header.Set("User-Agent", p.Agent)
	resp, err := p.client.Do(req)
	if err != nil {
		err = p.unreachable(ctx, req.URL, err)
		watch.End()
		return nil, err
	}
	watch.Limit = orElse(p.Stall, standardStall)
	watch.Wake()
	resp.Body = &watchedBody{resp.Body, ctx, watch, p, req.URL}
	return resp, nil
}

func orElse(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

// newClient is one without proxies, and without connections that were looked at
// before: each request makes its own.
func (p *Places) newClient() *http.Client {
	dialer := &net.Dialer{Timeout: dialTime, KeepAlive: -1, Resolver: p.Resolver, ControlContext: p.control}
	return &http.Client{
		CheckRedirect: p.redirect,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    dialTime,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
			DisableKeepAlives:      true,
		},
	}
}

// control looks at the address that a connection is about to be made to, which is
// none that could be looked up once more. The address itself, and what it is, are
// for the log: who names places must not learn by them what is inside.
func (p *Places) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fault.New(fault.Forbidden, "address_not_allowed", "%s leads to what is no address", p.Field).On(p.Field).Because(err)
	}
	var networks []netip.Prefix
	if p.Networks != nil {
		networks = p.Networks()
	}
	if why := refused(to.Addr(), networks); why != "" {
		return fault.New(fault.Forbidden, "address_not_allowed", "the host of %s is at an address that the appliance does not go to", p.Field).
			On(p.Field).Because(fmt.Errorf("%s is %s", address, why)).
			Try("if it is meant, an administrator adds its network as networks in [outbound]")
	}
	return nil
}

// redirect holds where a place leads to to the same rules.
func (p *Places) redirect(req *http.Request, via []*http.Request) error {
	req.Header.Del("Referer") // it may be what lets somebody in
	if p.Redirects == 0 {
		return fault.New(fault.BadInput, "too_many_redirects", "%s redirects, which is not followed", p.Field).On(p.Field).
			Try("name the address that it leads to")
	}
	if len(via) > p.Redirects {
		return fault.New(fault.BadInput, "too_many_redirects", "%s redirects more than %d times", p.Field, p.Redirects).On(p.Field).
			Try("name the address that it leads to in the end")
	}
	_, err := p.Check(req.URL.String())
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		err = errors.New("it is not https any more")
	}
	if err != nil {
		return fault.New(fault.Forbidden, "redirect_not_allowed", "%s redirects to where the appliance may not go", p.Field).On(p.Field).
			Because(fmt.Errorf("to %s: %w", fault.Short(req.URL.Host), err)).
			Try("name an address that stays with https and with hosts that are allowed; an administrator adds those as %s", p.Setting)
	}
	return nil
}

// unreachable words what a request came to that has no answer.
func (p *Places) unreachable(ctx context.Context, u *url.URL, err error) error {
	var worded *fault.Error
	var of *url.Error // it names the address, with what may let somebody in
	if errors.As(err, &of) {
		err = of.Err
	}
	passing := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Unavailable, CodeUnreachable, format, args...).On(p.Field).Because(err)
	}
	host := fault.Short(u.Host)
	switch {
	case errors.As(err, &worded):
		return worded
	case errors.Is(context.Cause(ctx), ErrStalled):
		return passing("%s does not answer", host).Try("try again later")
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, new(x509.UnknownAuthorityError)):
		return passing("the certificate of %s is not accepted", host).
			Try("give it one that this machine trusts; the appliance's clock and its package ca-certificates count, too")
	}
	return passing("%s cannot be reached", host).Try("see that the address is right and its server runs")
}

// brokenOff words why an answer ends before it is whole.
func (p *Places) brokenOff(ctx context.Context, u *url.URL, err error) error {
	if ctx.Err() != nil {
		return p.unreachable(ctx, u, err)
	}
	return fault.New(fault.Unavailable, CodeUnreachable, "the connection to %s broke off", fault.Short(u.Host)).On(p.Field).Because(err).Try("try again later")
}

// watchedBody is an answer's body that keeps nobody waiting.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context
	watch  *Watch
	places *Places
	url    *url.URL
}

func (b *watchedBody) Read(to []byte) (int, error) {
	n, err := b.body.Read(to)
	if n > 0 {
		b.watch.Wake()
	}
	if err != nil && err != io.EOF {
		err = b.places.brokenOff(b.ctx, b.url, err)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.watch.End()
	return b.body.Close()
}
