package component

import (
	"fmt"
	"strings"
)

// Page is the documentation page of the components, in Markdown. The list is
// one that New takes.
func Page(list []Component) string {
	var b strings.Builder
	b.WriteString(`# Components

Made from the declarations in the code; do not edit.

A **critical** component keeps the appliance from serving while it fails. Without an **optional** one the
appliance does what the last column says; its health is then ` + "`degraded`" + `. A **planned** one is not in
this version and harms nothing. ` + "`whisper-appliance components`" + ` shows how each is, and
` + "`/health/detailed`" + ` says it to programs.

| component | sort | needs | what it is for | how it is checked | without it |
|---|---|---|---|---|---|
`)
	for _, c := range list {
		checked := c.Checked
		if checked != "" && c.Check != nil {
			checked += fmt.Sprintf(", every %v", c.every())
		}
		without := c.Without
		if c.Planned != "" {
			without = strings.TrimPrefix(without+"; "+c.Planned, "; ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", c.Name, class(c), cell(strings.Join(c.Needs, ", ")),
			cell(c.Does), cell(checked), cell(without))
	}
	b.WriteString("\nAn arrow points to what is needed; those of one level start at once.\n\n```mermaid\n" + mermaid(list) + "```\n")
	return b.String()
}

// cell makes s fit a cell of a table.
func cell(s string) string {
	if s == "" {
		return "–"
	}
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s)
}
