package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"whisper-appliance/internal/systemd"
)

// wanted are units that an administrator expects to find enabled; what is not
// is theirs to decide, and told.
func wanted() []string {
	return []string{systemd.Target, systemd.Socket, systemd.Path, systemd.HousekeepingTimer, systemd.Recover, systemd.UpdateTimer, systemd.ScrubTimer}
}

// units looks at every unit of the package.
func (d *Doctor) units(ctx context.Context) []Finding {
	if !d.installed() {
		return one(well("not run by systemd: this is no installed appliance"))
	}
	if d.Units == nil {
		return unseen("where systemd is the service manager: `systemctl status dbus`, and ask again as root", "%v", d.Bus)
	}
	names := slices.DeleteFunc(systemd.Ours(), func(n string) bool { return strings.Contains(n, "*") })
	units, err := d.Units.Units(ctx, names...)
	if err != nil {
		return unseen("systemctl status", "%v", err)
	}
	var found []Finding
	for _, u := range units {
		found = append(found, d.unit(u)...)
	}
	found = append(found, d.enabled(ctx)...)
	if Worst(found) == OK {
		found = append([]Finding{well("%d units, all loaded, none failed", len(units))}, found...)
	}
	return found
}

// unit judges one.
func (d *Doctor) unit(u systemd.Unit) []Finding {
	switch u.Load {
	case "loaded":
	case "masked":
		return one(advice(fmt.Sprintf("if it should run: `systemctl unmask %s`", u.Name), "%s is masked", u.Name))
	case "not-found":
		return one(problem("install the package again, then `systemctl daemon-reload`", "%s is not there", u.Name))
	default:
		return one(problem(fmt.Sprintf("`systemctl status %s` says why", u.Name), "%s cannot be loaded (%s)", u.Name, u.Load))
	}
	var found []Finding
	switch {
	case u.Active == "failed":
		found = append(found, problem(fmt.Sprintf("`journalctl -u %s -n 50` says why; then `systemctl reset-failed %s`", u.Name, u.Name),
			"%s has failed (%s)", u.Name, u.Result))
	case u.Sub == "auto-restart":
		found = append(found, problem(fmt.Sprintf("`journalctl -u %s -n 50` says why", u.Name),
			"%s is being started over and over, %d times so far", u.Name, u.Restarts))
	case u.Restarts > 0:
		found = append(found, advice(fmt.Sprintf("`journalctl -u %s` says why", u.Name), "%s was restarted %d times by systemd", u.Name, u.Restarts))
	}
	return append(found, d.files(u)...)
}

// files tells where a unit's settings come from.
func (d *Doctor) files(u systemd.Unit) []Finding {
	var found []Finding
	if u.Fragment != "" && !sameFile(u.Fragment, filepath.Join(d.Paths.Shipped, filepath.Base(u.Fragment))) {
		found = append(found, advice("see whether it is still needed: new versions of the unit do not reach it; `systemctl revert "+u.Name+"` takes it away",
			"%s is not the package's: %s stands in its place", u.Name, u.Fragment))
	}
	var others []string
	for _, path := range u.DropIns {
		if !d.shipped(path) && !isOurs(path) {
			others = append(others, path)
		}
	}
	if len(others) > 0 {
		found = append(found, well("%s has drop-ins of the administrator: %s", u.Name, strings.Join(others, " ")))
	}
	return found
}

// shipped tells whether the package brings a drop-in.
func (d *Doctor) shipped(path string) bool {
	return sameFile(path, filepath.Join(d.Paths.Shipped, filepath.Base(filepath.Dir(path)), filepath.Base(path)))
}

// sameFile compares what is behind two paths: Debian has names for the same
// directory that differ.
func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func (d *Doctor) enabled(ctx context.Context) []Finding {
	var found []Finding
	for _, name := range wanted() {
		state, err := d.Units.FileState(ctx, name)
		switch {
		case err != nil || strings.HasPrefix(state, "masked"): // said by unit
		case state != "enabled" && state != "enabled-runtime" && state != "static":
			found = append(found, advice("if it should: `systemctl enable "+name+"`", "%s does not start with the machine: it is %s", name, state))
		}
	}
	return found
}
