package publish

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/trust"
)

// BundleSuffix ends the name of a bundle.
const BundleSuffix = ".wa"

// Bundle writes the repository with one of its releases into one file, for
// machines without a network. out is that file, or a directory for it. It needs
// no keys; root is as in Verifier. Two bundles of one state are the same, byte
// for byte.
func Bundle(ctx context.Context, dir string, root []byte, version, arch, out string) (string, trust.Offer, error) {
	src := trust.Directory(dir)
	root, err := firstRoot(ctx, src, root)
	if err != nil {
		return "", trust.Offer{}, err
	}
	// Verified as it goes into the bundle: the directory may change meanwhile.
	members, err := bundled(ctx, src)
	if err != nil {
		return "", trust.Offer{}, err
	}
	index, err := (&trust.Store{Root: root}).Refresh(ctx, members)
	if err != nil {
		return "", trust.Offer{}, err
	}
	o, err := choose(index.Offers, version, arch)
	if err != nil {
		return "", o, err
	}
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		out = filepath.Join(out, strings.TrimSuffix(o.Target, ".tar.zst")+BundleSuffix)
	}
	err = durable.Write(out, 0o644, func(w io.Writer) error { return writeBundle(ctx, w, members, src, o) })
	if err != nil {
		return "", o, cannotWrite(out, err)
	}
	return out, o, nil
}

func writeBundle(ctx context.Context, w io.Writer, members files, src trust.Source, o trust.Offer) error {
	t := tar.NewWriter(w)
	for _, m := range members {
		if err := t.WriteHeader(member(trust.MetadataDir+"/"+m.path, int64(len(m.data)))); err != nil {
			return err
		}
		if _, err := t.Write(m.data); err != nil {
			return err
		}
	}
	if err := t.WriteHeader(member(trust.TargetsDir+"/"+o.Name, o.Length)); err != nil {
		return err
	}
	err := withTarget(ctx, src, o, func(r io.Reader) error { return o.Copy(ctx, t, r, nil) })
	if err != nil {
		return err
	}
	return t.Close()
}

// choose finds the offer; which processor has to be said where there are more.
func choose(offers []trust.Offer, version, arch string) (trust.Offer, error) {
	found, err := (&state{offers: offers}).of(version)
	if err != nil {
		return trust.Offer{}, err
	}
	slices.SortFunc(found, func(a, b trust.Offer) int { return cmp.Compare(a.Arch, b.Arch) })
	var archs []string
	for _, o := range found {
		archs = append(archs, o.Arch)
		if o.Arch == arch {
			return o, nil
		}
	}
	if arch == "" && len(found) == 1 {
		return found[0], nil
	}
	return trust.Offer{}, fault.New(fault.BadInput, "which_arch", "version %s is published for %s", version, strings.Join(archs, ", ")).On("arch").
		Try("say for which processor, with --arch")
}

// files are metadata that were read, by name; a trust.Source that has no target.
type files []file

// Metadata stands at trust.Source.
func (f files) Metadata(_ context.Context, name string, _ int64) ([]byte, error) {
	i := slices.IndexFunc(f, func(one file) bool { return one.path == name })
	if i < 0 {
		return nil, fs.ErrNotExist
	}
	return f[i].data, nil
}

// Target stands at trust.Source.
func (f files) Target(context.Context, string) (io.ReadCloser, error) { return nil, fs.ErrNotExist }

// maxMetadata is the longest metadata that go into a bundle, in bytes.
const maxMetadata = 8 << 20

// bundled reads the metadata that a client asks for, and believes nothing yet.
func bundled(ctx context.Context, src trust.Source) (all files, err error) {
	read := func(name string) ([]byte, error) {
		data, err := src.Metadata(ctx, name, maxMetadata)
		if err == nil {
			all = append(all, file{name, data})
		}
		return data, err
	}
	for version := int64(1); ; version++ {
		if _, err := read(numbered(version, metadata.ROOT)); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	for next := timestampName; next != ""; {
		data, err := read(next)
		if err != nil {
			return nil, err
		}
		next = follows(next, data)
	}
	return all, nil
}

// follows is the name of the metadata that those of that name list, "" where it
// is the last or cannot be read.
func follows(name string, data []byte) string {
	var doc struct {
		Signed struct {
			Meta map[string]struct{ Version int64 }
		}
	}
	if json.Unmarshal(data, &doc) != nil {
		return ""
	}
	if name == timestampName {
		return numbered(doc.Signed.Meta[snapshotEntry].Version, metadata.SNAPSHOT)
	}
	if listed, there := doc.Signed.Meta[targetsEntry]; there {
		return numbered(listed.Version, metadata.TARGETS)
	}
	return ""
}

func numbered(version int64, role string) string {
	return strconv.FormatInt(version, 10) + "." + role + ".json"
}

func member(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}
