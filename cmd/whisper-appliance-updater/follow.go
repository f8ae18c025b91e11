package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/term"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// following shows on a terminal how work goes.
func (a *app) following(ctx context.Context, work func(context.Context) error) error {
	f, isFile := a.errOut.(*os.File)
	// apt gives its scripts a terminal, and keeps what they write there.
	if a.jsonOut || a.door == string(deployment.DoorDpkg) || !isFile || !term.IsTerminal(int(f.Fd())) {
		return work(ctx)
	}
	show, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.ticker(show)
	}()
	err := work(ctx)
	stop()
	<-done
	return err
}

// ticker keeps one line of a terminal up to date until ctx ends.
func (a *app) ticker(ctx context.Context) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	defer fmt.Fprint(a.errOut, "\r\033[K")
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s, err := deployment.ReadStatus(a.paths.UpdaterRun); err == nil && s.PID != 0 {
			fmt.Fprintf(a.errOut, "\r\033[K%s: %s", doingWords(s), firstOf(s.Message))
		}
	}
}

// watch gives the status whenever it changes to show, until over says so or ctx
// ends.
func (a *app) watch(ctx context.Context, show func(s deployment.Status, words string) error, over func(deployment.Status) bool) error {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	last := ""
	for {
		s, err := deployment.ReadStatus(a.paths.UpdaterRun)
		if err != nil {
			return err
		}
		if now := doingWords(s) + ": " + firstOf(s.Message); now != last {
			last = now
			if err := show(s, now); err != nil {
				return err
			}
		}
		if over(s) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// printChange prints a line for a status.
func (a *app) printChange(s deployment.Status, words string) error {
	if a.jsonOut {
		return a.unread(json.NewEncoder(a.out).Encode(s))
	}
	_, err := fmt.Fprintln(a.out, time.Now().Format("15:04:05"), words)
	return a.unread(err)
}

// recordLimit is for how long a transaction that has ended may be without its
// record: it is written a moment later.
const recordLimit = 10 * time.Second

// waitForTrial waits for the end of a transaction's trial and says how it ended.
func (a *app) waitForTrial(ctx context.Context, transaction string) error {
	var record *deployment.Record
	var failed error
	var gone time.Time
	over := func(s deployment.Status) bool {
		if s.Transaction == transaction {
			return false
		}
		record, failed = a.recordOf(transaction)
		if gone.IsZero() {
			gone = time.Now()
		}
		return record != nil || failed != nil || time.Since(gone) > recordLimit
	}
	show := a.printChange
	if a.jsonOut { // it prints one document
		show = func(deployment.Status, string) error { return nil }
	}
	if err := a.watch(ctx, show, over); err != nil {
		return err
	}
	switch {
	case failed != nil:
		return failed
	case record != nil:
		return a.ended(*record)
	case ctx.Err() != nil:
		return fault.New(fault.Canceled, "canceled", "not waited for; the trial goes on").Try("`whisper-appliance update status --watch` shows how it goes")
	}
	return errors.New("the trial has ended, and there is no record of it")
}

// recordOf is the record of a transaction, nil where there is none yet.
func (a *app) recordOf(transaction string) (*deployment.Record, error) {
	records, err := deployment.Records(a.paths.Updater, 20)
	for i, r := range records {
		if r.Transaction == transaction {
			return &records[i], nil
		}
	}
	return nil, err
}

// ended says how a trial ended.
func (a *app) ended(r deployment.Record) error {
	if r.Outcome == deployment.Committed || r.Outcome == deployment.Kept {
		return a.print(r, recordLine(r))
	}
	hint := cmp.Or(r.Hint, "`whisper-appliance update history` has the evidence")
	if r.Outcome == deployment.Failed {
		return fault.New(fault.Unavailable, slot.NotServing, "version %s failed, and so did the way back: %s", r.To.Version, r.Says).Try("%s", hint)
	}
	return fault.New(fault.Unavailable, cmp.Or(r.Reason, r.Outcome), "version %s was taken back: %s", r.To.Version, r.Says).Try("%s", hint)
}
