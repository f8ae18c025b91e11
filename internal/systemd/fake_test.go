package systemd

import (
	"bufio"
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// fakeSystemd answers on a Unix socket as systemd would. It is systemd's
// private socket, or with bus a message bus before it.
type fakeSystemd struct {
	t    *testing.T
	path string
	bus  bool

	mu      sync.Mutex
	calls   []string // members in the order they came
	results map[string]string
	refuse  map[string]string // member or unit → name of an error
	units   map[string]map[string]dbus.Variant
	mute    bool // jobs never end
	conns   []net.Conn
	ended   sync.WaitGroup
}

func newFake(t *testing.T, bus bool) *fakeSystemd {
	t.Helper()
	f := &fakeSystemd{t: t, path: filepath.Join(t.TempDir(), "s"), bus: bus,
		results: map[string]string{}, refuse: map[string]string{}, units: map[string]map[string]dbus.Variant{}}
	l, err := net.Listen("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	f.ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.ended.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.breakAll()
		f.ended.Wait()
	})
	return f
}

// breakAll ends every connection, as a restart of the bus does.
func (f *fakeSystemd) breakAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

func (f *fakeSystemd) door() door { return door{f.path, f.bus} }

func (f *fakeSystemd) dial() *Bus {
	f.t.Helper()
	b, err := (&Bus{doors: []door{f.door()}}).dialed(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { b.Close() })
	return b
}

func (f *fakeSystemd) count(member string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == member {
			n++
		}
	}
	return n
}

// serve greets a client and answers its calls.
func (f *fakeSystemd) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.Trim(line, "\x00\r\n")
		switch {
		case line == "BEGIN":
			f.answer(c, r)
			return
		case line == "AUTH":
			c.Write([]byte("REJECTED EXTERNAL\r\n"))
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			c.Write([]byte("OK 0123456789abcdef0123456789abcdef\r\n"))
		default:
			c.Write([]byte("ERROR\r\n"))
		}
	}
}

func (f *fakeSystemd) answer(c net.Conn, r *bufio.Reader) {
	for {
		msg, err := dbus.DecodeMessage(r)
		if err != nil {
			return
		}
		member, _ := msg.Headers[dbus.FieldMember].Value().(string)
		f.mu.Lock()
		f.calls = append(f.calls, member)
		unit := ""
		if len(msg.Body) > 0 {
			unit, _ = msg.Body[0].(string)
		}
		refusal := f.refuse[member]
		if refusal == "" {
			refusal = f.refuse[unit]
		}
		f.mu.Unlock()
		if refusal != "" {
			f.send(c, dbus.TypeError, msg, refusal, "no")
			continue
		}
		f.reply(c, msg, member, unit)
	}
}

func (f *fakeSystemd) reply(c net.Conn, msg *dbus.Message, member, unit string) {
	switch member {
	case "Hello":
		f.send(c, dbus.TypeMethodReply, msg, "", ":1.7")
	case "ListUnitsByNames", "ListUnitsByPatterns":
		f.send(c, dbus.TypeMethodReply, msg, "", f.list(msg.Body[len(msg.Body)-1].([]string)))
	case "GetAll":
		path, _ := msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
		f.mu.Lock()
		all := f.units[string(path)]
		f.mu.Unlock()
		f.send(c, dbus.TypeMethodReply, msg, "", all)
	case "StartUnit", "StopUnit", "RestartUnit", "ReloadUnit":
		job := dbus.ObjectPath("/org/freedesktop/systemd1/job/" + strings.NewReplacer(".", "_", "-", "_", "@", "_").Replace(unit))
		f.mu.Lock()
		result, mute := f.results[unit], f.mute
		f.mu.Unlock()
		if result == "" {
			result = "done"
		}
		// A short job is gone before the call is answered.
		if !mute {
			f.signal(c, "JobRemoved", uint32(3), dbus.ObjectPath("/org/freedesktop/systemd1/job/other"), "other.service", "failed")
			f.signal(c, "JobRemoved", uint32(7), job, unit, result)
		}
		f.send(c, dbus.TypeMethodReply, msg, "", job)
	default:
		f.send(c, dbus.TypeMethodReply, msg, "")
	}
}

// list answers for the units that there are; a name that is none is not found.
func (f *fakeSystemd) list(names []string) []listed {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []listed
	for _, name := range names {
		if strings.Contains(name, "*") {
			for path := range f.units {
				if ok, _ := filepath.Match(name, f.name(path)); ok {
					found = append(found, f.row(path))
				}
			}
			continue
		}
		path := unitPath(name)
		if _, ok := f.units[path]; ok {
			found = append(found, f.row(path))
			continue
		}
		found = append(found, listed{Name: name, Description: name, Load: "not-found", Active: "inactive", Sub: "dead",
			Path: dbus.ObjectPath(path), JobPath: "/"})
	}
	return found
}

func (f *fakeSystemd) name(path string) string { return value[string](f.units[path], "Id") }

func (f *fakeSystemd) row(path string) listed {
	return listed{Name: f.name(path), Load: "loaded", Active: "active", Sub: "running", Path: dbus.ObjectPath(path), JobPath: "/"}
}

func unitPath(name string) string {
	return managerPath + "/unit/" + strings.NewReplacer(".", "_2e", "-", "_2d", "@", "_40").Replace(name)
}

// add makes a unit with the properties given.
func (f *fakeSystemd) add(name string, all map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := map[string]dbus.Variant{"Id": dbus.MakeVariant(name)}
	for k, v := range all {
		p[k] = dbus.MakeVariant(v)
	}
	f.units[unitPath(name)] = p
}

func (f *fakeSystemd) send(c net.Conn, kind dbus.Type, to *dbus.Message, errorName string, body ...any) {
	msg := &dbus.Message{Type: kind, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(to.Serial())}, Body: body}
	if errorName != "" {
		msg.Headers[dbus.FieldErrorName] = dbus.MakeVariant(errorName)
	}
	f.write(c, msg)
}

func (f *fakeSystemd) signal(c net.Conn, member string, body ...any) {
	f.write(c, &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath:      dbus.MakeVariant(dbus.ObjectPath(managerPath)),
		dbus.FieldInterface: dbus.MakeVariant(managerInterface),
		dbus.FieldMember:    dbus.MakeVariant(member)}})
}

func (f *fakeSystemd) write(c net.Conn, msg *dbus.Message) {
	msg.Headers[dbus.FieldSender] = dbus.MakeVariant(managerName)
	if len(msg.Body) > 0 {
		msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(msg.Body...))
	}
	msg.EncodeTo(c, binary.LittleEndian) //nolint:errcheck // the client may be gone
}
