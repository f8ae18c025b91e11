package config

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Reference writes every setting as TOML with its meaning and its default. The
// settings are commented out, so that a file made of it follows a later
// version's defaults until a line is put into force.
func Reference(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Every setting of whisper-appliance, with its default.\n")
	for _, s := range sections(Default()) {
		fmt.Fprintf(&b, "\n%s[%s]\n", comment(s.doc), s.name)
		for _, f := range s.fields {
			fmt.Fprintf(&b, "\n%s#%s = %s\n", comment(f.doc), f.name, literal(f.plain()))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// comment is text as comment lines of at most 80 characters.
func comment(text string) string {
	var b strings.Builder
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

// literal is a value of field.plain as TOML.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case []string:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = strconv.Quote(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// Variables writes the environment variables as two Markdown tables: ours with
// the settings they set, and those of the appliance's predecessor.
func Variables(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| variable | setting |\n|---|---|\n")
	for _, s := range sections(Default()) {
		for _, f := range s.fields {
			fmt.Fprintf(&b, "| `%s` | `%s` |\n", f.variable(), f.key())
		}
	}
	b.WriteString("\n| older variable | what it does |\n|---|---|\n")
	for _, old := range oldVariables() {
		switch {
		case old.key != "":
			fmt.Fprintf(&b, "| `%s` | sets `%s` |\n", old.name, old.key)
		case old.note != "":
			fmt.Fprintf(&b, "| `%s` | nothing: %s |\n", old.name, old.note)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
