package paths

import (
	"path/filepath"

	"whisper-appliance/internal/fault"
)

// OurUnits gives the files and directories of dir that are named after our
// units: the units themselves, and the directories of their drop-ins.
func OurUnits(dir string) ([]string, error) {
	var list []string
	for _, pattern := range []string{product + "*", "whisperappliance.slice*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

// The system's own directories: those that nothing of ours is opened in, and
// those that hold what others have.
const (
	systemDirs = "/bin:/boot:/dev:/etc:/lib:/lib32:/lib64:/libx32:/proc:/root:/run:/sbin:/sys:/usr:/var/run"
	sharedDirs = "/:/home:/media:/mnt:/opt:/srv:/tmp:/var:/var/cache:/var/lib:/var/log:/var/spool:/var/tmp"
)

// Grantable is nil where a sandbox may be opened for a directory of the
// administrator's: it is none of the system's, and what must stay apart is
// neither in it nor around it. Links on the way to it count as what they point
// to. The error is a fault with the code "bad_place".
func (p Paths) Grantable(dir string) error {
	bad := func(why string) error {
		return fault.New(fault.BadInput, "bad_place", "%s %s", dir, why).Try("name a directory of its own, such as one on a disk for models")
	}
	if !filepath.IsAbs(dir) {
		return bad("is no full path, from the root")
	}
	real := resolved(dir)
	for _, system := range filepath.SplitList(systemDirs) {
		if atOrBelow(real, system) {
			return bad("is the system's")
		}
	}
	for _, shared := range filepath.SplitList(sharedDirs) {
		if real == shared {
			return bad("holds what others have")
		}
	}
	closed := []string{p.Run, p.Updater, p.UpdaterRun, p.Fetched, p.Shipped, p.DropIns, p.Golden, p.Slots, filepath.Dir(p.Config)}
	for _, ours := range append(closed, p.State, p.Cache) {
		if ours != "" && atOrBelow(ours, real) {
			return bad("holds the appliance's own " + ours)
		}
	}
	for _, ours := range closed {
		if ours != "" && atOrBelow(real, ours) {
			return bad("lies in the appliance's own " + ours)
		}
	}
	return nil
}

// resolved is path without links, as far as it is there.
func resolved(path string) string {
	path = filepath.Clean(path)
	there := existing(path)
	real, err := filepath.EvalSymlinks(there)
	if err != nil {
		return path
	}
	rest, err := filepath.Rel(there, path)
	if err != nil {
		return path
	}
	return filepath.Join(real, rest)
}

// atOrBelow reports whether path is dir or lies in it.
func atOrBelow(path, dir string) bool {
	_, below := within(path, dir)
	return path == dir || below
}
