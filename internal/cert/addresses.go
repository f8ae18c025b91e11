package cert

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Flags of an IPv6 address in struct ifaddrmsg (linux/if_addr.h), and the place
// of the byte that holds them.
const (
	flagsAt        = 2
	flagTemporary  = 0x01
	flagDADFailed  = 0x08
	flagDeprecated = 0x20
	flagTentative  = 0x40
)

// Addresses gives the addresses of all interfaces that are up, without those
// that come and go by themselves: IPv6 privacy addresses change daily, and a
// certificate that did so too could not be trusted once and for all.
func Addresses() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	passing, err := passingAddresses()
	if err != nil {
		passing = nil // rather a certificate made anew too often than none
	}
	var out []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			continue // the interface went away meanwhile
		}
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && !passing[prefix.Addr()] {
				out = append(out, prefix.Addr().Unmap())
			}
		}
	}
	return out, nil
}

// passingAddresses asks the kernel which IPv6 addresses are temporary,
// deprecated or not settled.
func passingAddresses() (map[netip.Addr]bool, error) {
	table, err := syscall.NetlinkRIB(syscall.RTM_GETADDR, syscall.AF_INET6)
	if err != nil {
		return nil, fmt.Errorf("ask for IPv6 addresses: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(table)
	if err != nil {
		return nil, fmt.Errorf("read IPv6 addresses: %w", err)
	}
	passing := map[netip.Addr]bool{}
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWADDR || len(m.Data) < syscall.SizeofIfAddrmsg {
			continue
		}
		if m.Data[flagsAt]&(flagTemporary|flagDADFailed|flagDeprecated|flagTentative) == 0 {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			continue
		}
		for _, a := range attributes {
			if ip, ok := netip.AddrFromSlice(a.Value); ok && a.Attr.Type == syscall.IFA_ADDRESS {
				passing[ip] = true
			}
		}
	}
	return passing, nil
}
