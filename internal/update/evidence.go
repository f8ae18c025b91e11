package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"whisper-appliance/internal/deployment"
)

const (
	evidenceDir   = "evidence"
	mostBundles   = 10
	evidenceLimit = 15 * time.Second
)

// keepEvidence puts beside the record of a failure what may explain it, while it
// can still be had: a directory of its own, of which the newest are kept. That
// it cannot be had is told, and is no reason to do anything else.
func (u *Updater) keepEvidence(r *deployment.Record) {
	if u.Site.Evidence == nil || r.Blame == deployment.Operator || r.Outcome == deployment.Committed || r.Outcome == deployment.Kept {
		return
	}
	dir := filepath.Join(u.Dir, evidenceDir, r.Transaction)
	ctx, cancel := context.WithTimeout(context.Background(), evidenceLimit)
	defer cancel()
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = u.Site.Evidence(ctx, dir, r.Started)
	}
	if err := errors.Join(err, u.trimEvidence()); err != nil {
		u.Log.Warn("not all evidence could be kept", "error", err)
	}
	r.Bundle = dir
}

func (u *Updater) trimEvidence() error {
	home := filepath.Join(u.Dir, evidenceDir)
	entries, err := os.ReadDir(home) // by name, which begins with the time
	if err != nil {
		return err
	}
	var errs []error
	for i := range len(entries) - mostBundles {
		errs = append(errs, os.RemoveAll(filepath.Join(home, entries[i].Name())))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove old evidence: %w", err)
	}
	return nil
}
