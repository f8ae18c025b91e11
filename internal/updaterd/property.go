package updaterd

import (
	"context"
	"encoding/json"
	"reflect"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/deployment"
)

// Interfaces of the bus's own that our object has. godbus' prop package is not
// used: it emits a signal for every value set, changed or not, one by one.
const (
	propertiesInterface = "org.freedesktop.DBus.Properties"
	propertiesChanged   = propertiesInterface + ".PropertiesChanged"
)

// progress is the property Progress, (ttd).
type progress struct {
	Done, Total uint64  // bytes; a Total of 0 is not known
	Left        float64 // seconds, -1 where nobody knows
}

// property is one of the names that valuesOf gives.
type property struct{ name, signature string }

// properties are all there are, in the order in which they are shown.
func properties() []property {
	return []property{
		{"State", "s"}, {"Phase", "s"}, {"Progress", "(ttd)"}, {"Message", "s"}, {"Transaction", "s"}, {"Current", "s"}, {"Stable", "s"},
		{"Available", "s"}, {"Trial", "a{sv}"}, {"LastOutcome", "a{sv}"}, {"Policy", "a{sv}"}, {"Status", "s"},
	}
}

// values are the properties by their names.
type values map[string]dbus.Variant

// valuesOf is st as the bus sees it.
func valuesOf(st deployment.Status) values {
	whole, err := json.Marshal(st)
	if err != nil { // only our own types come here
		whole = []byte("{}")
	}
	v := values{}
	for name, s := range map[string]string{
		"State": string(st.State), "Phase": string(st.Phase), "Message": st.Message, "Transaction": st.Transaction,
		"Current": st.Current.Version, "Stable": st.Stable.Version, "Available": available(st), "Status": string(whole),
	} {
		v[name] = dbus.MakeVariant(clean(s))
	}
	p := progress{Done: uint64(max(0, st.Progress.Done)), Total: uint64(max(0, st.Progress.Total)), Left: st.Progress.LeftSeconds}
	if p.Total == 0 || p.Left < 0 {
		p.Left = -1
	}
	v["Progress"] = dbus.MakeVariant(p)
	v["Trial"] = dbus.MakeVariant(dictionary(st.Trial))
	v["LastOutcome"] = dbus.MakeVariant(dictionary(st.Last))
	v["Policy"] = dbus.MakeVariant(dictionary(&st.Policy))
	return v
}

func available(st deployment.Status) string {
	if st.Available == nil {
		return ""
	}
	return st.Available.Version
}

// dictionary is what v points to as an a{sv} with the keys that it has in JSON:
// strings s, numbers d, truths b, lists of strings as; all else is JSON in an s.
// A nil pointer is empty.
func dictionary[T any](v *T) map[string]dbus.Variant {
	all := map[string]dbus.Variant{}
	if v == nil {
		return all
	}
	var fields map[string]json.RawMessage
	data, err := json.Marshal(v)
	if err != nil || json.Unmarshal(data, &fields) != nil {
		return all // only our own types come here
	}
	for name, raw := range fields {
		all[name] = variant(raw)
	}
	return all
}

func variant(raw json.RawMessage) dbus.Variant {
	var s string
	var f float64
	var b bool
	var list []string
	switch {
	case string(raw) == "null":
		return dbus.MakeVariant([]string{}) // of our types only lists may be nil
	case json.Unmarshal(raw, &s) == nil:
		return dbus.MakeVariant(clean(s))
	case json.Unmarshal(raw, &f) == nil:
		return dbus.MakeVariant(f)
	case json.Unmarshal(raw, &b) == nil:
		return dbus.MakeVariant(b)
	case json.Unmarshal(raw, &list) == nil:
		for i := range list {
			list[i] = clean(list[i])
		}
		return dbus.MakeVariant(list)
	}
	return dbus.MakeVariant(clean(string(raw)))
}

// since are those of v that differ from what was told.
func (v values) since(told values) map[string]dbus.Variant {
	changed := map[string]dbus.Variant{}
	for name, value := range v {
		if before, ok := told[name]; !ok || !reflect.DeepEqual(before, value) {
			changed[name] = value
		}
	}
	return changed
}

// Errors of the bus's own interfaces, which callers know by these names.
func noInterface(name string) error {
	return dbus.NewError("org.freedesktop.DBus.Error.UnknownInterface", []any{"there is no interface " + name + " here with properties; " + Interface + " has some"})
}

func noProperty(name string) error {
	return dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{Interface + " has no property " + name})
}

func getProperty(_ context.Context, s *Server, _ Caller, in []any) ([]any, error) {
	if name := word(in, 0); name != Interface && name != "" {
		return nil, noInterface(name)
	}
	value, ok := s.now()[word(in, 1)]
	if !ok {
		return nil, noProperty(word(in, 1))
	}
	return []any{value}, nil
}

func getProperties(_ context.Context, s *Server, _ Caller, in []any) ([]any, error) {
	switch name := word(in, 0); name {
	case Interface, "":
		return []any{map[string]dbus.Variant(s.now())}, nil
	case propertiesInterface, introspectable, peer:
		return []any{map[string]dbus.Variant{}}, nil
	default:
		return nil, noInterface(name)
	}
}

func setProperty(ctx context.Context, s *Server, c Caller, in []any) ([]any, error) {
	if _, err := getProperty(ctx, s, c, in); err != nil {
		return nil, err
	}
	return nil, dbus.NewError("org.freedesktop.DBus.Error.PropertyReadOnly", []any{"the property " + word(in, 1) + " can only be read"})
}
