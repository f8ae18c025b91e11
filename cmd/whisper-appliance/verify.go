package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
)

// verified is what verify has found.
type verified struct {
	Path        string            `json:"path"`
	Version     string            `json:"version"`
	Commit      string            `json:"commit"`
	Files       int               `json:"files"`
	Bytes       int64             `json:"bytes"`
	Differences []slot.Difference `json:"differences"`
	Package     []slot.Difference `json:"package"` // of the package's files outside the slots, with full paths
}

func verifyCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "verify [SLOT|DIR]",
		Short: "Compare every file of a release with its manifest",
		Long: "Compare every file of a release with its manifest: what is missing, what is there and should not be,\n" +
			"sizes, modes, digests, owners. Without an argument it is the release that serves.",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: []cobra.Completion{slot.A, slot.B, slot.Golden},
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := a.releaseDir(args)
			if err != nil {
				return err
			}
			v, err := a.verifyRelease(c.Context(), dir)
			if err != nil {
				return err
			}
			if a.jsonOut {
				err = a.printJSON(v)
			} else {
				err = a.printVerified(v)
			}
			if n := len(v.Differences) + len(v.Package); err == nil && n > 0 {
				err = fault.New(fault.Internal, "differences", "%s is not as it was made: %d differences", dir, n).
					Try("`apt reinstall whisper-appliance` brings the package's files again, and deploys them")
			}
			return err
		},
	}
	a.jsonFlag(c)
	return c
}

// releaseDir is the directory that is meant: a slot's, the one named, or that
// of the release that serves.
func (a *app) releaseDir(args []string) (string, error) {
	if a.paths.Slots == "" {
		return append(args, a.paths.Slot)[0], nil
	}
	s, err := a.slots()
	if err != nil {
		return "", err
	}
	if len(args) > 0 {
		if args[0] == slot.A || args[0] == slot.B || args[0] == slot.Golden {
			return s.Path(args[0]), nil
		}
		return args[0], nil
	}
	name, err := s.Serving()
	if err != nil || name == "" {
		return a.paths.Slot, err
	}
	return s.Path(name), nil
}

// verifyRelease looks at dir, and on an installed appliance at owners too; the
// package's own program looks at the package's other files as well.
func (a *app) verifyRelease(ctx context.Context, dir string) (verified, error) {
	m := a.meter(a.jsonOut)
	defer m.clear()
	installed := a.paths.Slots != ""
	diffs, manifest, err := slot.Verify(ctx, dir, slot.Check{
		Owned:    installed,
		Progress: func(done, total int64) { m.show("%s of %s", fault.Bytes(done), fault.Bytes(total)) },
	})
	v := verified{
		Path: dir, Version: manifest.Version, Commit: manifest.Commit, Files: len(manifest.Files), Bytes: manifest.Size(),
		Differences: append([]slot.Difference{}, diffs...), Package: []slot.Difference{},
	}
	if err == nil && installed && a.paths.SlotName == slot.Golden {
		v.Package, err = a.packageFiles()
	}
	return v, err
}

func (a *app) printVerified(v verified) error {
	for _, d := range slices.Concat(v.Differences, v.Package) {
		fmt.Fprintln(a.out, d)
	}
	if len(v.Differences)+len(v.Package) > 0 {
		return nil
	}
	_, err := fmt.Fprintf(a.out, "%s is whole: version %s (commit %s), %d files, %s\n", v.Path, v.Version, v.Commit, v.Files, fault.Bytes(v.Bytes))
	return err
}

// packageFiles looks at what root runs and what systemd reads: who could write
// those would be root. What they hold is dpkg's to verify.
func (a *app) packageFiles() ([]slot.Difference, error) {
	units, err := paths.OurUnits(a.paths.Shipped)
	if err != nil {
		return nil, err
	}
	diffs := []slot.Difference{}
	for _, root := range slices.Concat(a.paths.Package, units) {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				diffs = append(diffs, slot.Difference{Path: path, What: slot.Missing})
				return nil
			case err != nil:
				return err
			case path == a.paths.Golden: // has its manifest
				return fs.SkipDir
			}
			d, err := safeFile(path)
			diffs = append(diffs, d...)
			return err
		})
		if err != nil {
			return diffs, fmt.Errorf("verify %s: %w", root, err)
		}
	}
	return diffs, nil
}

// safeFile says where others than root may change a file.
func safeFile(path string) (diffs []slot.Difference, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
		diffs = append(diffs, slot.Difference{Path: path, What: slot.Owner, Want: "root", Got: "uid " + strconv.FormatUint(uint64(st.Uid), 10)})
	}
	if mode := info.Mode(); mode&fs.ModeSymlink == 0 && mode&0o022 != 0 {
		diffs = append(diffs, slot.Difference{Path: path, What: slot.Mode, Want: "not writable by others", Got: mode.String()})
	}
	return diffs, nil
}
