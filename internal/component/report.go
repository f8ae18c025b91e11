package component

import (
	"context"
	"log/slog"
	"strings"
)

// Message ids of the records, as journalctl knows them: MESSAGE_ID=….
const (
	MessageFailed    = "8c3f0d5a6b7e4f2e9a41d2c7b95e1f60"
	MessageRecovered = "41e7a9c20f5d4b6c8d13a6f0c2987b5e"
)

// report logs a failure once for as long as it lasts, and its end.
func (r *Registry) report(p *part, said, now State, err error) {
	switch {
	case now.Status == Failed && !same(said, now):
		r.log.LogAttrs(context.Background(), slog.LevelError, "component failed", r.attrs(p, MessageFailed,
			slog.Any("error", err), slog.String("code", now.Code), slog.String("hint", now.Hint),
			slog.String("search_paths", strings.Join(p.Search, ":")), slog.Bool("critical", p.Critical),
			slog.String("without", p.Without), slog.String("stops", strings.Join(r.dependents(p.Name), " ")))...)
	case now.Status == OK && said.Status == Failed:
		r.log.LogAttrs(context.Background(), slog.LevelInfo, "component recovered", r.attrs(p, MessageRecovered,
			slog.Duration("after", now.Since.Sub(said.Since)))...)
	}
}

// same reports whether the failure is the one that was logged. A fault is the
// same while its code is: its words may count the bytes that are free.
func same(said, now State) bool {
	return said.Code == now.Code && (now.Code != CodeFailed || said.Error == now.Error)
}

func (r *Registry) attrs(p *part, message string, more ...slog.Attr) []slog.Attr {
	attrs := append([]slog.Attr{slog.String("component", p.Name)}, more...)
	return append(append(attrs, slog.String("message_id", message)), r.context...)
}

// dependents are the components that are not started without name.
func (r *Registry) dependents(name string) []string {
	stopped := map[string]bool{name: true}
	var all []string
	for _, level := range Levels(r.list) {
		for _, candidate := range level {
			c, _ := find(r.list, candidate)
			for _, need := range c.Needs {
				if stopped[need] && !stopped[candidate] {
					stopped[candidate] = true
					all = append(all, candidate)
				}
			}
		}
	}
	return all
}
