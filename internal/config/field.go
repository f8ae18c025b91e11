package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// field is one setting of one Config: its name, its rules and its place.
type field struct {
	section, name string // "server", "listen"
	doc           string
	oneOf         []string // the values allowed; nil where they are not a list
	check         string   // which check of check.go a string must pass
	min, max      int64
	zero          string        // what zero means where it is allowed below min; "" where it is not
	value         reflect.Value // the field itself, settable
}

// key is the name that people use, "server.listen".
func (f field) key() string { return f.section + "." + f.name }

// variable is the environment variable that sets the field.
func (f field) variable() string {
	return variablePrefix + strings.ToUpper(f.section+"_"+f.name)
}

// section is one section of the settings.
type section struct {
	name, doc string
	fields    []field
}

// sections lists the settings of c in the order of the struct.
func sections(c *Config) []section {
	var list []section
	for top, value := range reflect.ValueOf(c).Elem().Fields() {
		s := section{name: top.Tag.Get("toml"), doc: top.Tag.Get("doc")}
		for sf, fv := range value.Fields() {
			s.fields = append(s.fields, newField(s.name, sf, fv))
		}
		list = append(list, s)
	}
	return list
}

func newField(section string, sf reflect.StructField, value reflect.Value) field {
	return field{
		section: section,
		name:    sf.Tag.Get("toml"),
		doc:     sf.Tag.Get("doc"),
		oneOf:   strings.Fields(sf.Tag.Get("oneof")),
		check:   sf.Tag.Get("check"),
		min:     bound(sf, "min", 0),
		max:     bound(sf, "max", 1<<62),
		zero:    sf.Tag.Get("zero"),
		value:   value,
	}
}

// bound reads a limit from a tag: a number, or a time with its unit. A test
// parses every tag there is.
func bound(sf reflect.StructField, tag string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(sf.Tag.Get(tag), 10, 64); err == nil {
		return n
	}
	if d, err := time.ParseDuration(sf.Tag.Get(tag)); err == nil {
		return int64(d)
	}
	return otherwise
}

// fields lists the settings of c by key.
func fields(c *Config) map[string]field {
	byKey := map[string]field{}
	for _, s := range sections(c) {
		for _, f := range s.fields {
			byKey[f.key()] = f
		}
	}
	return byKey
}

// set gives the field a value as TOML has it, and reports whether it is one
// that the field can have.
func (f field) set(raw any) bool {
	v, ok := f.parse(raw)
	if ok {
		f.value.Set(reflect.ValueOf(v))
	}
	return ok
}

// parse turns a value of TOML into the field's type. A float, a date or a
// quoted number where a number belongs is refused rather than converted.
func (f field) parse(raw any) (v any, ok bool) {
	switch f.value.Interface().(type) {
	case string:
		s, ok := raw.(string)
		return s, ok && f.allows(s)
	case bool:
		b, ok := raw.(bool)
		return b, ok
	case int:
		n, ok := raw.(int64)
		return int(n), ok && f.within(n)
	case Bytes:
		return f.parseBytes(raw)
	case time.Duration:
		s, ok := raw.(string)
		d, err := time.ParseDuration(s)
		return d, ok && err == nil && f.within(int64(d))
	case []string:
		list, ok := texts(raw)
		return list, ok && !slices.ContainsFunc(list, func(s string) bool { return !f.allows(s) })
	case []netip.Prefix:
		return parsePrefixes(raw)
	}
	return nil, false
}

func (f field) parseBytes(raw any) (Bytes, bool) {
	if n, ok := raw.(int64); ok {
		return Bytes(n), f.within(n)
	}
	s, _ := raw.(string)
	n, ok := ParseBytes(s)
	return n, ok && f.within(int64(n))
}

func (f field) within(n int64) bool {
	return n >= f.min && n <= f.max || n == 0 && f.zero != ""
}

// allows applies the field's rules to a string.
func (f field) allows(s string) bool {
	if len(f.oneOf) > 0 {
		return slices.Contains(f.oneOf, s)
	}
	return checkOf(f.check).ok(s)
}

// texts is raw as strings. An empty list is nil, which is what Default has.
func texts(raw any) ([]string, bool) {
	items, ok := raw.([]any)
	var list []string
	for _, item := range items {
		s, isText := item.(string)
		ok = ok && isText
		list = append(list, s)
	}
	return list, ok
}

func parsePrefixes(raw any) ([]netip.Prefix, bool) {
	list, ok := texts(raw)
	var prefixes []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if addr, addrErr := netip.ParseAddr(s); addrErr == nil && addr.Zone() == "" {
			p, err = addr.Prefix(addr.BitLen())
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 { // callers are compared as IPv4
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		ok = ok && err == nil
		prefixes = append(prefixes, p.Masked())
	}
	return prefixes, ok
}

// raw turns words from a variable, a flag or a command line into the value
// that TOML would have. A list is separated by commas; a relative path counts
// from the directory of the command, which a file could not know.
func (f field) raw(text string) any {
	switch f.value.Interface().(type) {
	case bool:
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	case int:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	case []string, []netip.Prefix:
		items := []any{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
		return items
	}
	relative := f.check == "path" || f.check == "mirror" && !strings.Contains(text, "://")
	if text != "" && relative {
		if abs, err := filepath.Abs(text); err == nil {
			return abs
		}
	}
	return text
}

// plain is the field's value as TOML and JSON write it: a string, bool, int64
// or list of strings.
func (f field) plain() any {
	switch v := f.value.Interface().(type) {
	case Bytes:
		return v.String()
	case time.Duration:
		return formatDuration(v)
	case int:
		return int64(v)
	case []string:
		return append([]string{}, v...)
	case []netip.Prefix:
		list := []string{}
		for _, p := range v {
			list = append(list, p.String())
		}
		return list
	default:
		return v
	}
}

// want says what would be right, to follow "it must be".
func (f field) want() string {
	switch f.value.Interface().(type) {
	case bool:
		return "true or false"
	case int:
		return fmt.Sprintf("a whole number from %d to %d", f.min, f.max)
	case Bytes:
		return `a size above zero such as "4GiB", "100MB" or a number of bytes`
	case time.Duration:
		return f.wantTime()
	case []string:
		return "a list, each item " + checkOf(f.check).want
	case []netip.Prefix:
		return `a list of addresses or networks, such as ["192.0.2.7", "10.0.0.0/8"]`
	}
	if len(f.oneOf) == 1 {
		return strconv.Quote(f.oneOf[0])
	}
	if len(f.oneOf) > 1 {
		return "one of " + strings.Join(f.oneOf, ", ")
	}
	return checkOf(f.check).want
}

func (f field) wantTime() string {
	want := fmt.Sprintf(`a time of at least %s with its unit, such as "15s", "10m" or "1h30m"`, formatDuration(time.Duration(f.min)))
	if f.zero != "" {
		want += fmt.Sprintf(`, or "0s", which means %s`, f.zero)
	}
	return want
}
