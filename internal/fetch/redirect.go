package fetch

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/outbound"
)

const (
	maxRedirects = 5
	lookupLimit  = 10 * time.Second
)

// redirects judges where a source leads to.
type redirects struct {
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// check ends long chains, keeps what began under TLS under TLS, and keeps a
// stranger from having this machine ask its own network: nobody leads there but
// a source that is there.
func (r redirects) check(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return badRedirect("redirects more than %d times", maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return badRedirect("redirects from https to %s", req.URL.Scheme)
	}
	source, to := via[0].URL.Hostname(), req.URL.Hostname()
	if to != source && r.near(req.Context(), to) && !r.near(req.Context(), source) {
		return badRedirect("redirects to %s, which is an address of this machine or of its own network", fault.Short(to))
	}
	return nil
}

// near tells whether host is this machine or one of the networks that only it
// and its neighbours reach. Of a name that cannot be looked up here, a proxy may
// know more: it is none of them.
func (r redirects) near(ctx context.Context, host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return outbound.Inside(a)
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	list, err := r.lookup(ctx, host)
	if err != nil {
		return false
	}
	for _, a := range list {
		if outbound.Inside(a) {
			return true
		}
	}
	return false
}

func badRedirect(format string, args ...any) error {
	return fault.New(fault.Unavailable, "bad_redirect", "the source "+format, args...).
		Try("name the address that it leads to in the end, or another source")
}
