package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/server"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/updaterd"
)

// updater is the updater as the doors see it: what it shows is read from its
// files, and what it is to do it is asked for over D-Bus.
type updater struct {
	*updaterd.Client
	paths paths.Paths
}

func newUpdater(p paths.Paths) *updater {
	return &updater{&updaterd.Client{Socket: paths.MachineAt("").SystemBus}, p}
}

// Status hides the Client's, which starts the updater, and is Now.
func (u *updater) Status() (deployment.Status, error) {
	return deployment.ReadStatus(u.paths.UpdaterRun)
}

func (u *updater) Now(ctx context.Context) (deployment.Status, error) { return u.Client.Status(ctx) }

func (u *updater) LastRestart() (deployment.Restart, error) {
	return deployment.ReadRestart(u.paths.UpdaterRun)
}

func (u *updater) Records(most int) ([]deployment.Record, error) {
	return deployment.Records(u.paths.Updater, most)
}

// Releases are those on this machine. One that cannot be read is no reason to
// hide the others.
func (u *updater) Releases() ([]server.KeptRelease, error) {
	var list []server.KeptRelease
	for _, name := range []string{slot.A, slot.B, slot.Golden} {
		dir := filepath.Join(u.paths.Slots, name)
		m, err := slot.Read(dir)
		if fault.KindOf(err) == fault.NotFound {
			continue
		}
		kept := server.KeptRelease{Slot: name, Path: dir}
		if info, serr := os.Stat(filepath.Join(dir, slot.ManifestName)); err == nil && serr == nil {
			kept.Version, kept.Placed, kept.Bytes = m.Version, info.ModTime(), m.Size()
		}
		list = append(list, kept)
	}
	return list, nil
}

// check is what the component updater looks at.
func (u *updater) check(ctx context.Context) (string, error) {
	if err := u.Reachable(ctx); err != nil {
		return "", err
	}
	s, err := u.Status()
	var f *fault.Error
	switch {
	case errors.As(err, &f) && f.Code == "no_status":
		return "not asked since the machine started", nil
	case err != nil:
		return "", err
	case s.Alarm != nil:
		return "", fault.New(fault.Unavailable, s.Alarm.Code, "%s", s.Alarm.Message).Try("%s", s.Alarm.Hint)
	}
	return fmt.Sprintf("%s: %s", s.State, s.Message), nil
}
