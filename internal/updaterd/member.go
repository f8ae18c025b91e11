package updaterd

import (
	"context"
	"strings"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// who may call a member.
type who int

const (
	root    who = iota
	servers     // and the server's user
	anybody     // whom the bus lets through: what it tells is in status.json for everybody
)

// argument is one value in or out.
type argument struct{ name, signature string }

// arguments reads "name signature, name signature".
func arguments(list string) []argument {
	var all []argument
	for one := range strings.SplitSeq(list, ", ") {
		if name, signature, ok := strings.Cut(one, " "); ok {
			all = append(all, argument{name, signature})
		}
	}
	return all
}

// signature is that of all of them together.
func signature(all []argument) string {
	var s strings.Builder
	for _, a := range all {
		s.WriteString(a.signature)
	}
	return s.String()
}

// member is a method as the bus sees it. Its call gets as many values, of as
// many types, as in says.
type member struct {
	name    string
	may     who
	in, out []argument
	call    func(ctx context.Context, s *Server, c Caller, in []any) ([]any, error)
}

// updaterMembers are the methods of our interface.
func updaterMembers() []member {
	version, transaction := arguments("version s"), arguments("transaction s")
	return []member{
		{"Check", servers, nil, version, gives(Handler.Check)},
		{"Download", servers, version, nil, takes(Handler.Download)},
		{"Apply", servers, version, transaction, exchanges(Handler.Apply)},
		{"Rollback", servers, nil, transaction, gives(Handler.Rollback)},
		{"Commit", root, nil, nil, does(Handler.Commit)},
		{"Cancel", servers, nil, nil, does(Handler.Cancel)},
		{"Restart", servers, nil, arguments("invocation s"), gives(Handler.Restart)},
		{"Pin", root, version, nil, takes(Handler.Pin)},
		{"Unpin", root, nil, nil, does(Handler.Unpin)},
		{"Unquarantine", root, arguments("what s"), nil, takes(Handler.Unquarantine)},
		{"InstallFile", root, arguments("path s"), transaction, exchanges(Handler.InstallFile)},
		{"SetPolicy", servers, arguments("policy a{sv}"), nil, setPolicy},
	}
}

// propertyMembers are those of org.freedesktop.DBus.Properties.
func propertyMembers() []member {
	return []member{
		{"Get", anybody, arguments("interface_name s, property_name s"), arguments("value v"), getProperty},
		{"GetAll", anybody, arguments("interface_name s"), arguments("properties a{sv}"), getProperties},
		{"Set", anybody, arguments("interface_name s, property_name s, value v"), nil, setProperty},
	}
}

// longest bounds what is taken as a version, a digest or a path, in bytes.
const longest = 4096

// bounded refuses strings that no version, digest or path is as long as.
func bounded(m member, in []any) error {
	for i, a := range m.in {
		if s, ok := in[i].(string); ok && len(s) > longest {
			return fault.New(fault.BadInput, "too_long", "%s has %d bytes; it may have %d", a.name, len(s), longest).On(a.name)
		}
	}
	return nil
}

// word is the value at i.
func word(in []any, i int) string {
	s, _ := in[i].(string) //nolint:errcheck // its type was checked
	return s
}

type caller = func(context.Context, *Server, Caller, []any) ([]any, error)

func does(f func(Handler, context.Context, Caller) error) caller {
	return func(ctx context.Context, s *Server, c Caller, _ []any) ([]any, error) {
		return nil, f(s.Handler, ctx, c)
	}
}

func gives(f func(Handler, context.Context, Caller) (string, error)) caller {
	return func(ctx context.Context, s *Server, c Caller, _ []any) ([]any, error) {
		out, err := f(s.Handler, ctx, c)
		return []any{clean(out)}, err
	}
}

func takes(f func(Handler, context.Context, Caller, string) error) caller {
	return func(ctx context.Context, s *Server, c Caller, in []any) ([]any, error) {
		return nil, f(s.Handler, ctx, c, word(in, 0))
	}
}

func exchanges(f func(Handler, context.Context, Caller, string) (string, error)) caller {
	return func(ctx context.Context, s *Server, c Caller, in []any) ([]any, error) {
		out, err := f(s.Handler, ctx, c, word(in, 0))
		return []any{clean(out)}, err
	}
}

func setPolicy(ctx context.Context, s *Server, c Caller, in []any) ([]any, error) {
	given, _ := in[0].(map[string]dbus.Variant) //nolint:errcheck // its type was checked
	change, err := changeOf(given)
	if err != nil {
		return nil, err
	}
	return nil, s.Handler.SetPolicy(ctx, c, change)
}

// policyKeys are the names that SetPolicy takes.
func policyKeys() []string { return []string{"channel", "automatic", "window", "days"} }

// changeOf reads what SetPolicy was given.
func changeOf(given map[string]dbus.Variant) (deployment.PolicyChange, error) {
	var change deployment.PolicyChange
	words := map[string]**string{"channel": &change.Channel, "automatic": &change.Automatic, "window": &change.Window}
	for name, v := range given {
		to, known := words[name]
		switch value := v.Value().(type) {
		case string:
			if known && len(value) <= longest {
				*to = &value
				continue
			}
		case []string:
			if name == "days" && len(value) <= 64 {
				change.Days = append([]string{}, value...)
				continue
			}
		}
		return change, badPolicy(name, known)
	}
	return change, nil
}

func badPolicy(name string, known bool) error {
	switch {
	case known:
		return fault.New(fault.BadInput, "invalid_value", "%s must be a string (s)", name).On(name)
	case name == "days":
		return fault.New(fault.BadInput, "invalid_value", "days must be a list of strings (as)").On(name)
	}
	f := fault.New(fault.BadInput, "unknown_key", "the policy has no %q; it has %s", fault.Short(name), strings.Join(policyKeys(), ", ")).On(fault.Short(name))
	if near := fault.Nearest(name, policyKeys()); near != "" {
		f = f.Try("did you mean %s?", near)
	}
	return f
}

// variants is change as SetPolicy takes it.
func variants(change deployment.PolicyChange) map[string]dbus.Variant {
	all := map[string]dbus.Variant{}
	for name, value := range map[string]*string{"channel": change.Channel, "automatic": change.Automatic, "window": change.Window} {
		if value != nil {
			all[name] = dbus.MakeVariant(clean(*value))
		}
	}
	if change.Days != nil {
		days := []string{}
		for _, day := range change.Days {
			days = append(days, clean(day))
		}
		all["days"] = dbus.MakeVariant(days)
	}
	return all
}

// clean makes s a string that D-Bus can carry.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
