package doctor

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"whisper-appliance/internal/systemd"
)

// listener is a socket that listens, from the kernel's tables.
type listener struct {
	at    netip.AddrPort
	inode string
	pid   int    // of who holds it; 0 where that cannot be seen
	comm  string // its name, as far as the kernel keeps it
}

// who is the holder in words.
func (l listener) who() string {
	if l.pid == 0 {
		return "somebody (root sees who)"
	}
	return fmt.Sprintf("%s (%d)", l.comm, l.pid)
}

// maxComm is how much of a program's name the kernel keeps.
const maxComm = 15

// server tells whether a server of ours holds it, as outside systemd it does.
func (l listener) server() bool {
	return l.comm == (serverUser + "-server")[:maxComm]
}

// port tells who has the appliance's port.
func (d *Doctor) port(ctx context.Context) []Finding {
	ports, active, why := d.ourPorts(ctx)
	if len(ports) == 0 {
		return unseen("see the checks config and units", "which port is ours%s", why)
	}
	all, err := listening(d.Paths.Proc)
	if err != nil {
		return unseen("", "who listens: %v", err)
	}
	var found []Finding
	for _, port := range ports {
		var on []listener
		for _, l := range all {
			if l.at.Port() == port {
				on = append(on, l)
			}
		}
		found = append(found, d.holders(port, active, on)...)
	}
	return found
}

// ourPorts are those of the socket unit, or else those of the settings.
func (d *Doctor) ourPorts(ctx context.Context) (ports []uint16, active bool, why string) {
	var addresses []string
	if d.installed() && d.Units != nil {
		var err error
		if addresses, err = d.Units.Listening(ctx, systemd.Socket); err != nil {
			why = ": " + err.Error()
		}
		if units, err := d.Units.Units(ctx, systemd.Socket); err == nil && len(units) == 1 {
			active = units[0].Active == "active"
		}
	} else if d.Settings != nil {
		addresses = []string{d.Settings.Server.Listen}
	}
	for _, address := range addresses {
		_, port, err := net.SplitHostPort(address)
		n, numErr := strconv.ParseUint(port, 10, 16)
		if err == nil && numErr == nil && n > 0 && !slices.Contains(ports, uint16(n)) {
			ports = append(ports, uint16(n))
		}
	}
	return ports, active, why
}

// holders judges who has a port of ours. active: systemd holds it for us.
func (d *Doctor) holders(port uint16, active bool, on []listener) []Finding {
	var others []string
	for _, l := range on {
		if ours := l.server() || active && l.pid <= 1; !ours {
			others = append(others, fmt.Sprintf("%s on %s", l.who(), l.at))
		}
	}
	switch {
	case len(others) > 0 && !active && !d.installed():
		return one(advice("stop it, or give this one another [server] listen", "port %d is taken: %s", port, strings.Join(others, ", ")))
	case len(others) > 0:
		return one(problem("stop it, or give the appliance another port: `systemctl edit whisper-appliance.socket`",
			"port %d is taken by another program: %s", port, strings.Join(others, ", ")))
	case active && len(on) == 0:
		return one(problem("systemctl restart whisper-appliance.socket", "the socket unit is active, and nobody listens on port %d", port))
	case len(on) == 0:
		return one(well("port %d is free", port))
	}
	return one(well("port %d is ours, and nobody else's", port))
}

// listening reads the kernel's tables of TCP sockets below proc.
func listening(proc string) ([]listener, error) {
	var list []listener
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(proc, "net", name))
		if errors.Is(err, fs.ErrNotExist) && name == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if l, ok := parseSocket(lines.Text()); ok {
				list = append(list, l)
			}
		}
		f.Close() //nolint:errcheck // only read
		if err := lines.Err(); err != nil {
			return nil, err
		}
	}
	name(proc, list)
	return list, nil
}

// listenState is TCP_LISTEN in the kernel's tables.
const listenState = "0A"

// parseSocket reads a line "sl local remote st tx:rx tr:tm retrnsmt uid
// timeout inode …", false for a socket that does not listen.
func parseSocket(line string) (listener, bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != listenState {
		return listener{}, false
	}
	addr, port, ok := strings.Cut(fields[1], ":")
	raw, err := hex.DecodeString(addr)
	n, numErr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || numErr != nil || len(raw)%4 != 0 {
		return listener{}, false
	}
	// Each 32-bit word is in the machine's own order, and ours are little-endian.
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	ip, ok := netip.AddrFromSlice(raw)
	return listener{at: netip.AddrPortFrom(ip, uint16(n)), inode: fields[9]}, ok
}

// name finds the processes that hold the sockets, as far as this one may look.
// PID 1, which holds them for us, comes first; a socket has the first of its
// holders.
func name(proc string, list []listener) {
	links, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*")) //nolint:errcheck // the pattern is right
	holders := map[string]int{}
	for _, link := range links {
		to, err := os.Readlink(link)
		inode, isSocket := strings.CutPrefix(to, "socket:[")
		if err != nil || !isSocket {
			continue
		}
		inode = strings.TrimSuffix(inode, "]")
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(link))))
		if first, taken := holders[inode]; err == nil && (!taken || pid < first) {
			holders[inode] = pid
		}
	}
	for i, l := range list {
		if pid, ok := holders[l.inode]; ok {
			comm, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "comm")) //nolint:errcheck // "" will do
			list[i].pid, list[i].comm = pid, strings.TrimSpace(string(comm))
		}
	}
}
