package diagnose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
)

// Units is what systemd is asked, as *systemd.Bus answers it.
type Units interface {
	// Units looks at units, in the order asked for.
	Units(ctx context.Context, names ...string) ([]systemd.Unit, error)
	// Effective gives a unit's sandbox settings, drop-ins counted in.
	Effective(ctx context.Context, unit string) (map[string]string, error)
	// Manager is systemd itself.
	Manager(ctx context.Context) (systemd.Manager, error)
}

// JSON is a part's Make of a document that is at hand.
func JSON[T any](make func(ctx context.Context) (T, error)) func(ctx context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		v, err := make(ctx)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(v)
		return b.Bytes(), err
	}
}

// Release is a slot and what lies in it.
type Release struct {
	Name  string `json:"name"` // "a", "b" or "golden"
	Link  string `json:"link,omitempty"`
	Error string `json:"error,omitempty"`
	slot.Info
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Versions are this program's and those of the slots.
type Versions struct {
	Program version.Info `json:"program"`
	Slots   []Release    `json:"slots"`
	Current string       `json:"current,omitempty"`
	Stable  string       `json:"stable,omitempty"`
}

// VersionsOf reads the slots' manifests.
func VersionsOf(p paths.Paths) Versions {
	v := Versions{Program: version.Build(), Slots: []Release{}}
	if p.Kind != paths.Installed {
		return v
	}
	v.Current, _ = os.Readlink(p.Current) //nolint:errcheck // "" where there is none
	v.Stable, _ = os.Readlink(p.Stable)   //nolint:errcheck // "" where there is none
	for _, name := range []string{slot.A, slot.B, slot.Golden} {
		dir := filepath.Join(p.Slots, name)
		r := Release{Name: name}
		r.Link, _ = os.Readlink(dir) //nolint:errcheck // "" where it is none
		m, err := slot.Read(dir)
		if err != nil {
			r.Error = err.Error()
		}
		r.Info, r.Files, r.Bytes = m.Info, len(m.Files), m.Size()
		v.Slots = append(v.Slots, r)
	}
	return v
}

// UnitsPart is a part's Make: systemd, our units with their settings.
func UnitsPart(units Units) func(ctx context.Context) ([]byte, error) {
	type unit struct {
		systemd.Unit
		Settings map[string]string `json:"settings,omitempty"`
	}
	type answer struct {
		Manager systemd.Manager `json:"manager"`
		Units   []unit          `json:"units"`
	}
	return JSON(func(ctx context.Context) (a answer, err error) {
		if a.Manager, err = units.Manager(ctx); err != nil {
			return a, err
		}
		list, err := units.Units(ctx, systemd.Ours()...)
		if err != nil {
			return a, err
		}
		for _, u := range list {
			with := unit{Unit: u}
			if strings.HasSuffix(u.Name, ".service") && u.Load == "loaded" {
				with.Settings, _ = units.Effective(ctx, u.Name) //nolint:errcheck // the unit alone is of use, too
			}
			a.Units = append(a.Units, with)
		}
		return a, nil
	})
}

// DropIns is a part's Make: the drop-ins of administrators and of doctor.
func DropIns(dir string) func(ctx context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		files, err := dropIns(dir)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		for _, file := range files {
			data, err := durable.ReadRegular(file, partBytes)
			if err != nil {
				data = []byte(err.Error() + "\n")
			}
			fmt.Fprintf(&b, "==> %s\n%s\n", file, data)
		}
		if len(files) == 0 {
			b.WriteString("there are none\n")
		}
		return b.Bytes(), nil
	}
}

// dropIns are the files that change our units, slice and all.
func dropIns(dir string) ([]string, error) {
	units, err := paths.OurUnits(dir)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, unit := range units {
		files, err := filepath.Glob(filepath.Join(unit, "*.conf")) // of a file that is no directory: none
		if err != nil {
			return nil, err
		}
		list = append(list, files...)
	}
	return list, nil
}

// Settings is a report without the names of this machine and without the
// values that could not be anybody else's business.
func Settings(r *config.Report) *config.Report {
	clean := &config.Report{Notes: r.Notes}
	for _, v := range r.Values {
		if v.Key == "tls.names" || v.Key == "auth.trusted_proxies" {
			v.Value = removed
		}
		clean.Values = append(clean.Values, v)
	}
	return clean
}

// Machine is a part's Make: kernel, distribution, memory, pressure, disks.
func Machine(p paths.Paths) func(ctx context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		root := filepath.Dir(p.Proc)
		var b bytes.Buffer
		for _, file := range []string{
			filepath.Join(p.Proc, "sys", "kernel", "osrelease"), filepath.Join(root, "etc", "os-release"),
			filepath.Join(p.Proc, "uptime"), filepath.Join(p.Proc, "loadavg"), filepath.Join(p.Proc, "meminfo"),
			filepath.Join(p.Proc, "pressure", "cpu"), filepath.Join(p.Proc, "pressure", "io"), filepath.Join(p.Proc, "pressure", "memory"),
		} {
			data, err := os.ReadFile(file)
			if err != nil {
				data = []byte("not available: " + err.Error() + "\n")
			}
			fmt.Fprintf(&b, "==> %s\n%s\n", file, data)
		}
		fmt.Fprintf(&b, "==> disks and what lies on them\n")
		for _, dir := range []string{p.State, p.Models, p.Spool, p.Pending, p.Cache, p.Slots, p.Updater, os.TempDir()} {
			if dir != "" {
				fmt.Fprintln(&b, usage(dir))
			}
		}
		return b.Bytes(), nil
	}
}

// most bounds how many files usage counts.
const most = 100_000

// usage is what a directory holds, in a line, without a name of what is in it.
func usage(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return dir + ": " + err.Error()
	}
	files, size := 0, int64(0)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be read is not counted
		}
		if info, err := d.Info(); err == nil {
			size += info.Size()
		}
		if files++; files == most {
			return errors.New("and more")
		}
		return nil
	})
	note := ""
	if err != nil {
		note = " " + err.Error()
	}
	return fmt.Sprintf("%s: %d files of %d bytes%s; of the disk %d bytes are free, of %d; inodes %d of %d",
		dir, files, size, note, st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize), st.Ffree, st.Files)
}
