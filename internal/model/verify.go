package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// Report is what Verify found, and honestly what it could not look at.
type Report struct {
	Name        string `json:"name"`
	File        string `json:"file"`
	Info        Info   `json:"info"`
	SizeChecked bool   `json:"size_checked"`      // against the catalogue
	SHA256      string `json:"sha256"`            // of the file as it is now, hexadecimal
	Against     string `json:"against,omitempty"` // what the digest was compared with; "" = there was nothing
}

// Summary is the report in a sentence.
func (r Report) Summary() string {
	checked := []string{fmt.Sprintf("structure (%d tensors)", r.Info.Tensors)}
	if r.SizeChecked {
		checked = append([]string{"size"}, checked...)
	}
	if r.Against == "" {
		return strings.Join(checked, " and ") + " checked; no digest is known to compare its content with"
	}
	return strings.Join(append(checked, "content"), ", ") + " checked, the content against " + r.Against
}

// What a digest can be compared with.
const (
	againstCatalogue = "the catalogue's digest"
	againstRecord    = "the digest recorded when it was installed"
)

// record is kept beside a model: what it was when it got its name.
type record struct {
	SHA256    string    `json:"sha256"`
	Source    string    `json:"source"`        // address or path
	Own       bool      `json:"own,omitempty"` // imported, so perhaps not upstream's bytes
	Installed time.Time `json:"installed"`
}

func readRecord(path string) (record, bool) {
	var r record
	data, err := os.ReadFile(path + stateSuffix)
	return r, err == nil && json.Unmarshal(data, &r) == nil && r.SHA256 != ""
}

func (r record) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path+stateSuffix, append(data, '\n'), 0o644)
}

// Verify reads an installed model from end to end: its size where the catalogue
// has one, its structure, and its content against the catalogue's digest or, for
// a model that was imported, the one recorded then. What is wrong is a BadInput
// fault: bad_model_file or digest_differs.
func (s *Store) Verify(ctx context.Context, name string, progress func(Progress)) (Report, error) {
	name = canonical(name)
	path, err := s.Path(name)
	if err != nil {
		return Report{}, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := s.Resolve(name); err != nil && fault.KindOf(err) == fault.NotFound {
			return Report{}, err
		}
		return Report{}, fault.New(fault.NotFound, "model_not_installed", "the model %s is not installed", name).
			On("model").Try("`whisper-appliance models pull %s`", name)
	}
	e, known := find(name)
	if !known {
		e = Entry{Name: name}
	}
	m := newMeter(progress)
	r, err := s.verifyInstalled(ctx, e, m)
	if err != nil {
		return Report{}, stopped(ctx, err)
	}
	m.phase(Done, r.Info.Size, r.Info.Size)
	return r, nil
}

func (s *Store) verifyInstalled(ctx context.Context, e Entry, m *meter) (Report, error) {
	rec, recorded := readRecord(s.path(e.Name))
	if rec.Own {
		e.SHA256 = "" // the catalogue's is of upstream's file
	}
	r, err := s.verify(ctx, e, s.path(e.Name), m)
	if err != nil || r.Against != "" || !recorded {
		return r, err
	}
	if r.SHA256 != rec.SHA256 {
		return Report{}, differs(e.Name, r.SHA256, rec.SHA256, againstRecord)
	}
	r.Against = againstRecord
	return r, nil
}

// stopped is err, or that the caller left where that is why.
func stopped(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return fault.New(fault.Canceled, "canceled", "stopped before it was complete").Because(context.Cause(ctx))
}

// verify checks the file at path, which need not have its name yet, as e.
func (s *Store) verify(ctx context.Context, e Entry, path string, m *meter) (Report, error) {
	m.phase(Verifying, 0, e.Size)
	r := Report{Name: e.Name, File: fileName(e.Name), SizeChecked: e.Size != 0}
	var err error
	if r.Info, err = s.check(e, path, anew); err != nil {
		return Report{}, err
	}
	m.phase(Verifying, 0, r.Info.Size)
	if r.SHA256, err = digest(ctx, path, m); err != nil {
		return Report{}, err
	}
	if e.SHA256 == "" {
		return r, nil
	}
	if r.SHA256 != e.SHA256 {
		return Report{}, differs(e.Name, r.SHA256, e.SHA256, againstCatalogue)
	}
	r.Against = againstCatalogue
	return r, nil
}

func differs(name, got, want, against string) error {
	return fault.New(fault.BadInput, "digest_differs",
		"the content of %s has the digest %s and not %s, which is %s", fileName(name), got, want, against).
		Try("remove it and fetch it again: `whisper-appliance models rm %s`, `whisper-appliance models pull %s`", name, name)
}

func digest(ctx context.Context, path string, m *meter) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := copyTo(ctx, io.MultiWriter(sum, m), f); err != nil {
		return "", fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// copyTo is io.Copy that ends when ctx does.
func copyTo(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	buf := make([]byte, 256<<10)
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil:
			return total, err
		}
	}
}
