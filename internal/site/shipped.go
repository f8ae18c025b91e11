package site

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
)

// oddity is a setting in which a unit is not what the package's is.
type oddity struct {
	directive string
	says      string
	machine   bool // the machine may demand it of every service
}

// oddities are those on which a switch relies: it hears from systemd when a
// server is ready and that it hangs, and two servers share their files and what
// they may do. All else is the administrator's to set. Of a unit that does not
// run systemd does not tell the watchdog.
func oddities(u systemd.Unit) []oddity {
	if u.Run == nil {
		return nil // nobody knows
	}
	var list []oddity
	odd := func(is bool, o oddity) {
		if is {
			list = append(list, o)
		}
	}
	odd(!strings.HasPrefix(u.Run.Type, "notify"), oddity{"Type", "Type=" + u.Run.Type + ", not notify", false})
	odd(u.Watchdog <= 0 && u.Active == "active", oddity{"WatchdogSec", "it has no watchdog", false})
	odd(slices.Contains([]string{"", "root", "0"}, u.Run.User), oddity{"User", "it runs as root", false})
	odd(!u.Run.NoNewPrivileges, oddity{"NoNewPrivileges", "NoNewPrivileges=no", true})
	odd(slices.Contains([]string{"", "no"}, u.Run.ProtectSystem), oddity{"ProtectSystem", "ProtectSystem=no", true})
	return list
}

// askLimit bounds a question to systemd whose answer is only wanted.
const askLimit = 5 * time.Second

// shipped is why a unit is not what the package's is, as far as a switch relies
// on that, with the file in which somebody has changed it. What doctor has relaxed
// because the machine cannot do it, or the machine's own container says of all
// services, is told and let be. Where systemd does not tell what the unit is,
// nothing is known against it.
func (m *Machine) shipped(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	u, err := m.known(ctx, unit)
	if err != nil {
		m.Log.Warn("whether a unit is as the package has it is not known", "unit", unit, "error", err)
		return nil
	}
	if u.Load == "bad-setting" || u.Load == "error" {
		return edited(u, []string{"systemd cannot read it"}, m.foreign(u))
	}
	odd := oddities(u)
	if len(odd) == 0 { // as always: no file is looked at
		return nil
	}
	var says, files []string
	foreign := m.foreign(u)
	for _, o := range odd {
		file := setIn(u, foreign, o.directive)
		if file == "" || o.machine && forced(file) {
			m.Log.Warn("a unit is not as the package has it", "unit", unit, "setting", o.says, "file", file)
			continue
		}
		says = append(says, o.says)
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	if len(says) == 0 {
		return nil
	}
	return edited(u, says, files)
}

func edited(u systemd.Unit, says, files []string) error {
	where := "see `systemctl cat " + u.Name + "`"
	if len(files) > 0 {
		where = "take that out of " + strings.Join(files, " and ")
	}
	return fault.New(fault.Conflict, slot.UnitEdited, "%s was changed, and no server can be switched with it: %s", u.Name, strings.Join(says, ", ")).
		Try("%s, then `systemctl daemon-reload`, and try again", where)
}

// setIn is the one of the files outside the package that gives a directive its
// value: the drop-in that is read last, or a unit file in place of the package's.
// It is "" where there is none.
func setIn(u systemd.Unit, foreign []string, directive string) string {
	for _, path := range slices.Backward(foreign) {
		if path == u.Fragment || sets(path, directive) {
			return path
		}
	}
	return ""
}

// foreign are the files of a unit that are not the package's, in the order in
// which they are read.
func (m *Machine) foreign(u systemd.Unit) []string {
	var list []string
	for _, path := range append([]string{u.Fragment}, u.DropIns...) {
		if path != "" && !m.isShipped(path) {
			list = append(list, path)
		}
	}
	return list
}

// isShipped tells a file in the package's directory of units, which systemd may
// know by another name, as /lib.
func (m *Machine) isShipped(path string) bool {
	dir := filepath.Dir(path)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return dir == m.Paths.Shipped || filepath.Dir(dir) == m.Paths.Shipped
}

// sets tells whether a drop-in gives a directive a value.
func sets(path, directive string) bool {
	for line := range strings.Lines(content(path)) {
		name, _, found := strings.Cut(line, "=")
		if found && strings.TrimSpace(name) == directive {
			return true
		}
	}
	return false
}

// forced tells a drop-in that says what the machine can do: doctor's, which has
// tried it, and one that is for all services.
func forced(path string) bool {
	return filepath.Base(filepath.Dir(path)) == "service.d" || strings.HasPrefix(content(path), doctorsMark)
}

// doctorsMark begins the drop-ins that `whisper-appliance doctor --fix` writes.
const doctorsMark = "# Written by `whisper-appliance doctor --fix`"

// content of a small file of an administrator's, who may have linked it; "" where
// it cannot be read.
func content(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return ""
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}
