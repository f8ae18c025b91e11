//go:build e2e && faults

package matrix

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
)

// evil are releases that no publisher's tool would sign, by what is wrong with
// them, with the code that they are refused with.
func evil() map[string]string {
	return map[string]string{"escape": "path_escape", "bomb": "bomb", "duplicate": "duplicate"}
}

// evilRepo is a copy of the repository in which next has a valid signature and an
// archive that is wrong in the one way.
func (g *goods) evilRepo(dir, how string) error {
	if err := os.CopyFS(dir, os.DirFS(g.repo())); err != nil {
		return err
	}
	target := release.TargetName(next, runtime.GOARCH)
	files, err := filepath.Glob(filepath.Join(dir, "targets", "*."+target))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("%d artefacts of %s: %w", len(files), next, err)
	}
	archive, err := spoil(files[0], how)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(archive)
	if err := os.WriteFile(filepath.Join(dir, "targets", hex.EncodeToString(sum[:])+"."+target), archive, 0o644); err != nil {
		return err
	}
	return g.resign(dir, target, archive)
}

// spoil is an artefact with something more, or something else, in it.
func spoil(file, how string) ([]byte, error) {
	packed, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var out bytes.Buffer
	zw, err := zstd.NewWriter(&out)
	if err != nil {
		return nil, err
	}
	in, w := tar.NewReader(z), tar.NewWriter(zw)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		body := io.Reader(in)
		if how == "bomb" && h.Name == slot.ManifestName { // which promises it
			data, err := io.ReadAll(in)
			if err != nil {
				return nil, err
			}
			if data, err = swollen(data); err != nil {
				return nil, err
			}
			h.Size, body = int64(len(data)), bytes.NewReader(data)
		}
		if how == "bomb" && h.Name == "share/doc/README" {
			h.Size = bombSize
			body = io.LimitReader(zeros{}, h.Size)
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.Copy(w, body); err != nil {
			return nil, err
		}
	}
	more := map[string]string{"escape": "../../../etc/evil", "duplicate": "VERSION"}[how]
	if more != "" {
		if err := w.WriteHeader(&tar.Header{Name: more, Mode: 0o644, Size: 5, Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte("evil\n")); err != nil {
			return nil, err
		}
	}
	err = errors.Join(w.Close(), zw.Close())
	return out.Bytes(), err
}

const bombSize = 256 << 20

// swollen is a manifest in which a file has the bomb's size.
func swollen(data []byte) ([]byte, error) {
	var m slot.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	for i, f := range m.Files {
		if f.Path == "share/doc/README" {
			m.Files[i].Size = bombSize
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(m) // as slot.Seal writes it
	return b.Bytes(), err
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// resign lists the archive in the place of a target's, with the publisher's keys.
func (g *goods) resign(dir, target string, archive []byte) error {
	at := func(name string) string { return filepath.Join(dir, "metadata", name) }
	stamp, err := metadata.Timestamp().FromFile(at("timestamp.json"))
	if err != nil {
		return err
	}
	snapName := fmt.Sprintf("%d.snapshot.json", stamp.Signed.Meta["snapshot.json"].Version)
	snap, err := metadata.Snapshot().FromFile(at(snapName))
	if err != nil {
		return err
	}
	listName := fmt.Sprintf("%d.targets.json", snap.Signed.Meta["targets.json"].Version)
	list, err := metadata.Targets().FromFile(at(listName))
	if err != nil {
		return err
	}
	fresh, err := metadata.TargetFile().FromBytes(target, archive, "sha256")
	if err != nil {
		return err
	}
	fresh.Custom = list.Signed.Targets[target].Custom
	list.Signed.Targets[target] = fresh
	listBytes, err := signed(g, list, publish.Targets)
	if err != nil {
		return err
	}
	snap.Signed.Meta["targets.json"] = described(snap.Signed.Meta["targets.json"], listBytes)
	snapBytes, err := signed(g, snap, publish.Online)
	if err != nil {
		return err
	}
	stamp.Signed.Meta["snapshot.json"] = described(stamp.Signed.Meta["snapshot.json"], snapBytes)
	stampBytes, err := signed(g, stamp, publish.Online)
	return errors.Join(err, os.WriteFile(at(listName), listBytes, 0o644), os.WriteFile(at(snapName), snapBytes, 0o644), os.WriteFile(at("timestamp.json"), stampBytes, 0o644))
}

// described is what metadata say of other metadata, for new bytes of these.
func described(was *metadata.MetaFiles, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	is := *was
	if was.Length != 0 {
		is.Length = int64(len(data))
	}
	if len(was.Hashes) > 0 {
		is.Hashes = metadata.Hashes{"sha256": sum[:]}
	}
	return &is
}

// signed signs metadata anew with a role's key.
func signed[T metadata.Roles](g *goods, m *metadata.Metadata[T], role string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(g.dir, "keys", role+".pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := private.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("it is no ed25519 key")
	}
	signer, err := signature.LoadSigner(key, crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	m.ClearSignatures()
	if _, err := m.Sign(signer); err != nil {
		return nil, err
	}
	return m.ToBytes(false)
}

// evilStage has an update meet each of the evil archives.
func (w *world) evilStage() string {
	w.Helper()
	seen := &letters{}
	for how, code := range evil() {
		dir := w.TempDir()
		must(w, w.evilRepo(dir, how))
		w.fresh()
		w.source.serve(dir)
		end := w.load()
		_, output := w.do("update " + next)
		letter := w.came(next)
		w.unharmed(end(), "")
		if got := w.last().Reason; got != code {
			w.Errorf("%s is refused as %q, want %q: %s", how, got, code, output)
		}
		seen.add(letter)
	}
	return seen.String()
}

func (s *source) serve(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir = dir
}

// strange is a repository that others have signed, with a release next of theirs.
func (w *world) strange() (dir string) {
	w.Helper()
	base := w.TempDir()
	keys, err := publish.InitKeys(filepath.Join(base, "keys"), 1, time.Now())
	must(w, err)
	a, err := publish.Build(context.Background(), w.tree(next), base)
	must(w, err)
	dir = filepath.Join(base, "repo")
	_, err = (&publish.Repository{Dir: dir, Keys: keys}).Publish(context.Background(), publish.Release{File: a.File, Channel: release.Stable, Rollout: 100})
	must(w, err)
	return dir
}

// unsigned has the source give what others have signed, or with its signed list
// an artefact that nobody has.
func (w *world) unsigned(all bool) string {
	w.Helper()
	dir := w.TempDir()
	if all {
		dir = w.strange()
	} else {
		must(w, os.CopyFS(dir, os.DirFS(w.repo())))
		files, err := filepath.Glob(filepath.Join(dir, "targets", "*_"+next+"_*"))
		must(w, err)
		other, err := filepath.Glob(filepath.Join(dir, "targets", "*_"+after+"_*"))
		must(w, err)
		data, err := os.ReadFile(other[0])
		must(w, err, os.WriteFile(files[0], data, 0o644))
	}
	return w.from(dir)
}

// damagedSource has a byte of one file of the source changed.
func (w *world) damagedSource(pattern string) string {
	w.Helper()
	dir := w.TempDir()
	must(w, os.CopyFS(dir, os.DirFS(w.repo())))
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	must(w, err)
	data, err := os.ReadFile(files[0])
	must(w, err)
	at := len(data) / 2
	if strings.HasSuffix(files[0], ".json") { // of what is signed
		at = bytes.Index(data, []byte(`"version"`)) + 2
	}
	data[at] ^= 1
	must(w, os.WriteFile(files[0], data, 0o644))
	return w.from(dir)
}

// from is an update from another source, and once more from the true one: that
// nobody keeps out.
func (w *world) from(dir string) string {
	w.Helper()
	w.fresh()
	w.source.serve(dir)
	end := w.load()
	_, output := w.do("update " + next)
	letter := w.came(next)
	if strings.HasPrefix(letter, "?") {
		w.Error(output)
	}
	if w.versionIn("b") != "" {
		w.Error("something was unpacked")
	}
	w.source.serve("")
	if exit, output := w.do("update " + next); exit != 0 {
		w.Errorf("the true release does not get in: %d, %s", exit, output)
	}
	w.stands(next)
	w.unharmed(end(), "")
	return letter
}

// replayed has the source go back to metadata that were replaced.
func (w *world) replayed() string {
	w.Helper()
	newer := w.TempDir()
	must(w, os.CopyFS(newer, os.DirFS(w.repo())))
	_, err := (&publish.Repository{Dir: newer, Keys: w.keys}).Rollout(context.Background(), next, 50)
	must(w, err)
	w.fresh()
	w.source.serve(newer)
	w.mustDo("download " + after)
	w.source.serve("")
	_, output := w.do("update " + next)
	letter := w.came(next)
	if got := w.last().Reason; got != "metadata_rolled_back" {
		w.Errorf("refused as %q: %s", got, output)
	}
	return letter
}

// downgraded asks for a version below the floor.
func (w *world) downgraded() string {
	w.Helper()
	w.fresh()
	_, output := w.do("update " + older)
	letter := w.came(older)
	if got := w.last().Reason; got != "downgrade" {
		w.Errorf("refused as %q: %s", got, output)
	}
	return letter
}

// wayDown goes back below the floor, which is allowed to whoever asks for it.
func (w *world) wayDown() string {
	w.Helper()
	w.fresh()
	w.mustDo("update " + next)
	end := w.load()
	w.mustDo("rollback")
	w.unharmed(end(), "")
	w.stands(first)
	data, err := os.ReadFile(filepath.Join(w.paths().Updater, "state.json"))
	must(w, err)
	var st struct{ Floor, Held string }
	must(w, json.Unmarshal(data, &st))
	if r := w.last(); r.Kind != "rollback" || st.Floor != next || st.Held != next {
		w.Errorf("%s %s, floor %s, held %s", r.Kind, r.Outcome, st.Floor, st.Held)
	}
	return "allowed"
}
