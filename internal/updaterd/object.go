package updaterd

import (
	"context"
	"encoding/xml"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
)

const (
	introspectable = "org.freedesktop.DBus.Introspectable"
	peer           = "org.freedesktop.DBus.Peer" // godbus answers it
)

// objects are what a connection of ours has: one object, and the nodes on the
// way to it, which can be introspected alone.
type objects struct{ l *link }

// LookupObject is dbus.Handler's.
func (o objects) LookupObject(path dbus.ObjectPath) (dbus.ServerObject, bool) {
	members := map[string][]member{introspectable: {{"Introspect", anybody, nil, arguments("xml_data s"), described(string(path))}}}
	switch {
	case path == Path:
		members[Interface], members[propertiesInterface] = updaterMembers(), propertyMembers()
	case path != "/" && !strings.HasPrefix(Path, string(path)+"/"):
		return nil, false
	}
	return object{o.l, members}, true
}

// object is one node: members by interface.
type object struct {
	l       *link
	members map[string][]member
}

// LookupInterface is dbus.ServerObject's. Callers may leave the interface out.
func (o object) LookupInterface(name string) (dbus.Interface, bool) {
	if name == "" {
		var all []member
		for _, members := range o.members {
			all = append(all, members...)
		}
		return face{o.l, all}, true
	}
	members, ok := o.members[name]
	return face{o.l, members}, ok
}

// face is an interface.
type face struct {
	l       *link
	members []member
}

// LookupMethod is dbus.Interface's.
func (f face) LookupMethod(name string) (dbus.Method, bool) {
	for _, m := range f.members {
		if m.name == name {
			return method{f.l, m}, true
		}
	}
	return nil, false
}

// method is a member at its connection. godbus hands it the whole message, and
// asks nothing else of it.
type method struct {
	l *link
	m member
}

// DecodeArguments is dbus.ArgumentDecoder's. godbus' own would convert numbers
// and open variants: a call with other types than ours is refused here.
func (m method) DecodeArguments(_ *dbus.Conn, sender string, msg *dbus.Message, body []any) ([]any, error) {
	given, _ := msg.Headers[dbus.FieldSignature].Value().(dbus.Signature) //nolint:errcheck // none is the empty one
	if want := signature(m.m.in); given.String() != want || len(body) != len(m.m.in) {
		return nil, dbus.NewError("org.freedesktop.DBus.Error.InvalidArgs",
			[]any{m.m.name + " takes values of the types \"" + want + "\", not \"" + given.String() + "\""})
	}
	return []any{asked{sender, msg, body}}, nil
}

// asked is a call as it came.
type asked struct {
	sender string
	msg    *dbus.Message
	in     []any
}

// Call is dbus.Method's.
func (m method) Call(args ...any) ([]any, error) {
	a, _ := args[0].(asked) //nolint:errcheck // DecodeArguments made it
	return m.l.call(m.m, a)
}

// NumArguments is dbus.Method's; DecodeArguments stands for it.
func (m method) NumArguments() int { return 0 }

// NumReturns is dbus.Method's.
func (m method) NumReturns() int { return len(m.m.out) }

// ArgumentValue is dbus.Method's; DecodeArguments stands for it.
func (m method) ArgumentValue(int) any { return nil }

// ReturnValue is dbus.Method's; godbus takes the values' own types.
func (m method) ReturnValue(int) any { return nil }

// described answers Introspect at path.
func described(path string) caller {
	return func(context.Context, *Server, Caller, []any) ([]any, error) {
		doc, err := xml.MarshalIndent(nodeAt(path), "", " ")
		if err != nil {
			return nil, err
		}
		return []any{strings.TrimSpace(introspect.IntrospectDeclarationString) + "\n" + string(doc) + "\n"}, nil
	}
}

// nodeAt describes what is at path.
func nodeAt(path string) introspect.Node {
	standard := []introspect.Interface{introspect.IntrospectData, introspect.PeerData}
	if path != Path {
		rest := strings.TrimPrefix(strings.TrimPrefix(Path, path), "/")
		child, _, _ := strings.Cut(rest, "/")
		return introspect.Node{Name: path, Interfaces: standard, Children: []introspect.Node{{Name: child}}}
	}
	ours := introspect.Interface{Name: Interface, Methods: methodsOf(updaterMembers())}
	for _, p := range properties() {
		ours.Properties = append(ours.Properties, introspect.Property{Name: p.name, Type: p.signature, Access: "read",
			Annotations: []introspect.Annotation{{Name: "org.freedesktop.DBus.Property.EmitsChangedSignal", Value: "true"}}})
	}
	props := introspect.Interface{Name: propertiesInterface, Methods: methodsOf(propertyMembers()), Signals: []introspect.Signal{{
		Name: "PropertiesChanged", Args: args("", arguments("interface_name s, changed_properties a{sv}, invalidated_properties as")),
	}}}
	return introspect.Node{Name: Path, Interfaces: append([]introspect.Interface{ours, props}, standard...)}
}

// methodsOf describes members. That a method is root's alone is annotated as
// systemd does it.
func methodsOf(members []member) []introspect.Method {
	var all []introspect.Method
	for _, m := range members {
		d := introspect.Method{Name: m.name, Args: append(args("in", m.in), args("out", m.out)...)}
		switch m.may {
		case root:
			d.Annotations = []introspect.Annotation{{Name: Interface + ".Callers", Value: "root"}}
		case servers:
			d.Annotations = []introspect.Annotation{{Name: Interface + ".Callers", Value: "root, the server's user"}}
		}
		all = append(all, d)
	}
	return all
}

func args(direction string, list []argument) []introspect.Arg {
	var all []introspect.Arg
	for _, a := range list {
		all = append(all, introspect.Arg{Name: a.name, Type: a.signature, Direction: direction})
	}
	return all
}
