package release

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

func good() Custom {
	return Custom{
		Version: "1.4.0", Channel: Stable, Arch: "amd64", Commit: "c0ffee", MinUpdater: "1.2.0", UnitContract: 1,
		Schema: Schema{Min: 1, Max: 3}, Unpacked: 1000, Files: 3, Rollout: 50, Notes: "What is new:\n\tless",
		Published: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC), Index: 7,
	}
}

func TestCheck(t *testing.T) {
	for what, change := range map[string]func(*Custom){
		"": func(*Custom) {}, "beta": func(c *Custom) { c.Channel = Beta }, "any updater": func(c *Custom) { c.MinUpdater = "" },
		"no database": func(c *Custom) { c.Schema = Schema{} }, "nobody": func(c *Custom) { c.Rollout = 0 }, "no notes": func(c *Custom) { c.Notes = "" },
		"most notes": func(c *Custom) { c.Notes = strings.Repeat("n", 4096) },
	} {
		c := good()
		if change(&c); c.Check() != nil {
			t.Errorf("%s: %v", what, c.Check())
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, test := range []struct {
		field  string
		change func(*Custom)
	}{
		{"version", func(c *Custom) { c.Version = "" }},
		{"version", func(c *Custom) { c.Version = "v1.4.0" }},
		{"version", func(c *Custom) { c.Version = "1.4" }},
		{"version", func(c *Custom) { c.Version = "1.4.0/../x" }},
		{"channel", func(c *Custom) { c.Channel = "Stable" }},
		{"arch", func(c *Custom) { c.Arch = "" }},
		{"arch", func(c *Custom) { c.Arch = "AMD64" }},
		{"arch", func(c *Custom) { c.Arch = strings.Repeat("a", 21) }},
		{"commit", func(c *Custom) { c.Commit = "" }},
		{"commit", func(c *Custom) { c.Commit = "a\nb" }},
		{"min_updater", func(c *Custom) { c.MinUpdater = "latest" }},
		{"unit_contract", func(c *Custom) { c.UnitContract = 0 }},
		{"schema", func(c *Custom) { c.Schema = Schema{Min: 3, Max: 2} }},
		{"schema", func(c *Custom) { c.Schema = Schema{Min: -1, Max: 2} }},
		{"unpacked", func(c *Custom) { c.Unpacked = 0 }},
		{"unpacked", func(c *Custom) { c.Unpacked = maxBytes + 1 }},
		{"files", func(c *Custom) { c.Files = 0 }},
		{"files", func(c *Custom) { c.Files = maxFiles + 1 }},
		{"rollout", func(c *Custom) { c.Rollout = 101 }},
		{"rollout", func(c *Custom) { c.Rollout = -1 }},
		{"notes", func(c *Custom) { c.Notes = strings.Repeat("n", 4097) }},
		{"notes", func(c *Custom) { c.Notes = "\x1b[2J" }},
		{"notes", func(c *Custom) { c.Notes = "\xff" }},
		{"notes", func(c *Custom) { c.Notes = "\u202enew" }},
		{"notes", func(c *Custom) { c.Notes = "\u009b2J" }},
		{"notes", func(c *Custom) { c.Notes = "one\rtwo" }},
		{"published", func(c *Custom) { c.Published = time.Time{} }},
		{"index", func(c *Custom) { c.Index = 0 }},
	} {
		c := good()
		test.change(&c)
		var f *fault.Error
		if err := c.Check(); !errors.As(err, &f) || f.Code != "bad_release_data" || f.Field != test.field || f.Hint == "" || f.Kind != fault.BadInput {
			t.Errorf("%s: %v", test.field, err)
		}
	}
}

// TestCustomJSON holds the names that stand in signed metadata.
func TestCustomJSON(t *testing.T) {
	data, err := json.Marshal(good())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"version":"1.4.0","channel":"stable","arch":"amd64","commit":"c0ffee","min_updater":"1.2.0","unit_contract":1,` +
		`"schema":{"min":1,"max":3},"unpacked":1000,"files":3,"rollout":50,"notes":"What is new:\n\tless","published":"2026-02-03T04:05:06Z","index":7}`
	if string(data) != want {
		t.Errorf("%s\nwant %s", data, want)
	}
	var back Custom
	if err := json.Unmarshal(data, &back); err != nil || back != good() {
		t.Errorf("%+v, %v", back, err)
	}
}
