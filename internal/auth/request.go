package auth

import (
	"net/http"
	"net/netip"
	"strings"
)

// CallerOf reads a Caller from a request. uid is the peer's on a Unix socket,
// from the kernel, and nil elsewhere. A key comes as "Authorization: Bearer
// KEY"; a malformed one counts as a wrong key, since its sender meant to prove
// something. Basic is meant for a proxy on the way and is no key, and neither is
// a Bearer without one: programs send it where their user left the field empty.
func CallerOf(r *http.Request, uid *uint32) Caller {
	c := Caller{UnixUID: uid, Key: keyOf(r.Header.Get("Authorization"))}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && uid == nil {
		c.RemoteAddr = peer.Addr()
	}
	for name := range r.Header {
		if name == "Forwarded" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			c.Forwarded = true
		}
	}
	c.ForwardedFor = strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	return c
}

func keyOf(authorization string) string {
	authorization = strings.TrimSpace(authorization)
	scheme, key, _ := strings.Cut(authorization, " ")
	key = strings.TrimSpace(key)
	switch {
	case strings.EqualFold(scheme, "Basic"):
		return ""
	case strings.EqualFold(scheme, "Bearer"):
		return key
	}
	return authorization
}
