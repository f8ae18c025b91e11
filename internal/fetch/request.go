package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
)

const (
	maxRequest = 64 << 10 // bytes
	maxSources = 32
	resultName = "result.json"
)

// Request is what is to be brought.
type Request struct {
	Sources []string `json:"sources"` // http and https addresses, or directories, that hold metadata/ and targets/; asked in order
	Target  string   `json:"target"`  // plain name of an artefact; "" = metadata alone
	Most    int64    `json:"most"`    // bytes a second; 0 = no limit
}

// Result is how a request went. At its end Error is nil, or why not.
type Result struct {
	Source  string    `json:"source"` // the one that had it all; without a password that is in it
	Index   int64     `json:"index"`  // version of the metadata targets
	Target  string    `json:"target"`
	Bytes   int64     `json:"bytes"`   // of the artefact, all there and verified; 0 where none was
	Resumed int64     `json:"resumed"` // of those, bytes that were there before
	Error   *Failure  `json:"error"`
	Tried   []Try     `json:"tried"` // sources that were of no use
	At      time.Time `json:"at"`    // when it was written
}

// Failure is a fault as programs and people read it.
type Failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// Try is a source that was of no use, and why.
type Try struct {
	Source  string `json:"source"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// ReadRequest reads a request from a file. The error is a fault, "bad_request",
// "no_source" or "bad_source".
func ReadRequest(path string) (Request, error) {
	var r Request
	data, err := durable.ReadRegular(path, maxRequest)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fault.New(fault.BadInput, "bad_request", "there is no request at %s", path).Because(err).
			Try("the updater writes one; `whisper-appliance update check` has it do so")
	}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		err = d.Decode(&r)
		if _, more := d.Token(); err == nil && !errors.Is(more, io.EOF) {
			err = errors.New("more follows the request")
		}
	}
	if err != nil {
		return Request{}, fault.New(fault.BadInput, "bad_request", "%s is no request", path).Because(err).
			Try(`it has to be like {"sources": ["https://example.org/releases"], "target": "", "most": 0}`)
	}
	return r, r.check()
}

// check holds what is asked for against what can be.
func (r Request) check() error {
	switch {
	case len(r.Sources) == 0:
		return fault.New(fault.BadInput, "no_source", "no source of releases is configured").On("sources").
			Try("name one in the settings (update.sources), or install a release from a file: `whisper-appliance update install FILE`")
	case len(r.Sources) > maxSources:
		return fault.New(fault.BadInput, "bad_request", "%d sources; at most %d are asked", len(r.Sources), maxSources).On("sources").
			Try("name fewer of them")
	case r.Most < 0:
		return fault.New(fault.BadInput, "bad_request", "%d bytes a second", r.Most).On("most").Try("0 is no limit")
	}
	if r.Target == "" {
		return nil
	}
	_, _, err := release.ParseTarget(r.Target)
	return err
}

// failure words an error.
func failure(err error) *Failure {
	var f *fault.Error
	if errors.As(err, &f) {
		return &Failure{Code: f.Code, Message: f.Error(), Hint: fault.Hint(f)}
	}
	return &Failure{Code: "internal", Message: err.Error(), Hint: "see the log: `journalctl -u whisper-appliance-fetch`"}
}

func (f *Fetcher) keepResult(r Result) error {
	r.At = f.Now().UTC() // to the nanosecond: who waits for a new result knows it by its being another
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(f.Dir, resultName), append(data, '\n'), 0o644); err != nil {
		return f.cannotWrite(err)
	}
	return nil
}

// cannotWrite is what this machine is to blame for.
func (f *Fetcher) cannotWrite(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fault.New(fault.Forbidden, "fetch_not_writable", "%s cannot be written to", f.Dir).Because(err).
			Try("start it as the user that owns the directory")
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.Conflict, "no_directory", "the directory %s is not there", f.Dir).Because(err).
			Try("the unit makes it (StateDirectory=); by hand: `mkdir -p %s`", f.Dir)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.New(fault.NoSpace, "disk_full", "the disk of %s is full", f.Dir).Because(err).Try("free some disk space; `df -h` shows the disks")
	}
	return fmt.Errorf("%s: %w", f.Dir, err)
}

// makeDirs makes where a repository lies, for others to read.
func (f *Fetcher) makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		if err != nil {
			return f.cannotWrite(err)
		}
	}
	return nil
}
