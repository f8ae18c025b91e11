package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// Format is how a conversion stores the large weights.
type Format string

// The formats that a conversion can write.
const (
	F16  Format = "f16"  // as upstream's files; exact enough for all
	Q8_0 Format = "q8_0" // half of that, and much faster on a CPU without F16C
)

func (f Format) ftype() int32 {
	if f == Q8_0 {
		return quantVersion*quantVersionFactor + ftypeQ8_0
	}
	return ftypeF16
}

// ImportOptions say how a model is taken in.
type ImportOptions struct {
	Name     string         // "" = from the file's name, or from the checkpoint's kind ("tiny", "tiny-q8_0")
	Type     Format         // of a conversion; "" = F16
	Replace  bool           // put it in the place of one that is there
	Progress func(Progress) // nil = none
}

// Result is a model that is in its place.
type Result struct {
	Name     string   `json:"name"`
	File     string   `json:"file"`
	Source   string   `json:"source,omitempty"`  // address or path it came from; "" where it was there already
	Resumed  int64    `json:"resumed,omitempty"` // bytes that an earlier attempt had brought
	Report   Report   `json:"report"`
	Warnings []string `json:"warnings,omitempty"` // what to think of, in sentences
}

// Already tells that there was nothing to do.
func (r Result) Already() bool { return r.Source == "" }

// Import takes in what path is: a directory is converted by ImportONNX, a file
// copied by ImportGGML.
func (s *Store) Import(ctx context.Context, path string, o ImportOptions) (Result, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Result{}, fault.New(fault.NotFound, "no_such_file", "there is no file or directory %s", path).Because(err)
	case err != nil:
		return Result{}, err
	case st.IsDir():
		return s.ImportONNX(ctx, path, o)
	}
	return s.ImportGGML(ctx, path, o)
}

// ImportGGML copies a model file that is already of the right form. Faults:
// bad_model_file (BadInput), and those of placing it: model_exists and
// model_busy (Conflict), name_taken and bad_model_name (BadInput), disk_full
// (NoSpace), models_not_writable (Forbidden), canceled (Canceled).
func (s *Store) ImportGGML(ctx context.Context, path string, o ImportOptions) (Result, error) {
	info, err := Inspect(path)
	if err != nil {
		return Result{}, err
	}
	name := o.Name
	if name == "" {
		var ok bool
		if name, ok = nameOf(filepath.Base(path)); !ok {
			return Result{}, fault.New(fault.BadInput, "bad_model_name",
				"the file's name %s does not say what the model is called", filepath.Base(path)).On("name").
				Try("give it a name with --name")
		}
	}
	return s.place(ctx, placement{
		name: name, size: info.Size, source: path, phase: Copying, replace: o.Replace,
		fill: func(w io.Writer, m *meter) error {
			from, err := os.Open(path)
			if err != nil {
				return err
			}
			defer from.Close()
			_, err = copyTo(ctx, io.MultiWriter(w, m), from)
			return err
		},
	}, newMeter(o.Progress))
}

// ImportONNX converts a Whisper checkpoint in ONNX form, plain or quantised to
// eight bits, to a GGML file. dir holds it or is a package around it; it is read
// only. Faults: bad_checkpoint and several_checkpoints (BadInput),
// no_such_directory (NotFound), and those of ImportGGML.
func (s *Store) ImportONNX(ctx context.Context, dir string, o ImportOptions) (Result, error) {
	if o.Type == "" {
		o.Type = F16
	}
	if o.Type != F16 && o.Type != Q8_0 {
		return Result{}, fault.New(fault.BadInput, "bad_model_type", "a conversion cannot write %q", o.Type).
			On("type").Try("the types are %s and %s", F16, Q8_0)
	}
	source, err := openCheckpoint(dir)
	if err != nil {
		return Result{}, err
	}
	conv, err := prepare(source, o.Type)
	if err != nil {
		return Result{}, badCheckpoint(source.dir, err)
	}
	name := o.Name
	if name == "" {
		name = conv.name(o.Type)
	}
	return s.place(ctx, placement{
		name: name, size: conv.size(), source: source.dir, phase: Converting, replace: o.Replace, converted: true,
		fill: func(w io.Writer, m *meter) error {
			conv.meter = m
			return conv.write(ctx, w)
		},
	}, newMeter(o.Progress))
}

