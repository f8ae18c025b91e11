package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// Sources says where settings come from. What comes later in the struct wins.
// Files that do not exist say nothing.
type Sources struct {
	Settings string   // what page, API and CLI save: settings.toml
	Config   string   // the administrator's file: config.toml
	ConfigD  string   // directory whose *.toml are read in the order of their names
	Environ  []string // as os.Environ gives it
	Flags    []Flag

	// Checkout means that the program was built in a checkout of the source,
	// which is for development unless a source names another profile.
	Checkout bool

	// Reserved names variables with the appliance's prefix that are not
	// settings, so that they are not refused.
	Reserved []string
}

// Flag is a setting given on the command line.
type Flag struct {
	Name string // "listen"; "" where it is a value about to be saved
	Key  string // "server.listen"
	Text string // its value
}

// Problems is everything that is wrong with the settings, in the order of the
// sources. Each says where it is, what was given and what would be right.
type Problems []*fault.Error

// Error gives each problem a line of its own where there are several.
func (p Problems) Error() string {
	if len(p) == 1 {
		return p[0].Error()
	}
	var b strings.Builder
	for _, problem := range p {
		b.WriteString("\n  " + problem.Error())
	}
	return b.String()
}

// Unwrap gives the problems one by one.
func (p Problems) Unwrap() []error {
	list := make([]error, len(p))
	for i, problem := range p {
		list[i] = problem
	}
	return list
}

// Load merges the sources over the defaults and checks every value. The error
// is a fault with the code "bad_config" and Problems as its cause; then there
// is neither configuration nor report.
//
// Settings is written by whatever version ran when somebody pressed save. A
// version that was rolled back to must start with it all the same, so what
// this version cannot use in that one file becomes a note instead of a problem.
func Load(from Sources) (*Config, *Report, error) {
	l := newLoader()
	l.readSettings(from.Settings)
	l.readFile(from.Config, filepath.Base(from.Config), false)
	l.readDir(from.ConfigD)
	l.readVariables(from.Environ, from.Reserved)
	for _, f := range from.Flags {
		origin := "flag --" + f.Name
		if f.Name == "" {
			origin = "value to save"
		}
		l.assign(assignment{origin, f.Key, f.Text})
	}
	l.applyProfile(from.Checkout)
	l.checkTogether()
	if len(l.problems) > 0 {
		return nil, nil, badConfig(l.problems)
	}
	return l.config, l.report(), nil
}

func badConfig(problems Problems) error {
	noun := "problem"
	if len(problems) > 1 {
		noun = "problems"
	}
	return fault.New(fault.BadInput, "bad_config", "the configuration has %d %s", len(problems), noun).
		Because(problems).
		Try(`"whisper-appliance config reference" prints every setting with its meaning`)
}

// loader is one Load in progress.
type loader struct {
	config   *Config
	fields   map[string]field
	sections []string // their names
	keys     []string // of all settings, in the order of the struct
	origins  map[string]origin
	problems Problems
	notes    []string
}

func newLoader() *loader {
	c := Default()
	l := &loader{config: c, fields: fields(c), origins: map[string]origin{}}
	for _, s := range sections(c) {
		l.sections = append(l.sections, s.name)
		for _, f := range s.fields {
			l.keys = append(l.keys, f.key())
		}
	}
	return l
}

func (l *loader) refuse(code, key, format string, args ...any) {
	l.problems = append(l.problems, fault.New(fault.BadInput, code, format, args...).On(key))
}

// readSettings reads the file that the appliance itself writes.
func (l *loader) readSettings(path string) {
	before := len(l.problems)
	l.readFile(path, filepath.Base(path), true)
	kept := l.problems[:before]
	for _, p := range l.problems[before:] {
		if p.Code == "unknown_key" || p.Code == "bad_value" {
			l.notes = append(l.notes, p.Message+"; this version leaves it aside")
			continue
		}
		kept = append(kept, p)
	}
	l.problems = kept
}

// mostFile bounds a file of settings: others may write the one that the page
// saves, and root reads it.
const mostFile = 1 << 20

// readFile applies one file. name is how origins call it.
func (l *loader) readFile(path, name string, saved bool) {
	if path == "" {
		return
	}
	data, err := durable.ReadRegular(path, mostFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		l.problems = append(l.problems, unreadable(path, err))
		return
	}
	entries, err := parseFile(path, data)
	if problem, ok := errors.AsType[*fault.Error](err); ok {
		l.problems = append(l.problems, problem)
		return
	}
	for _, e := range entries {
		from := origin{text: fmt.Sprintf("%s:%d", name, e.line), locked: true}
		if saved {
			from = origin{text: name}
		}
		l.apply(fmt.Sprintf("%s:%d", path, e.line), e, from)
	}
}

