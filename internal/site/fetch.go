package site

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/fetch"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/update"
)

const (
	requestFile = "request.json"
	resultFile  = "result.json"
	mostResult  = 1 << 20 // bytes
)

// fetch has the fetcher's unit do what o says, and reads from its directory how
// that went. What it says is for people: what it has brought is verified anew.
func (m *Machine) fetch(ctx context.Context, o update.Order, progress func(done int64)) error {
	data, err := json.Marshal(fetch.Request{Sources: o.Sources, Target: o.Target, Most: o.Rate})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.Paths.UpdaterRun, 0o755); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(m.Paths.UpdaterRun, requestFile), data, 0o644); err != nil {
		return err
	}
	began := time.Now().Truncate(time.Second)
	done := make(chan struct{})
	follow, stop := context.WithCancel(ctx)
	go func() {
		defer close(done)
		m.follow(follow, o.Target, progress)
	}()
	err = m.bus.Start(ctx, systemd.Fetch)
	stop()
	<-done
	if ctx.Err() != nil {
		m.bus.Stop(context.WithoutCancel(ctx), systemd.Fetch) //nolint:errcheck // it has a time limit of its own
		return context.Cause(ctx)
	}
	return m.fetched(began, err)
}

// fetched reads how a fetch that began then has ended.
func (m *Machine) fetched(began time.Time, started error) error {
	var r fetch.Result
	data, err := durable.ReadRegular(filepath.Join(m.Paths.Fetched, resultFile), mostResult)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	switch {
	case err != nil || r.At.Before(began) && started != nil:
		return fault.New(fault.Unavailable, "fetcher_failed", "the fetcher did not do its work").Because(errors.Join(started, err)).
			Try("`journalctl -u %s -n 30` says why", systemd.Fetch)
	case r.Error == nil:
		return nil
	}
	return fault.New(kindOf(r.Error.Code), r.Error.Code, "%s", r.Error.Message).Try("%s", r.Error.Hint)
}

// kindOf is the kind of the fetcher's faults, which it tells by their codes.
func kindOf(code string) fault.Kind {
	switch code {
	case "disk_full":
		return fault.NoSpace
	case "fetch_busy":
		return fault.Busy
	case "artefact_damaged", "bad_signature", "metadata_rolled_back", "mix_and_match", "bad_metadata", "bad_source", "bad_request", "bad_target":
		return fault.BadInput
	}
	return fault.Unavailable
}

// follow tells how much of a target is there, until ctx ends.
func (m *Machine) follow(ctx context.Context, target string, progress func(done int64)) {
	if target == "" || progress == nil {
		return
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	parts := filepath.Join(m.Paths.Fetched, "repository", "targets", "*"+target+"*")
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		names, _ := filepath.Glob(parts) //nolint:errcheck // the pattern is sound
		for _, name := range names {
			if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() {
				progress(info.Size())
			}
		}
	}
}