func (c *conversion) name(format Format) string {
	name := c.source.hparams.typeName()
	if format == Q8_0 {
		name += "-" + string(Q8_0)
	}
	return name
}

// placement is a model that is to be made and put in its place.
type placement struct {
	name      string
	size      int64
	source    string
	converted bool
	replace   bool
	phase     Phase
	fill      func(io.Writer, *meter) error
}

func (s *Store) place(ctx context.Context, p placement, m *meter) (Result, error) {
	p.name = canonical(p.name)
	e, err := p.entry()
	if err != nil {
		return Result{}, err
	}
	m.from(p.source, 1)
	m.phase(Checking, 0, p.size)
	release, err := s.lock(p.name)
	if err != nil {
		return Result{}, err
	}
	defer release()
	if _, err := os.Stat(s.path(p.name)); err == nil && !p.replace {
		return Result{}, fault.New(fault.Conflict, "model_exists", "a model called %s is already there", p.name).
			On("name").Try("give another name with --name, or remove it first: `whisper-appliance models rm %s`", p.name)
	}
	if err := s.checkDisk(p.size); err != nil {
		return Result{}, err
	}
	report, err := s.build(ctx, e, p, m)
	if err != nil {
		return Result{}, stopped(ctx, err)
	}
	r := Result{Name: p.name, File: fileName(p.name), Source: p.source, Report: report}
	if known, ok := find(p.name); ok && !p.converted && known.SHA256 != report.SHA256 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("this is not upstream's file of the name %s: its content differs", p.name))
	}
	if w := s.memoryWarning(p.name, memoryNeeded(report.Info.Type, p.size)); w != "" {
		r.Warnings = append(r.Warnings, w)
	}
	m.phase(Done, p.size, p.size)
	return r, nil
}

// entry is what the finished file is held against. A name in the catalogue
// stands for one size; under it no other model may hide.
func (p placement) entry() (Entry, error) {
	if err := checkName(p.name); err != nil {
		return Entry{}, err
	}
	e, known := find(p.name)
	if known && e.Size != p.size {
		return Entry{}, fault.New(fault.BadInput, "name_taken",
			"the name %s stands for a model of %d bytes and this one has %d", p.name, e.Size, p.size).
			On("name").Try("give it another name with --name")
	}
	return Entry{Name: p.name, Size: p.size}, nil
}

// build writes the file beside its place, checks it and gives it its name.
func (s *Store) build(ctx context.Context, e Entry, p placement, m *meter) (_ Report, err error) {
	path := s.path(p.name) + importSuffix
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return Report{}, s.cannotWrite(err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(path)
		}
	}()
	m.phase(p.phase, 0, p.size)
	if err := p.fill(f, m); err != nil {
		return Report{}, p.failed(s, err)
	}
	report, err := s.verify(ctx, e, path, m)
	if err != nil {
		return Report{}, err
	}
	rec := record{SHA256: report.SHA256, Source: p.source, Own: true, Installed: time.Now().UTC()}
	return report, s.publish(f, e.Name, rec)
}

// failed tells a source that cannot be converted from a disk that cannot be written.
func (p placement) failed(s *Store, err error) error {
	var onPath *fs.PathError
	if errors.As(err, &onPath) || !p.converted || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return s.cannotWrite(err)
	}
	return badCheckpoint(p.source, err)
}

// publish gives a checked file its name. The record of one that was there goes
// first: a record must never speak of another file.
func (s *Store) publish(f *os.File, name string, rec record) error {
	path := s.path(name)
	if err := os.Remove(path + stateSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.cannotWrite(err)
	}
	if err := durable.Publish(f, path); err != nil {
		return s.cannotWrite(err)
	}
	if err := rec.write(path); err != nil {
		return fmt.Errorf("record of %s: %w", fileName(name), s.cannotWrite(err))
	}
	return nil
}
