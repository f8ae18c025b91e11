package trust

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
)

// Index is what a repository offers, verified.
type Index struct {
	Version int64     `json:"version"`           // of the metadata targets; rises with every change of what is on offer
	Expires time.Time `json:"expires"`           // when the first of the metadata has to be renewed
	Stale   time.Time `json:"stale,omitzero"`    // since when it should have been renewed; zero where it need not be
	Offers  []Offer   `json:"offers"`            // the newest version first
	Ignored []string  `json:"ignored,omitempty"` // targets that are no release as this version knows them, each with the reason
}

// Offer is one release in a repository.
type Offer struct {
	Target string `json:"target"` // its plain name: "whisper-appliance_1.4.0_amd64.tar.zst"
	Name   string `json:"name"`   // the same with its digest before it, as the file in targets/ is called
	Length int64  `json:"length"` // bytes
	SHA256 string `json:"sha256"` // hex digits
	release.Custom
}

// index says what the verified metadata offer.
func (c *client) index(now time.Time) *Index {
	targets := c.tm.Targets[metadata.TARGETS].Signed
	x := &Index{Version: targets.Version, Expires: targets.Expires, Offers: []Offer{}}
	for _, t := range []time.Time{c.tm.Root.Signed.Expires, c.tm.Timestamp.Signed.Expires, c.tm.Snapshot.Signed.Expires} {
		if t.Before(x.Expires) {
			x.Expires = t
		}
	}
	if now.After(x.Expires) {
		x.Stale = x.Expires
	}
	for name, file := range targets.Targets {
		o, err := offer(name, file)
		if err != nil {
			x.Ignored = append(x.Ignored, fault.Short(name)+": "+err.Error())
			continue
		}
		x.Offers = append(x.Offers, o)
	}
	slices.Sort(x.Ignored)
	slices.SortFunc(x.Offers, func(a, b Offer) int {
		return cmp.Or(release.Compare(b.Version, a.Version), cmp.Compare(a.Arch, b.Arch))
	})
	return x
}

// offer reads one target. What it says of itself must be what its name says.
func offer(name string, file *metadata.TargetFiles) (Offer, error) {
	version, arch, err := release.ParseTarget(name)
	if err != nil {
		return Offer{}, err
	}
	sum := file.Hashes["sha256"]
	if len(sum) != sha256.Size || file.Length < 1 || file.Custom == nil {
		return Offer{}, fmt.Errorf("length, sha256 or custom is missing")
	}
	o := Offer{Target: name, Length: file.Length, SHA256: hex.EncodeToString(sum)}
	if err := json.Unmarshal(*file.Custom, &o.Custom); err != nil {
		return Offer{}, err
	}
	if err := o.Check(); err != nil {
		return Offer{}, err
	}
	if o.Version != version || o.Arch != arch {
		return Offer{}, fmt.Errorf("it says version %s for %s", o.Version, o.Arch)
	}
	o.Name = o.SHA256 + "." + name
	return o, nil
}

// Verify reads r to its end, which must be the offered artefact to the byte. The
// error is a fault, "artefact_damaged", or r's own.
func (o Offer) Verify(r io.Reader) error {
	return o.Copy(context.Background(), io.Discard, r, nil)
}

// Copy writes src to dst, at most o.Length bytes, and is done only where they
// are the offered artefact to the byte: until it returns nil nothing may be made
// of dst. progress, which may be nil, hears how many bytes are done. The error
// is a fault, "artefact_damaged", or that of src, dst or ctx.
func (o Offer) Copy(ctx context.Context, dst io.Writer, src io.Reader, progress func(done int64)) error {
	sum := sha256.New()
	in := &watched{ctx: ctx, r: io.LimitReader(src, o.Length), progress: progress}
	n, err := io.Copy(io.MultiWriter(dst, sum), in)
	if err != nil {
		return fmt.Errorf("read %s: %w", o.Target, err)
	}
	if n < o.Length {
		return o.damaged(fmt.Sprintf("has %d bytes; %d are signed", n, o.Length))
	}
	if hex.EncodeToString(sum.Sum(nil)) != o.SHA256 {
		return o.damaged("has other bytes than those that are signed")
	}
	switch _, err := io.ReadFull(src, make([]byte, 1)); err {
	case io.EOF:
		return nil
	case nil:
		return o.damaged(fmt.Sprintf("goes on after the %d bytes that are signed", o.Length))
	default:
		return fmt.Errorf("read %s: %w", o.Target, err)
	}
}

func (o Offer) damaged(what string) error {
	return fault.New(fault.BadInput, "artefact_damaged", "%s %s", o.Target, what).
		Try("fetch it again; where that does not help, the source is damaged or tampered with")
}

// watched is a reader that ends with its context and tells how far it is.
type watched struct {
	ctx      context.Context
	r        io.Reader
	progress func(int64)
	done     int64
}

func (w *watched) Read(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.r.Read(p)
	w.done += int64(n)
	if w.progress != nil && n > 0 {
		w.progress(w.done)
	}
	return n, err
}
