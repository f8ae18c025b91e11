package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"whisper-appliance/internal/fault"
)

// Unmarshal reads TOML of another package's file into a struct. A key that the
// struct does not have is an error. Errors are faults that begin with file
// and line.
func Unmarshal(file string, data []byte, into any) error {
	d := toml.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		line, _ := strict.Errors[0].Position()
		return fault.New(fault.BadInput, "unknown_key", "%s:%d: there is no setting %s here",
			file, line, strings.Join(strict.Errors[0].Key(), "."))
	}
	return syntaxFault(file, err)
}

// Marshal is v as TOML, keys in order.
func Marshal(v any) ([]byte, error) { return toml.Marshal(v) }

// syntaxFault gives an error of the TOML library its file and line.
func syntaxFault(file string, err error) error {
	if err == nil {
		return nil
	}
	at := file
	message := err.Error()
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := decode.Position()
		at = fmt.Sprintf("%s:%d:%d", file, line, column)
		message = decode.Error()
	}
	return fault.New(fault.BadInput, "bad_toml", "%s: this is not TOML that can be read here: %s",
		at, strings.TrimPrefix(message, "toml: "))
}

// entry is one value found in a file.
type entry struct {
	section, name string // name is "" where the section itself is no table
	line          int
	value         any
}

// parseFile reads a settings file into its values, in the order of its lines.
// Nothing is known about keys and types yet.
func parseFile(file string, data []byte) ([]entry, error) {
	var top map[string]any
	if err := toml.Unmarshal(data, &top); err != nil {
		return nil, syntaxFault(file, err)
	}
	lines := keyLines(data)
	var list []entry
	for section, content := range top {
		table, ok := content.(map[string]any)
		if !ok {
			list = append(list, entry{section: section, line: lines[section], value: content})
		}
		for name, value := range table {
			line, ok := lines[section+"."+name]
			if !ok { // within an inline table
				line = lines[section]
			}
			list = append(list, entry{section: section, name: name, line: line, value: value})
		}
	}
	slices.SortFunc(list, func(a, b entry) int {
		if a.line != b.line {
			return a.line - b.line
		}
		return strings.Compare(a.section+"."+a.name, b.section+"."+b.name)
	})
	return list, nil
}

// keyLines finds the line of every key and every table in data, which must be
// valid. The decoder tells lines only of what it cannot use, and stops at the
// first value of a wrong type, so the document is walked once more.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	var p unstable.Parser
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		path, line := keyPath(&p, e)
		if e.Kind == unstable.KeyValue {
			path = slices.Concat(table, path)
		} else {
			table = path
		}
		for i := range path {
			key := strings.Join(path[:i+1], ".")
			if _, seen := lines[key]; !seen {
				lines[key] = line
			}
		}
	}
	return lines
}

// keyPath is the key of a table or of a key and value, and the line it is on.
func keyPath(p *unstable.Parser, e *unstable.Node) (path []string, line int) {
	for k := e.Key(); k.Next(); {
		if line == 0 {
			line = p.Shape(k.Node().Raw).Start.Line
		}
		path = append(path, string(k.Node().Data))
	}
	return path, line
}
