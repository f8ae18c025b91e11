package auth

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"whisper-appliance/internal/fault"
)

// Openness says who may transcribe without a key.
type Openness string

// The degrees of openness, as the setting auth.open_to has them.
const (
	OpenPrivate  Openness = "private"  // this machine and private addresses
	OpenLoopback Openness = "loopback" // this machine
	OpenNobody   Openness = "nobody"
)

// Caller is what is known of a request's sender.
type Caller struct {
	RemoteAddr   netip.Addr // of the connection; not valid on a Unix socket
	UnixUID      *uint32    // who is at the other end of a Unix socket, from the kernel; nil elsewhere
	Forwarded    bool       // some header says that a proxy was in between
	ForwardedFor string     // X-Forwarded-For; several of them joined by commas, in their order
	Key          string     // the API key's plaintext; "" where there is none
}

// Policy is what the settings say, and whose process this is.
type Policy struct {
	OpenTo         Openness
	TrustedProxies []netip.Prefix
	OwnUID         uint32 // of the server: it may administer itself
}

// Keys finds keys.
type Keys interface {
	// Find gives the key whose plaintext is given, false where there is none.
	Find(plaintext string) (Key, bool)
}

// Access is what was granted, for the log.
type Access struct {
	Key  string     // name of the key used; "" where none was needed
	Addr netip.Addr // the caller's address, behind trusted proxies too; not valid where it is unknown
	UID  *uint32    // the caller's user on the Unix socket

	Admin bool // may do what needs the scope admin, too
}

// Owner names who was let in, for what is one caller's and nobody else's:
// "key:NAME", "user:UID", "addr:ADDRESS" with the zone of a link-local address,
// or "addr:" where the address is hidden by a proxy.
func (a Access) Owner() string {
	if a.byAddress() && a.Addr.IsValid() {
		return "addr:" + a.Addr.String()
	}
	return a.Share()
}

// Share names who was let in, for what is divided among callers, such as the
// engine's time. It is Owner, but a machine has many addresses of IPv6: they
// count as one up to its network.
func (a Access) Share() string {
	switch addr := a.Addr; {
	case a.Key != "":
		return "key:" + a.Key
	case a.UID != nil:
		return "user:" + strconv.FormatUint(uint64(*a.UID), 10)
	case !addr.IsValid():
		return "addr:"
	case addr.Is6():
		return "addr:" + netip.PrefixFrom(addr.WithZone(""), 64).Masked().Addr().String()
	default:
		return "addr:" + addr.String()
	}
}

// byAddress tells whether nothing but an address says who a is.
func (a Access) byAddress() bool { return a.Key == "" && a.UID == nil }

// Judge decides whether c may do what needs scope. A refusal is a fault:
// Unauthorized where a key is wrong or missing, Forbidden where a good key
// lacks the scope.
func Judge(c Caller, scope Scope, p Policy, keys Keys) (Access, error) {
	access := Access{}
	if c.UnixUID != nil && !c.proxied() {
		access.UID = c.UnixUID
	} else {
		access.Addr = p.origin(c)
	}
	if c.Key == "" {
		if p.open(access, scope) {
			access.Admin = p.open(access, Admin)
			return access, nil
		}
		return Access{}, keyNeeded(access, scope)
	}
	key, ok := keys.Find(c.Key)
	switch {
	case !ok:
		return Access{}, fault.New(fault.Unauthorized, "invalid_api_key", "this API key is not known here").
			Try("\"whisper-appliance keys list\" shows the keys there are; a key that was lost cannot be shown again, only replaced")
	case !key.Has(scope) && !p.open(access, scope):
		return Access{}, fault.New(fault.Forbidden, "insufficient_scope", "the API key %s lacks the scope %s, which this needs", key.Name, scope).
			Try("use a key with the scope %s", scope)
	}
	access.Key, access.Admin = key.Name, key.Has(Admin) || p.open(access, Admin)
	return access, nil
}

func keyNeeded(a Access, scope Scope) error {
	if scope == Admin {
		return fault.New(fault.Unauthorized, "missing_api_key", "this changes the appliance, which takes root on its Unix socket or an API key with the scope admin").
			Try("send \"Authorization: Bearer KEY\", or run the command as root")
	}
	if a.Addr.IsValid() {
		return fault.New(fault.Unauthorized, "missing_api_key", "an API key is needed from %s", a.Addr).
			Try("send \"Authorization: Bearer KEY\"; \"whisper-appliance keys add NAME\" makes one")
	}
	return fault.New(fault.Unauthorized, "missing_api_key", "an API key is needed through a proxy that auth.trusted_proxies does not name, or that does not say whom it serves").
		Try("send \"Authorization: Bearer KEY\", or name the proxy in auth.trusted_proxies and let it send X-Forwarded-For")
}

// open reports whether a caller may do what needs scope without a key.
func (p Policy) open(a Access, scope Scope) bool {
	if a.UID != nil {
		return scope == Transcribe || *a.UID == 0 || *a.UID == p.OwnUID
	}
	if scope != Transcribe {
		return false
	}
	switch p.OpenTo {
	case OpenPrivate:
		return private(a.Addr)
	case OpenLoopback:
		return a.Addr.IsLoopback()
	}
	return false
}

// private reports whether addr is this machine's or of a private network.
// 100.64.0.0/10 is not one: a provider's customers share it.
func private(addr netip.Addr) bool {
	return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast()
}

func (c Caller) proxied() bool { return c.Forwarded || c.ForwardedFor != "" }

// origin is the address that the caller is judged by, the zero Addr where a
// proxy hides it. A Unix socket's peer cannot be named as a trusted proxy.
func (p Policy) origin(c Caller) netip.Addr {
	peer := c.RemoteAddr.Unmap()
	trusted := p.trusts(peer)
	switch {
	case c.UnixUID != nil || c.proxied() && !trusted:
		return netip.Addr{}
	case !trusted:
		return peer
	case c.ForwardedFor == "":
		// The proxy forgot for whom it asks: that may be anybody.
		return netip.Addr{}
	}
	return p.client(c.ForwardedFor)
}

// client is the rightmost address of an X-Forwarded-For that is no trusted
// proxy: what is left of it, its sender may have made up. Where all are
// trusted it is the rightmost, which is what the proxy at hand has seen itself:
// a client among trusted addresses would else name whom it likes.
func (p Policy) client(forwardedFor string) netip.Addr {
	list := strings.Split(forwardedFor, ",")
	slices.Reverse(list)
	for _, hop := range list {
		if addr := parseHop(hop); !p.trusts(addr) {
			return addr
		}
	}
	return parseHop(list[0])
}

// parseHop reads one address of X-Forwarded-For, which some proxies write with
// a port. It is not valid where it is something else, such as "unknown".
func parseHop(s string) netip.Addr {
	s = strings.TrimSpace(s)
	if withPort, err := netip.ParseAddrPort(s); err == nil {
		return withPort.Addr().Unmap()
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// trusts tells whether addr is a trusted proxy's; networks know no zones.
func (p Policy) trusts(addr netip.Addr) bool {
	addr = addr.WithZone("")
	return slices.ContainsFunc(p.TrustedProxies, func(n netip.Prefix) bool { return n.Contains(addr) })
}
