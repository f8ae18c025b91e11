package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
)

// PullOptions say where a model comes from. Zero values are defaults.
type PullOptions struct {
	// Sources are mirrors, asked in order before upstream: directories, or http
	// and https addresses of directories, with files named as upstream names them.
	Sources    []string
	NoUpstream bool           // ask the mirrors only
	Client     *http.Client   // nil = NewClient(); its CheckRedirect is replaced by this package's
	Progress   func(Progress) // nil = none
	Pause      time.Duration  // before the second attempt, doubled for each after it; 0 = 1 s
	Stall      time.Duration  // without a byte before an attempt is given up; 0 = 30 s
}

func (o PullOptions) withDefaults() PullOptions {
	if o.Client == nil {
		o.Client = NewClient()
	}
	client := *o.Client
	client.CheckRedirect = checkRedirect
	o.Client = &client
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.Stall == 0 {
		o.Stall = 30 * time.Second
	}
	return o
}

// Pull fetches a model of the catalogue: nothing where it is there and right,
// else from the first source that has it. A connection or a machine that breaks
// off leaves the beginning, with which the next Pull goes on; canceling ctx
// leaves nothing. The file gets its name after its size, structure and digest
// were found right.
//
// Faults: unknown_model (NotFound), model_busy (Conflict), disk_full (NoSpace),
// models_not_writable (Forbidden), download_failed (Unavailable), canceled
// (Canceled).
func (s *Store) Pull(ctx context.Context, name string, o PullOptions) (Result, error) {
	e, err := Lookup(name)
	if err != nil {
		return Result{}, err
	}
	return s.pull(ctx, e, o.withDefaults())
}

func (s *Store) pull(ctx context.Context, e Entry, o PullOptions) (Result, error) {
	m := newMeter(o.Progress)
	m.phase(Checking, 0, e.Size)
	release, err := s.lock(e.Name)
	if err != nil {
		return Result{}, err
	}
	defer release()
	r, err := s.pullLocked(ctx, e, o, m)
	if ctx.Err() != nil && err != nil {
		s.dropPartial(e.Name)
		return Result{}, stopped(ctx, err)
	}
	if err != nil {
		return Result{}, err
	}
	m.phase(Done, r.Report.Info.Size, r.Report.Info.Size)
	return r, nil
}

func (s *Store) pullLocked(ctx context.Context, e Entry, o PullOptions, m *meter) (Result, error) {
	r := Result{Name: e.Name, File: e.File()}
	if w := s.memoryWarning(e.Name, e.MemoryNeeded); w != "" {
		r.Warnings = append(r.Warnings, w)
	}
	if _, err := os.Stat(s.path(e.Name)); err == nil {
		r.Report, err = s.verifyInstalled(ctx, e, m)
		if err == nil {
			return r, nil
		}
		if fault.KindOf(err) != fault.BadInput {
			return Result{}, err
		}
		r.Warnings = append(r.Warnings, "the file that was there was damaged and has been replaced")
	}
	if err := s.checkDisk(e.Size - s.partialSize(e.Name)); err != nil {
		return Result{}, err
	}
	return s.fromSources(ctx, e, o, r, m)
}

func (s *Store) fromSources(ctx context.Context, e Entry, o PullOptions, r Result, m *meter) (Result, error) {
	sources := o.Sources
	if !o.NoUpstream {
		sources = append(sources[:len(sources):len(sources)], e.Hub)
	}
	var failed []string
	for _, source := range sources {
		got, err := s.fromSource(ctx, e, source, o, m)
		if err == nil {
			r.Source, r.Resumed, r.Report = got.Source, got.Resumed, got.Report
			return r, nil
		}
		if ctx.Err() != nil || isLocal(err) {
			return Result{}, err
		}
		failed = append(failed, fmt.Sprintf("%s: %v", source, err))
	}
	return Result{}, fault.New(fault.Unavailable, "download_failed", "%s could not be fetched", e.File()).
		Because(errors.New(strings.Join(failed, "; "))).
		Try("look at the connection, name a mirror with --from, or bring the file and use `whisper-appliance models import %s`", e.File())
}

