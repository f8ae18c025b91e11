package component

import (
	"fmt"
	"slices"
	"strings"

	"whisper-appliance/internal/fault"
)

// check refuses a list that cannot be started in any order, or whose words
// contradict each other. Its errors are ours to mend, not an administrator's.
func check(list []Component) error {
	for i, c := range list {
		if c.Name == "" || strings.ContainsFunc(c.Name, notOfAName) {
			return bad("bad_component", c.Name, "a component is called %q; its name must be lower-case letters, digits, - and _", c.Name)
		}
		if other, ok := find(list[:i], c.Name); ok {
			return bad("component_twice", c.Name, "two components are called %s: one that %s and one that %s", c.Name, other.Does, c.Does)
		}
	}
	for _, c := range list {
		if err := checkNeeds(list, c); err != nil {
			return err
		}
	}
	if around := cycle(list); around != nil {
		return bad("component_cycle", around[0], "components need each other in a circle: %s", strings.Join(around, " needs "))
	}
	return nil
}

func notOfAName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

func checkNeeds(list []Component, c Component) error {
	for _, need := range c.Needs {
		n, ok := find(list, need)
		switch {
		case !ok:
			return bad("component_unknown", c.Name, "the component %s needs %q, which there is not", c.Name, need).
				Try("it may need one of %s", strings.Join(names(list), ", "))
		case c.Critical && !n.Critical:
			return bad("component_critical", c.Name, "the critical component %s needs %s, which is optional", c.Name, need).
				Try("make %s critical, or %s optional", need, c.Name)
		case c.Planned == "" && n.Planned != "":
			return bad("component_planned", c.Name, "the component %s needs %s, which %s", c.Name, need, n.Planned)
		}
	}
	return nil
}

func bad(code, name, format string, args ...any) *fault.Error {
	return fault.New(fault.Internal, code, format, args...).On(name)
}

func names(list []Component) []string {
	all := make([]string, len(list))
	for i, c := range list {
		all[i] = c.Name
	}
	return all
}

// cycle gives the names around a circle of needs, the first once more at the
// end, nil where there is none. Every need is known to exist.
func cycle(list []Component) []string {
	done := map[string]bool{}
	var path []string
	var visit func(name string) []string
	visit = func(name string) []string {
		if at := slices.Index(path, name); at >= 0 {
			return append(slices.Clone(path[at:]), name)
		}
		if done[name] {
			return nil
		}
		path = append(path, name)
		c, _ := find(list, name)
		for _, need := range c.Needs {
			if around := visit(need); around != nil {
				return around
			}
		}
		path = path[:len(path)-1]
		done[name] = true
		return nil
	}
	for _, c := range list {
		if around := visit(c.Name); around != nil {
			return around
		}
	}
	return nil
}

// Levels are the names in the order of their start: those of a level need only
// what is in levels before it. The list is one that New takes.
func Levels(list []Component) [][]string {
	depth := map[string]int{}
	var of func(name string) int
	of = func(name string) int {
		if d, ok := depth[name]; ok {
			return d
		}
		c, _ := find(list, name)
		d := 0
		for _, need := range c.Needs {
			d = max(d, of(need)+1)
		}
		depth[name] = d
		return d
	}
	var levels [][]string
	for _, c := range list {
		d := of(c.Name)
		for len(levels) <= d {
			levels = append(levels, nil)
		}
		levels[d] = append(levels[d], c.Name)
	}
	return levels
}

// Formats are the ones that Graph knows.
func Formats() []string { return []string{"dot", "mermaid", "text"} }

// Graph draws who needs whom, as DOT of Graphviz, as Mermaid or as text by
// levels. The same list gives the same bytes. The list is one that New takes.
func Graph(list []Component, format string) (string, error) {
	if err := check(list); err != nil {
		return "", err
	}
	switch format {
	case "dot":
		return dot(list), nil
	case "mermaid":
		return mermaid(list), nil
	case "text":
		return text(list), nil
	}
	e := fault.New(fault.BadInput, "unknown_format", "there is no graph format %q; the formats are %s",
		fault.Short(format), strings.Join(Formats(), ", ")).On("graph")
	if near := fault.Nearest(format, Formats()); near != "" {
		e.Try("did you mean %s?", near)
	}
	return "", e
}

func dot(list []Component) string {
	var b strings.Builder
	b.WriteString("digraph components {\n\trankdir=LR;\n\tnode [shape=box];\n")
	for _, c := range list {
		style := "solid"
		switch {
		case c.Planned != "":
			style = "dotted"
		case c.Critical:
			style = "bold"
		}
		fmt.Fprintf(&b, "\t%q [style=%s];\n", c.Name, style)
	}
	for _, c := range list {
		for _, need := range c.Needs {
			fmt.Fprintf(&b, "\t%q -> %q;\n", c.Name, need)
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// mermaid gives each node an id of its own: some names are words of the language.
func mermaid(list []Component) string {
	id := func(name string) string { return "c_" + strings.ReplaceAll(name, "-", "_") }
	var b strings.Builder
	b.WriteString("graph LR\n")
	for _, c := range list {
		left, right := "(", ")"
		switch {
		case c.Planned != "":
			left, right = "{{", "}}"
		case c.Critical:
			left, right = "[[", "]]"
		}
		fmt.Fprintf(&b, "  %s%s%s%s\n", id(c.Name), left, c.Name, right)
	}
	for _, c := range list {
		for _, need := range c.Needs {
			fmt.Fprintf(&b, "  %s --> %s\n", id(c.Name), id(need))
		}
	}
	return b.String()
}

func text(list []Component) string {
	var b strings.Builder
	for i, level := range Levels(list) {
		fmt.Fprintf(&b, "level %d\n", i)
		for _, name := range level {
			c, _ := find(list, name)
			fmt.Fprintf(&b, "  %s (%s)", c.Name, class(c))
			if len(c.Needs) > 0 {
				fmt.Fprintf(&b, " needs %s", strings.Join(c.Needs, ", "))
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// class is how much depends on a component, in a word.
func class(c Component) string {
	switch {
	case c.Planned != "":
		return "planned"
	case c.Critical:
		return "critical"
	}
	return "optional"
}
