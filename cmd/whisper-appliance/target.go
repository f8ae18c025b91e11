package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// targets are the files to write for each of files, "" for standard output. It
// refuses what would write one text over another, before any work is done.
func (o order) targets(files []string, format transcript.Format) ([]string, error) {
	targets := make([]string, len(files))
	if o.output == "" || o.output == "-" {
		return targets, nil
	}
	if !isDir(o.output) {
		if len(files) > 1 {
			return nil, usageError{fmt.Errorf("--output %s is no directory, and %d files need one", o.output, len(files))}
		}
		return []string{o.output}, nil
	}
	from := map[string]string{}
	for i, file := range files {
		base := filepath.Base(file)
		if file == "-" {
			base = "stdin"
		}
		targets[i] = filepath.Join(o.output, strings.TrimSuffix(base, filepath.Ext(base))+format.Extension())
		if other, taken := from[targets[i]]; taken {
			return nil, usageError{fmt.Errorf("%s and %s would both be written to %s: do them one by one, each with its own --output",
				other, file, targets[i])}
		}
		from[targets[i]] = file
	}
	return targets, nil
}

// refuse says why target cannot be what becomes of file, nil where it can: it
// is there already, or is the recording itself.
func (o order) refuse(file, target string) error {
	if target != "" && !isDir(filepath.Dir(target)) {
		return fault.New(fault.BadInput, "no_directory", "there is no directory %s", filepath.Dir(target)).On("--output").
			Try("make it first: mkdir -p %s", filepath.Dir(target))
	}
	st, err := os.Stat(target)
	if err != nil || !st.Mode().IsRegular() {
		return nil // nothing is there, or what is there loses nothing by it
	}
	if recording, err := os.Stat(file); err == nil && os.SameFile(recording, st) {
		return fault.New(fault.Conflict, "file_is_recording", "%s is the recording itself", target).On("--output").
			Try("name another file")
	}
	if !o.force {
		return fault.New(fault.Conflict, "file_exists", "%s is there already", target).On("--output").
			Try("--force overwrites it")
	}
	return nil
}

// write makes target what render gives, whole or not at all where it is a
// file. A device or a named pipe is written to, and behind a link is written
// where it leads: neither is replaced.
func write(target string, render func(io.Writer) error) error {
	perm := fs.FileMode(0o644)
	if st, err := os.Stat(target); err == nil {
		if !st.Mode().IsRegular() {
			return writeInto(target, render)
		}
		perm = st.Mode().Perm()
	}
	path, err := behindLinks(target)
	if err != nil {
		return err
	}
	return durable.Write(path, perm, render)
}

func writeInto(target string, render func(io.Writer) error) error {
	f, err := os.OpenFile(target, os.O_WRONLY, 0)
	if err != nil {
		return fault.New(fault.BadInput, "cannot_write", "%s cannot be written to", target).On("--output").Because(err).
			Try("name a file, or leave --output out for standard output")
	}
	if err := render(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// behindLinks is where path leads, which need not exist.
func behindLinks(path string) (string, error) {
	for range 40 {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link: a file, or nothing yet
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", fault.New(fault.BadInput, "link_loop", "%s is a link that leads nowhere", path).On("--output").
		Because(errors.New("too many links"))
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