// isLocal tells a failure of this machine, which no other source mends.
func isLocal(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.NoSpace || kind == fault.Forbidden || kind == fault.Internal
}

// fromSource fetches from one source, checks what came and puts it in its
// place. A file that was gone on with and is wrong in the end is fetched once
// more as a whole: a power cut may have spoiled its beginning.
func (s *Store) fromSource(ctx context.Context, e Entry, source string, o PullOptions, m *meter) (Result, error) {
	r, err := s.fetch(ctx, e, source, o, m)
	if err != nil && r.Resumed > 0 && fault.KindOf(err) == fault.BadInput {
		return s.fetch(ctx, e, source, o, m)
	}
	return r, err
}

func (s *Store) fetch(ctx context.Context, e Entry, source string, o PullOptions, m *meter) (Result, error) {
	f, err := os.OpenFile(s.path(e.Name)+partialSuffix, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return Result{}, s.cannotWrite(err)
	}
	defer f.Close()
	r, err := s.receive(ctx, e, source, f, o, m)
	if err != nil {
		s.dropUseless(e.Name, err)
		return r, err
	}
	if r.Report, err = s.verify(ctx, e, f.Name(), m); err != nil {
		s.dropPartial(e.Name)
		return r, err
	}
	rec := record{SHA256: r.Report.SHA256, Source: r.Source, Installed: time.Now().UTC()}
	if err := s.publish(f, e.Name, rec); err != nil {
		return r, err
	}
	s.dropPartial(e.Name)
	return r, nil
}

// receive fills f from source.
func (s *Store) receive(ctx context.Context, e Entry, source string, f *os.File, o PullOptions, m *meter) (Result, error) {
	if !isURL(source) {
		path := filepath.Join(strings.TrimPrefix(source, "file://"), e.File())
		return Result{Source: path}, s.copyMirror(ctx, path, f, m)
	}
	d := &download{store: s, entry: e, url: strings.TrimSuffix(source, "/") + "/" + e.File(), file: f, o: o, meter: m}
	err := d.run(ctx)
	return Result{Source: d.url, Resumed: d.resumed}, err
}

func isURL(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}

// copyMirror copies the file that a mirror directory has. It begins anew each
// time: a local copy is quick, and its beginning may be of another file.
func (s *Store) copyMirror(ctx context.Context, path string, f *os.File, m *meter) error {
	from, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "not_in_source", "it has no such file").Because(err)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "source_unreadable", "it cannot be read").Because(err)
	}
	defer from.Close()
	st, err := from.Stat()
	if err != nil {
		return fault.New(fault.Unavailable, "source_unreadable", "it cannot be read").Because(err)
	}
	if err := restart(f); err != nil {
		return s.cannotWrite(err)
	}
	os.Remove(f.Name() + stateSuffix)
	m.from(path, 1)
	m.phase(Copying, 0, st.Size())
	if _, err := copyTo(ctx, io.MultiWriter(f, m), from); err != nil {
		restart(f)
		return s.cannotWrite(err)
	}
	return nil
}

// restart empties the file.
func restart(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

func (s *Store) partialSize(name string) int64 {
	st, err := os.Stat(s.path(name) + partialSuffix)
	if err != nil {
		return 0
	}
	return st.Size()
}

func (s *Store) dropPartial(name string) {
	os.Remove(s.path(name) + partialSuffix)
	os.Remove(s.path(name) + partialSuffix + stateSuffix)
}

// dropUseless removes a beginning that nothing can go on with, or that keeps
// others from the last of the disk.
func (s *Store) dropUseless(name string, why error) {
	_, ok := readState(s.path(name) + partialSuffix)
	if !ok || s.partialSize(name) == 0 || fault.KindOf(why) == fault.NoSpace {
		s.dropPartial(name)
	}
}
