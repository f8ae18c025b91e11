package trust

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"whisper-appliance/internal/fault"
)

func fixed(t time.Time) func() time.Time { return func() time.Time { return t } }

// one is the only offer.
func one(t *testing.T, s *Store) Offer {
	t.Helper()
	x, err := s.Trusted()
	if err != nil || len(x.Offers) != 1 {
		t.Fatalf("%+v, %v", x, err)
	}
	return x.Offers[0]
}

func TestDirectory(t *testing.T) {
	f, s := trusting(t)
	dir := f.lay(t)
	o := one(t, s)
	r, err := Directory(dir).Target(t.Context(), o.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := o.Verify(r); err != nil {
		t.Error(err)
	}
	meta, target := filepath.Join(dir, MetadataDir, timestampName), filepath.Join(dir, TargetsDir, o.Name)
	away := filepath.Join(t.TempDir(), "away")
	link := func(path string) error {
		if err := os.Rename(path, away); err != nil {
			return err
		}
		return os.Symlink(away, path)
	}
	pipe := func(path string) error { os.RemoveAll(path); return syscall.Mkfifo(path, 0o644) }
	folder := func(path string) error { os.RemoveAll(path); return os.Mkdir(path, 0o755) }
	for name, step := range map[string]struct {
		path string
		do   func(string) error
	}{
		"link for metadata": {meta, link}, "pipe for metadata": {meta, pipe}, "folder for metadata": {meta, folder},
		"link for target": {target, link}, "pipe for target": {target, pipe},
		"link for the folder": {filepath.Join(dir, MetadataDir), link}, "pipe for the folder": {filepath.Join(dir, TargetsDir), pipe},
	} {
		t.Run(name, func(t *testing.T) {
			os.RemoveAll(dir)
			os.RemoveAll(away)
			os.Rename(f.lay(t), dir) //nolint:errcheck // the test sees it
			if err := step.do(step.path); err != nil {
				t.Fatal(err)
			}
			var err error
			if strings.Contains(step.path, TargetsDir) {
				_, err = Directory(dir).Target(t.Context(), o.Name)
			} else {
				_, err = s.Refresh(t.Context(), Directory(dir))
			}
			wantCode(t, err, "not_regular")
		})
	}
	_, err = s.Refresh(t.Context(), Directory(filepath.Join(dir, "none")))
	wantCode(t, err, "source_unreachable")
	fifo, named := filepath.Join(t.TempDir(), "fifo"), filepath.Join(t.TempDir(), "named")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o644), os.Symlink(f.lay(t), named)); err != nil {
		t.Fatal(err)
	}
	_, err = s.Refresh(t.Context(), Directory(fifo)) // nobody ever writes to it
	wantCode(t, err, "source_unreachable")
	if _, err = s.Refresh(t.Context(), Directory(named)); err != nil {
		t.Errorf("a source that is a link: %v", err)
	}
	_, err = s.Refresh(t.Context(), Directory(t.TempDir()))
	wantCode(t, err, "no_metadata")
	for _, name := range []string{"../trusted.json", "1.root.json/", "0.root.json", "root.json", "a" + o.Name, o.Name + "/..", strings.ToUpper(o.Name), ""} {
		if _, err := Directory(dir).Metadata(t.Context(), name, 10); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := Directory(dir).Target(t.Context(), name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// pack makes a bundle of members, in the order of their names.
func pack(t *testing.T, members map[string][]byte, change func(*tar.Header)) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(members[name])), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if change != nil {
			change(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(members[name]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func open(t *testing.T, data []byte) (*Bundle, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.wa")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := OpenBundle(path)
	if err == nil {
		t.Cleanup(func() { b.Close() })
	}
	return b, err
}

func TestBundle(t *testing.T) {
	f, s := first(t)
	b, err := open(t, append(pack(t, f.files, nil).Bytes(), make([]byte, 8<<10)...))
	if err != nil {
		t.Fatal(err)
	}
	if x, err := s.Refresh(t.Context(), b); err != nil || versions(x) != "1.0.0" {
		t.Fatalf("%+v, %v", x, err)
	}
	o := one(t, s)
	r, err := b.Target(t.Context(), o.Name)
	if err != nil || b.Artefact() != o.Name {
		t.Fatalf("%q, %v", b.Artefact(), err)
	}
	defer r.Close()
	if err := o.Verify(r); err != nil {
		t.Error(err)
	}
	if _, err := b.Metadata(t.Context(), timestampName, 3); err == nil {
		t.Error("more was given than was wanted")
	}
	if _, err := b.Target(t.Context(), "none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}

func TestBundleRefused(t *testing.T) {
	f, _ := first(t)
	good := pack(t, f.files, nil).Bytes()
	with := func(name string) []byte {
		files := maps.Clone(f.files)
		files[name] = []byte("x")
		return pack(t, files, nil).Bytes()
	}
	trailer := len(good) - 1024 // two blocks of zeros end it
	second := strings.Replace(slices.Sorted(maps.Keys(f.files))[len(f.files)-1], "1.0.0", "1.0.1", 1)
	for name, data := range map[string][]byte{
		"extra":         with("README"),
		"extra below":   with("metadata/notes.txt"),
		"escaping":      with("../metadata/timestamp.json"),
		"rooted":        with("/metadata/2.root.json"),
		"not plain":     with("metadata/./2.root.json"),
		"two releases":  with(second),
		"twice":         append(append([]byte{}, good[:trailer]...), good...),
		"no release":    pack(t, map[string][]byte{"metadata/timestamp.json": nil}, nil).Bytes(),
		"link":          pack(t, f.files, func(h *tar.Header) { h.Typeflag, h.Size, h.Linkname = tar.TypeSymlink, 0, "x" }).Bytes(),
		"hard link":     pack(t, f.files, func(h *tar.Header) { h.Typeflag, h.Size, h.Linkname = tar.TypeLink, 0, "x" }).Bytes(),
		"device":        pack(t, f.files, func(h *tar.Header) { h.Typeflag, h.Size = tar.TypeChar, 0 }).Bytes(),
		"properties":    pack(t, f.files, func(h *tar.Header) { h.PAXRecords = map[string]string{"WA.x": "y"} }).Bytes(),
		"cut":           good[:len(good)/2],
		"cut in a name": good[:700],
		"goes on":       append(append([]byte{}, good...), "more"...),
		"goes on far":   append(append([]byte{}, good...), make([]byte, maxPadding+1)...),
		"no tar":        []byte(strings.Repeat("no tar at all ", 100)),
		"empty":         nil,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, data)
			wantCode(t, err, "bad_bundle")
		})
	}
	_, err := OpenBundle(filepath.Join(t.TempDir(), "none"))
	wantCode(t, err, "no_bundle")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenBundle(pipe)
	wantCode(t, err, "bad_bundle")
}

func TestArtefact(t *testing.T) {
	f, s := trusting(t)
	o, good := one(t, s), []byte("the first release")
	var out bytes.Buffer
	var seen int64
	err := o.Copy(t.Context(), &out, iotest.OneByteReader(bytes.NewReader(good)), func(n int64) { seen = n })
	if err != nil || !bytes.Equal(out.Bytes(), good) || seen != o.Length {
		t.Errorf("%q, %d, %v", out.String(), seen, err)
	}
	for name, data := range map[string]string{
		"other bytes": "the first Release", "short": "the first", "long": "the first release!", "nothing": "", "much": strings.Repeat("x", 1<<20),
	} {
		var out bytes.Buffer
		wantCode(t, o.Copy(t.Context(), &out, strings.NewReader(data), nil), "artefact_damaged")
		if int64(out.Len()) > o.Length {
			t.Errorf("%s: %d bytes were written of %d", name, out.Len(), o.Length)
		}
	}
	// Swapped in the repository for another release's, which is signed as well.
	other := []byte("another release")
	f.offer("2.0.0", other)
	f.files["targets/"+o.Name] = other
	r, err := f.Target(t.Context(), o.Name)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, o.Verify(r), "artefact_damaged")
	broken := errors.New("broken")
	if err := o.Verify(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a source that breaks: %v", err)
	}
	if err := o.Verify(io.MultiReader(bytes.NewReader(good), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a source that breaks at the end: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.Copy(ctx, io.Discard, bytes.NewReader(good), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestIgnored: what the publisher signed and this version does not know harms
// nobody.
func TestIgnored(t *testing.T) {
	f, s := first(t)
	f.offer("2.0.0", []byte("x"))
	good := f.offers["whisper-appliance_2.0.0_amd64.tar.zst"]
	f.offers["whisper-appliance_3.0.0_amd64.tar.zst"] = good // says 2.0.0
	f.offers["notes.txt"] = good
	bare := *good
	bare.Custom = nil
	f.offers["whisper-appliance_4.0.0_amd64.tar.zst"] = &bare
	f.publish()
	x, err := s.Refresh(t.Context(), f)
	if err != nil || versions(x) != "2.0.0 1.0.0" || len(x.Ignored) != 3 {
		t.Errorf("%+v, %v", x, err)
	}
}

// FuzzMetadata: whatever a source serves, it ends in words.
func FuzzMetadata(f *testing.F) {
	forged := newForge()
	forged.offer("1.0.0", []byte("x"))
	forged.publish()
	for name, data := range forged.files {
		if strings.HasPrefix(name, MetadataDir) {
			f.Add(data)
		}
	}
	for _, s := range []string{
		`{"signed":{"_type":"targets","targets":{"x":null}}}`, `{"signed":{"_type":"root","keys":{"x":null}}}`,
		`{"signed":{"_type":"timestamp","meta":{"snapshot.json":null}}}`, `{"signed":null}`, `[`, `"`, strings.Repeat("[", 10_000),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{"2.root.json", timestampName, "1.snapshot.json", "1.targets.json"} {
			files := maps.Clone(forged.files)
			same := bytes.Equal(files["metadata/"+name], data)
			files["metadata/"+name] = data
			s := &Store{Root: forged.files["metadata/1.root.json"]}
			_, err := s.Refresh(t.Context(), &forge{files: files})
			var e *fault.Error
			if err != nil && !errors.As(err, &e) {
				t.Errorf("%s: no fault: %v", name, err)
			}
			if err == nil && !same && sha256.Sum256(data) != sha256.Sum256(forged.files["metadata/"+name]) && name != timestampName {
				t.Errorf("%s: other bytes were believed", name)
			}
		}
	})
}
