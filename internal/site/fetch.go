package site

import (
	"bytes"
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
	resultFile = "result.json"
	mostResult = 1 << 20 // bytes
	mostWords  = 500     // bytes of what the fetcher says

	// metadataSlack is what the fetcher may take beside its sources' time.
	metadataSlack = 30 * time.Second
	// fetchLimit is longer than the fetcher's unit may take.
	fetchLimit = 6*time.Hour + 5*time.Minute
	// stopLimit is longer than the unit may take to stop.
	stopLimit = 30 * time.Second
)

// fetch has the fetcher's unit do what o says, and reads from its directory how
// that went. What it says is for people: what it has brought is verified anew.
func (m *Machine) fetch(ctx context.Context, o update.Order, progress func(done int64)) error {
	// One that a killed updater has left works on another order, and to start it
	// would be to wait for that.
	if err := m.stopFetcher(ctx); err != nil {
		return err
	}
	if err := m.order(o); err != nil {
		return err
	}
	before := m.result()
	done := make(chan struct{})
	follow, stop := context.WithCancel(ctx)
	go func() {
		defer close(done)
		m.follow(follow, o, progress)
	}()
	limited, cancel := context.WithTimeout(ctx, limitOf(o))
	defer cancel()
	started := m.bus.Start(limited, systemd.Fetch)
	stop()
	<-done
	if limited.Err() != nil {
		m.stopFetcher(context.WithoutCancel(ctx)) //nolint:errcheck // it has a time limit of its own
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fetched(o.Target, before, m.result(), started)
}

// limitOf is for how long an order is waited for; a look holds the updater's lock
// meanwhile:
// that the fetcher keeps to its own limits is not relied on.
func limitOf(o update.Order) time.Duration {
	if o.Target == "" {
		return time.Duration(len(o.Sources))*fetch.MetadataLimit + metadataSlack
	}
	return fetchLimit
}

func (m *Machine) stopFetcher(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	return m.bus.Stop(ctx, systemd.Fetch)
}

// order writes what the fetcher is to do. A source may have a password in it:
// the directory gives the file to the fetcher's group, by its set-group-ID bit,
// and what it has not done is no secret's place.
func (m *Machine) order(o update.Order) error {
	data, err := json.Marshal(fetch.Request{Sources: o.Sources, Target: o.Target, Most: o.Rate})
	if err != nil {
		return err
	}
	path := m.Paths.Order()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	mode := os.FileMode(0o640)
	if info.Mode()&os.ModeSetgid == 0 {
		mode = 0o644
		for _, source := range o.Sources {
			if fault.Address(source) != source {
				return fault.New(fault.Conflict, "open_order", "the source %s has a password in it, and everybody could read the order in %s", fault.Short(fault.Address(source)), filepath.Dir(path)).
					On("update.sources").Try("`apt reinstall whisper-appliance` makes the directory the fetcher's alone")
			}
		}
	}
	return durable.WriteFile(path, data, mode)
}

// result is what the fetcher has written last, nil where nothing can be read.
func (m *Machine) result() []byte {
	data, err := durable.ReadForeign(filepath.Join(m.Paths.Fetched, resultFile), mostResult)
	if err != nil {
		return nil
	}
	return data
}

// fetched is how a fetch has ended that found the result before and left the
// result after. They tell an old result from a new one by any clock.
func fetched(target string, before, after []byte, started error) error {
	var r fetch.Result
	err := errors.New("it has left no new result")
	if after != nil && !bytes.Equal(before, after) {
		err = json.Unmarshal(after, &r)
	}
	if err == nil && r.Target != target {
		err = errors.New("its result is of another order")
	}
	switch {
	case err != nil:
		return fault.New(fault.Unavailable, "fetcher_failed", "the fetcher did not do its work").Because(errors.Join(started, err)).
			Try("`journalctl -u %s -n 30` says why", systemd.Fetch)
	case r.Error == nil:
		return nil
	}
	return said(*r.Error)
}

// said is the fetcher's failure as the fault that it was. Codes decide what
// becomes of a release, and the fetcher talks to strangers: it may say nothing
// but what a fetch can end with.
func said(f fetch.Failure) error {
	kind, known := kinds()[f.Code]
	if !known {
		kind, f.Code = fault.Unavailable, "fetcher_failed"
	}
	return fault.New(kind, f.Code, "%s", fault.Plain(f.Message, mostWords)).Try("%s", fault.Plain(f.Hint, mostWords))
}

// kinds are those of a fetch's codes. See fetch.Fetcher.Run.
func kinds() map[string]fault.Kind {
	return map[string]fault.Kind{
		"source_unreachable": fault.Unavailable, "source_refused": fault.Unavailable, "bad_redirect": fault.Unavailable,
		"too_slow": fault.Unavailable, "interrupted": fault.Unavailable, "fetch_busy": fault.Busy, "canceled": fault.Canceled,
		"artefact_missing": fault.Unavailable, "artefact_damaged": fault.BadInput, "no_metadata": fault.Unavailable,
		"bad_signature": fault.BadInput, "bad_metadata": fault.BadInput, "mix_and_match": fault.BadInput, "metadata_rolled_back": fault.BadInput,
		"no_source": fault.BadInput, "bad_source": fault.BadInput, "bad_request": fault.BadInput,
		"no_trust_root": fault.Conflict, "bad_trust_root": fault.Internal, "trust_unreadable": fault.Internal,
		"no_directory": fault.Conflict, "fetch_not_writable": fault.Internal, "disk_full": fault.NoSpace,
	}
}

// follow tells how much of the target is there, until ctx ends.
func (m *Machine) follow(ctx context.Context, o update.Order, progress func(done int64)) {
	if o.File == "" || progress == nil {
		return
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if there := m.there(o.File); there > 0 {
			progress(there)
		}
	}
}

const followEvery = 500 * time.Millisecond

// there is how much of a file the fetcher has: the whole, or the part that
// grows. Its directory is not listed: there may be anything in it, and any
// number.
func (m *Machine) there(file string) (most int64) {
	for _, name := range []string{file, file + ".part"} {
		info, err := os.Lstat(filepath.Join(m.Paths.Fetched, "repository", "targets", name))
		if err == nil && info.Mode().IsRegular() {
			most = max(most, info.Size())
		}
	}
	return most
}