func unreadable(path string, err error) *fault.Error {
	return fault.New(fault.BadInput, "unreadable", "%s cannot be read", path).
		Because(err).Try("give the user that runs the appliance leave to read it")
}

// readDir applies the *.toml of dir by name. Files whose names begin with a
// dot are left to the editors that made them.
func (l *loader) readDir(dir string) {
	if dir == "" {
		return
	}
	list, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.problems = append(l.problems, unreadable(dir, err))
	}
	for _, f := range list {
		if filepath.Ext(f.Name()) == ".toml" && f.Name()[0] != '.' {
			l.readFile(filepath.Join(dir, f.Name()), filepath.Join(filepath.Base(dir), f.Name()), false)
		}
	}
}

// apply sets what one entry of a file says.
func (l *loader) apply(at string, e entry, from origin) {
	key := e.section + "." + e.name
	f, known := l.fields[key]
	switch {
	case known && f.set(e.value):
		l.origins[key] = from
	case known:
		l.refuse("bad_value", key, "%s: %s is %s; it must be %s", at, key, quote(e.value), f.want())
	default:
		l.unknown(at, e)
	}
}

// unknown refuses a key or a section that is not there.
func (l *loader) unknown(at string, e entry) {
	if slices.Contains(l.sections, e.section) && e.name == "" {
		l.refuse("unknown_key", e.section, "%s: %s is a section; it must be a line [%s] with its settings below",
			at, e.section, e.section)
		return
	}
	key := strings.TrimSuffix(e.section+"."+e.name, ".")
	l.refuse("unknown_key", key, "%s: there is no setting %s%s", at, key, didYouMean(l.nearestKey(e)))
}

func didYouMean(name string) string {
	if name == "" {
		return ""
	}
	return "; did you mean " + name + "?"
}

// nearestKey guesses the key that e was meant to be: a slip within its
// section, a slip in the section's name, the right name in the wrong section.
func (l *loader) nearestKey(e entry) string {
	section := e.section
	if !slices.Contains(l.sections, section) {
		section = fault.Nearest(section, l.sections)
	}
	var names []string
	for _, key := range l.keys {
		if name, ok := strings.CutPrefix(key, section+"."); ok {
			names = append(names, name)
		}
	}
	if name := fault.Nearest(e.name, names); section != "" && name != "" {
		return section + "." + name
	}
	for _, key := range l.keys {
		if _, name, _ := strings.Cut(key, "."); name == e.name || e.name == "" && name == e.section {
			return key
		}
	}
	return fault.Nearest(e.section+"."+e.name, l.keys)
}

// readVariables applies the environment.
func (l *loader) readVariables(environ, reserved []string) {
	list, notes, unknown := variables(environ, reserved)
	l.notes = append(l.notes, notes...)
	for _, a := range list {
		l.assign(a)
	}
	var known []string
	for _, key := range l.keys {
		known = append(known, strings.TrimPrefix(l.fields[key].variable(), variablePrefix))
	}
	for _, name := range unknown {
		near := fault.Nearest(strings.TrimPrefix(name, variablePrefix), known)
		if near != "" {
			near = variablePrefix + near
		}
		l.refuse("unknown_variable", name, "environment: there is no variable %s%s", name, didYouMean(near))
	}
}

// assign sets what a variable or a flag says in words.
func (l *loader) assign(a assignment) {
	f, known := l.fields[a.key]
	switch {
	case !known:
		l.refuse("unknown_key", a.key, "%s: there is no setting %s", a.origin, a.key)
	case f.set(f.raw(a.text)):
		l.origins[a.key] = origin{text: a.origin, locked: true}
	default:
		l.refuse("bad_value", a.key, "%s: %s is %s; it must be %s", a.origin, a.key, quote(a.text), f.want())
	}
}

// checkTogether checks what one value alone cannot tell.
func (l *loader) checkTogether() {
	given, missing := "tls.certificate", "tls.key"
	if l.config.TLS.Certificate == "" {
		given, missing = missing, given
	}
	if (l.config.TLS.Certificate == "") != (l.config.TLS.Key == "") {
		l.refuse("bad_value", missing, "%s: %s is set but %s is not; give both, or neither for a certificate that the appliance makes",
			l.origins[given].text, given, missing)
	}
}

// quote shows a value as it was given.
func quote(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case map[string]any, []map[string]any:
		return "a table"
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = quote(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(v)
}
