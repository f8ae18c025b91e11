package doctor

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestStandInsAreThere: a service that loses its dynamic user gets one that the
// package makes, engine and decoder none that owns anything; and no dynamic
// user is named as a static one, which systemd would take for it.
func TestStandInsAreThere(t *testing.T) {
	units := filepath.Join("..", "..", "units")
	homes := map[string]string{}
	for line := range strings.Lines(read(t, filepath.Join(units, "sysusers.conf"))) {
		if name, ok := strings.CutPrefix(line, "u "); ok {
			name, _, _ = strings.Cut(name, " ")
			if strings.Contains(line, ":") {
				t.Errorf("no user can be described so: %s", line)
			}
			fields := strings.Fields(line[strings.LastIndex(line, `"`)+1:])
			homes[name] = strings.Join(fields, " ")
		}
	}
	d := installed(t, &host{})
	d.Paths.Shipped = units
	services, err := d.services()
	if err != nil {
		t.Fatal(err)
	}
	dynamic := 0
	for _, s := range services {
		if !s.uses("DynamicUser") {
			continue
		}
		dynamic++
		user := standIn(s.name)
		home, there := homes[user]
		if !there {
			t.Errorf("%s would run as %s, which the package does not make", s.name, user)
		}
		if strings.Contains(s.name, "engine") || strings.Contains(s.name, "decode") {
			if user == serverUser || home != "/ -" {
				t.Errorf("%s would run as %s, at home in %q", s.name, user, home)
			}
		}
		// systemd takes what stands before the @ where no name is given.
		name := s.value("User")
		if name == "" {
			name, _, _ = strings.Cut(s.name, "@")
		}
		if _, clash := homes[name]; clash {
			t.Errorf("the dynamic user of %s is called as a static one: %s", s.name, name)
		}
	}
	if dynamic != 3 {
		t.Errorf("%d services have dynamic users, of %d", dynamic, len(services))
	}
}
