package cert

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
)

// lookupWait bounds the one question to the resolver: the first start must not
// wait for a name server that is away.
const lookupWait = 500 * time.Millisecond

// identity is what a certificate has to cover.
type identity struct {
	common    string
	names     []string     // lower case; sorted, then those kept from before
	addresses []netip.Addr // the same
}

// mostKept is how many names, and how many addresses, a certificate keeps of
// those that its machine no longer has.
const mostKept = 16

// wanted collects the machine's names and addresses and the configured ones.
func (m *Manager) wanted(ctx context.Context) (identity, error) {
	hostnames, addresses := m.Hostnames, m.Addresses
	if hostnames == nil {
		hostnames = Hostnames
	}
	if addresses == nil {
		addresses = Addresses
	}
	id := identity{common: "whisper-appliance", names: []string{"localhost"}}
	hosts := slices.DeleteFunc(hostnames(ctx), func(h string) bool { return !validName(h) })
	if len(hosts) > 0 && len(hosts[0]) <= 64 { // the limit of a common name
		id.common = strings.ToLower(hosts[0])
	}
	for _, h := range hosts {
		id.names = append(id.names, strings.ToLower(h))
	}
	found, err := addresses()
	if err != nil {
		return identity{}, fmt.Errorf("list this machine's addresses: %w", err)
	}
	loopback := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	id.addresses = append(loopback, slices.DeleteFunc(slices.Clone(found), unfit)...)
	if err := id.add(m.Names); err != nil {
		return identity{}, err
	}
	id.settle()
	return id, nil
}

// add takes configured names and addresses.
func (id *identity) add(extra []string) error {
	for _, name := range extra {
		if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" {
			id.addresses = append(id.addresses, a)
			continue
		}
		if !validName(strings.TrimPrefix(name, "*.")) {
			return fault.New(fault.BadInput, "tls_bad_name", "%q is neither a host name nor an IP address", name).
				On(fieldNames).Try(`write names like "whisper.example.org" or "*.example.org", or addresses like "192.0.2.7"`)
		}
		id.names = append(id.names, strings.ToLower(name))
	}
	return nil
}

// settle puts everything in one order, once.
func (id *identity) settle() {
	slices.Sort(id.names)
	id.names = slices.Compact(id.names)
	for i, a := range id.addresses {
		id.addresses[i] = a.Unmap()
	}
	slices.SortFunc(id.addresses, netip.Addr.Compare)
	id.addresses = slices.Compact(id.addresses)
}

// keep adds what leaf covers beside it, the latest first: what was present when
// leaf was made stands in front there. People stored an exception for each
// certificate; one that follows a machine to and fro would be a new one at every
// move. It is for settled identities.
func (id *identity) keep(leaf *x509.Certificate) {
	names := slices.DeleteFunc(slices.Clone(leaf.DNSNames), func(n string) bool { return slices.Contains(id.names, n) })
	id.names = append(id.names, names[:min(len(names), mostKept)]...)
	var addresses []netip.Addr
	for _, ip := range leaf.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(id.addresses, a.Unmap()) {
			addresses = append(addresses, a.Unmap())
		}
	}
	id.addresses = append(id.addresses, addresses[:min(len(addresses), mostKept)]...)
}

// missing names the first thing that leaf does not cover, "" where it covers
// all. What it covers beyond that does no harm: an address that went away is
// no reason to make people trust a new certificate.
func (id identity) missing(leaf *x509.Certificate) string {
	for _, n := range id.names {
		if !slices.Contains(leaf.DNSNames, n) {
			return "the name " + n
		}
	}
	for _, a := range id.addresses {
		if !slices.ContainsFunc(leaf.IPAddresses, func(ip net.IP) bool { return ip.Equal(a.AsSlice()) }) {
			return "the address " + a.String()
		}
	}
	return ""
}

// unfit are addresses that no URL of another machine can hold.
func unfit(a netip.Addr) bool {
	return !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast()
}

// validName says whether a certificate can hold s as a DNS name. Underscores
// are no host name by the book and yet in use.
func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, letters) != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	return strings.Trim(last, "0123456789") != "" // or it is a mistyped address
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// Hostnames gives the machine's name, its first part, that part under .local
// (multicast DNS), and its full name where the resolver knows one at once.
func Hostnames(ctx context.Context) []string {
	host, err := os.Hostname()
	host = strings.TrimSuffix(host, ".")
	if err != nil || host == "" {
		return nil
	}
	short, _, _ := strings.Cut(host, ".")
	names := []string{host, short, short + ".local"}
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	if full, err := net.DefaultResolver.LookupCNAME(ctx, host); err == nil {
		names = append(names, cmp.Or(strings.TrimSuffix(full, "."), host))
	}
	return names
}
