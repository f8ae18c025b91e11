package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"whisper-appliance/internal/systemd"
)

// modelsElsewhere gives the drop-ins that a directory of models outside the
// state directory takes: the server and housekeeping write there, and the
// engine, which is told of one directory only, finds it there.
func (d *Doctor) modelsElsewhere(ctx context.Context, p plan) ([]dropIn, []Finding) {
	dir := ""
	if d.Settings != nil && !within(d.Settings.Models.Directory, d.Paths.State) {
		dir = filepath.Clean(d.Settings.Models.Directory)
	}
	services, err := d.services()
	if err != nil || d.Settings == nil {
		return nil, nil // plan has said it; wrong settings change no drop-in
	}
	var list []dropIn
	var found []Finding
	for _, s := range services {
		in := dropIn{unit: s.name, file: modelsDropIn}
		if set, needs := modelsSetting(s, dir, d.Paths.Models); needs {
			if f := d.reaches(ctx, p, s, set); f.Says != "" {
				found = append(found, f)
			} else {
				in.why = []string{"[models] directory is " + dir}
				in.settings = d.instead(s, set)
			}
		}
		list = append(list, in)
	}
	return list, found
}

// within tells whether dir is "" or below parent.
func within(dir, parent string) bool {
	return dir == "" || strings.HasPrefix(filepath.Clean(dir)+"/", filepath.Clean(parent)+"/")
}

// modelsSetting is what a service needs to use the models in dir.
func modelsSetting(s service, dir, usual string) (systemd.Setting, bool) {
	switch {
	case dir == "":
		return systemd.Setting{}, false
	case strings.Contains(s.value("ExecStart"), usual):
		return systemd.Setting{Name: "BindReadOnlyPaths", Value: dir + ":" + usual}, true
	case s.value("StateDirectory") == filepath.Base(filepath.Dir(usual)):
		return systemd.Setting{Name: "ReadWritePaths", Value: dir}, true
	}
	return systemd.Setting{}, false
}

// reaches tries whether the service would come to the models so.
func (d *Doctor) reaches(ctx context.Context, p plan, s service, set systemd.Setting) Finding {
	if strings.ContainsAny(d.Settings.Models.Directory, " \t\n\"'\\%:$") {
		return problem("give the directory a name of letters, digits, dots and dashes",
			"[models] directory: %q cannot be written into a unit", d.Settings.Models.Directory)
	}
	_, rest := p.relaxation(s)
	proof := "test -w " + quoted(set.Value)
	settings := []systemd.Setting{set}
	for _, r := range rest {
		if r.Name == "ProtectSystem" || r.Name == "ProtectHome" || r.Name == "TemporaryFileSystem" {
			settings = append(settings, r)
		}
	}
	if set.Name == "BindReadOnlyPaths" {
		proof = "test -r " + quoted(d.Paths.Models)
	}
	applied, result, err := d.Mender.Probe(ctx, settings, "sh", "-c", proof)
	if err != nil || applied {
		return Finding{}
	}
	return problem(fmt.Sprintf("move the models below %s, or mount their disk there", d.Paths.State),
		"[models] directory: %s cannot reach %s on this machine (%s)", s.name, d.Settings.Models.Directory, result)
}

// instead is set as a drop-in has it. Of two mounts at one place systemd takes
// one, so the usual directory's goes.
func (d *Doctor) instead(s service, set systemd.Setting) []systemd.Setting {
	if set.Name != "BindReadOnlyPaths" {
		return []systemd.Setting{set}
	}
	binds := slices.DeleteFunc(strings.Fields(s.value(set.Name)), func(word string) bool {
		return strings.TrimPrefix(word, "-") == d.Paths.Models
	})
	set.Value = strings.Join(append(binds, set.Value), " ")
	return []systemd.Setting{{Name: set.Name}, set}
}

// quoted is a path for a shell.
func quoted(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }
