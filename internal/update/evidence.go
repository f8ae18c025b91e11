package update

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
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
	if u.Site.Evidence == nil || !puzzling(*r) {
		return
	}
	dir := filepath.Join(u.Dir, evidenceDir, r.Transaction)
	ctx, cancel := context.WithTimeout(context.Background(), evidenceLimit)
	defer cancel()
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = u.Site.Evidence(ctx, dir, r.Started)
	}
	if err := errors.Join(err, u.trimEvidence(r.Transaction)); err != nil {
		u.Log.Warn("not all evidence could be kept", "error", err)
	}
	r.Bundle = dir
}

// puzzling tells a failure that may need more than its record to be understood.
// What somebody wanted needs none, nor what was refused before it ever ran.
func puzzling(r deployment.Record) bool {
	switch r.Outcome {
	case deployment.Committed, deployment.Kept:
		return false
	case deployment.Aborted:
		return r.Blame != deployment.Operator && r.Blame != deployment.Configuration
	}
	return r.Blame != deployment.Operator
}

// trimEvidence keeps the evidence of the transaction at hand and of the newest
// before it. What is new the record says: the clock may have been wrong.
func (u *Updater) trimEvidence(transaction string) error {
	home := filepath.Join(u.Dir, evidenceDir)
	entries, err := os.ReadDir(home)
	if err != nil || len(entries) <= mostBundles {
		return err
	}
	records, err := deployment.Records(u.Dir, 0) // the newest first
	if err != nil {
		return err
	}
	newest := map[string]int{transaction: 0}
	for i, r := range records {
		if _, known := newest[r.Transaction]; !known {
			newest[r.Transaction] = i + 1
		}
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return cmp.Compare(age(newest, a), age(newest, b)) })
	var errs []error
	for _, e := range entries[mostBundles:] {
		errs = append(errs, os.RemoveAll(filepath.Join(home, e.Name())))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove old evidence: %w", err)
	}
	return nil
}

// age is the place of a transaction's evidence among the newest; what the record
// has forgotten is the oldest.
func age(newest map[string]int, e os.DirEntry) int {
	if i, known := newest[e.Name()]; known {
		return i
	}
	return math.MaxInt
}
