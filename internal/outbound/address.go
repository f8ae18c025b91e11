package outbound

import (
	"net/netip"
	"slices"
)

// class is a network that is no stranger's, and what it is called.
type class struct {
	network string
	name    string
}

// inside are the addresses that a machine does not reach over the open network,
// or that lead back into its own.
func inside() []class {
	return []class{
		{"127.0.0.0/8", "this machine itself"}, {"::1/128", "this machine itself"},
		{"10.0.0.0/8", "a private network"}, {"172.16.0.0/12", "a private network"}, {"192.168.0.0/16", "a private network"},
		{"fc00::/7", "a private network"}, {"fec0::/10", "a private network"},
		{"169.254.0.0/16", "the machine's own link"}, {"fe80::/10", "the machine's own link"},
		{"100.64.0.0/10", "a provider's own network"}, {"192.0.0.0/24", "a reserved address"}, {"198.18.0.0/15", "a network for measurements"},
		{translated, "an IPv4 address behind a translator"},
	}
}

// translated is the network of IPv4 addresses behind a translator, each in the last
// four bytes.
const translated = "64:ff9b::/96"

// never are the addresses that no setting opens: those that are nobody's or
// everybody's, those at which clouds tell a machine its own secrets, and forms of
// IPv4 addresses that nobody needs and that would lead there, too.
func never() []class {
	return []class{
		{"0.0.0.0/8", "no address of anybody"}, {"::/128", "no address of anybody"}, {"240.0.0.0/4", "no address of anybody"},
		{"224.0.0.0/4", "an address of many"}, {"ff00::/8", "an address of many"},
		{"169.254.169.254/32", "the machine's metadata"}, {"169.254.170.2/32", "the machine's metadata"}, {"fd00:ec2::254/128", "the machine's metadata"},
		{"100.100.100.200/32", "the machine's metadata"}, {"192.0.0.192/32", "the machine's metadata"}, {"168.63.129.16/32", "the machine's metadata"},
		{"169.254.170.23/32", "the machine's metadata"}, {"fd00:ec2::23/128", "the machine's metadata"},
		{"fd00:c1::a9fe:a9fe/128", "the machine's metadata"}, {"169.254.0.23/32", "the machine's metadata"}, {"fe80::a9fe:a9fe/128", "the machine's metadata"},
		{"fd20:ce::254/128", "the machine's metadata"}, {"fd00:42::42/128", "the machine's metadata"},
		{"::/96", "an IPv4 address in another form"}, {"::ffff:0:0:0/96", "an IPv4 address in another form"},
		{"2002::/16", "an IPv4 address in another form"}, {"2001::/32", "an IPv4 address in another form"},
		{"64:ff9b:1::/48", "an IPv4 address behind a translator"},
	}
}

// of is the name of the first class that a is in, "" where it is in none.
func of(a netip.Addr, classes []class) string {
	for _, c := range classes {
		if netip.MustParsePrefix(c.network).Contains(a) {
			return c.name
		}
	}
	return ""
}

// Inside tells whether an address is this machine's, one of the networks that
// only it and its neighbours reach, or no address to go to at all.
func Inside(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return of(a, never()) != "" || of(a, inside()) != ""
}

// refused says why an address is not gone to, "" where it is: it is a stranger's,
// or in one of the networks. An IPv4 address behind a translator has to be both
// of a network and good by itself.
func refused(a netip.Addr, networks []netip.Prefix) string {
	a = a.Unmap().WithZone("")
	if why := of(a, never()); why != "" && a != netip.IPv6Loopback() { // which ::/96 has in it
		return why
	}
	why := of(a, inside())
	if why == "" {
		return ""
	}
	if !slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return why
	}
	if netip.MustParsePrefix(translated).Contains(a) {
		b := a.As16()
		return refused(netip.AddrFrom4([4]byte(b[12:])), networks)
	}
	return ""
}
