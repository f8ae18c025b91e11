package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/systemd"
)

// modelsElsewhere gives the drop-ins that a directory of models outside the
// state directory takes: the server and housekeeping write there, and the
// engine, which is told of one directory only, finds it there.
func (d *Doctor) modelsElsewhere(ctx context.Context, p plan) ([]dropIn, []Finding) {
	services, err := d.services()
	if err != nil || d.Settings == nil {
		return nil, nil // plan has said it; wrong settings change no drop-in
	}
	dir, found := d.elsewhere()
	var list []dropIn
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

// elsewhere is the directory of models that sandboxes are opened for, "" for
// none. Root writes the drop-ins, so only who may be root has a say: what page
// and CLI save, the server's user could have written.
func (d *Doctor) elsewhere() (dir string, found []Finding) {
	const key = "models.directory"
	given := d.Settings.Models.Directory
	if within(given, d.Paths.State) {
		return "", nil
	}
	if origin := d.Report.Origin(key); !d.administrators(origin) {
		return "", one(problem("set it in "+d.Paths.Config, "[models] directory = %q (%s): the units are opened for it only where the administrator's own file names it", given, origin))
	}
	if strings.ContainsAny(given, " \t\n\"'\\%:$") {
		return "", one(problem("give the directory a name of letters, digits, dots and dashes", "[models] directory: %q cannot be written into a unit", given))
	}
	if err := d.Paths.Grantable(given); err != nil {
		return "", one(problem(fault.Hint(err), "[models] directory: %v", err))
	}
	return filepath.Clean(given), nil
}

// administrators tells whether a setting comes from config.toml or config.d.
func (d *Doctor) administrators(origin string) bool {
	return strings.HasPrefix(origin, filepath.Base(d.Paths.Config)+":") ||
		strings.HasPrefix(origin, filepath.Base(d.Paths.ConfigDir)+string(filepath.Separator))
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

// reaches tries whether the service would come to the models so, with the
// rights that it has: root would come to anything.
func (d *Doctor) reaches(ctx context.Context, p plan, s service, set systemd.Setting) Finding {
	_, rest := p.relaxation(s)
	proof, user := "test -w "+quoted(set.Value), serverUser
	if set.Name == "BindReadOnlyPaths" {
		proof, user = "test -r "+quoted(d.Paths.Models), standIn(s.name)
	}
	settings := []systemd.Setting{set, {Name: "User", Value: user}}
	for _, r := range rest {
		if r.Name == "ProtectSystem" || r.Name == "ProtectHome" || r.Name == "TemporaryFileSystem" {
			settings = append(settings, r)
		}
	}
	applied, result, err := d.Mender.Probe(ctx, settings, "sh", "-c", proof)
	if err != nil || applied {
		return Finding{}
	}
	return problem(fmt.Sprintf("see that the user %s may use it; else move the models below %s, or mount their disk there", user, d.Paths.State),
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
