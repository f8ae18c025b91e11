package fetch

import (
	"context"
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
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/trust"
)

const (
	partSuffix = ".part"
	tagSuffix  = ".part.json"
)

// room stays free beside an artefact, in bytes.
const room = 16 << 20

// artefact brings one artefact, unless it is there and whole.
func (f *Fetcher) artefact(ctx context.Context, from origin, o trust.Offer, most int64, res *Result) error {
	if err := f.makeDirs(f.targets()); err != nil {
		return err
	}
	err := f.onlyKeep(f.targets(), func(name string) bool {
		return name == o.Name || name == o.Name+partSuffix || name == o.Name+tagSuffix
	})
	if err != nil {
		return err
	}
	path := filepath.Join(f.targets(), o.Name)
	if f.whole(path, o) {
		res.Bytes, res.Resumed = o.Length, o.Length
		return nil
	}
	d := &download{f: f, from: from, source: res.Source, offer: o, path: path + partSuffix, most: most}
	if err := d.begin(); err != nil {
		return err
	}
	defer d.part.Close()
	if err := d.bring(ctx); err != nil {
		if d.offset == 0 || fault.KindOf(err) == fault.NoSpace {
			d.drop()
		}
		return err
	}
	res.Bytes, res.Resumed = o.Length, d.resumed
	return d.publish(path)
}

// whole tells whether the artefact is there. One that is not what it should be
// is removed.
func (f *Fetcher) whole(path string, o trust.Offer) bool {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	if o.Verify(file) == nil {
		return true
	}
	os.RemoveAll(path) //nolint:errcheck // the new one takes its name
	return false
}

// download is an artefact on its way.
type download struct {
	f      *Fetcher
	from   origin
	source string // from, as shown
	offer  trust.Offer
	path   string // of the part
	most   int64

	part    *os.File
	offset  int64  // bytes in part
	resumed int64  // of those, from runs before
	tag     string // what the source called the version that they are of
	ranged  bool   // part was put together from more than one answer
}

// tagFile is what a later run needs to know of a part.
type tagFile struct {
	Source string `json:"source"` // as shown
	Tag    string `json:"tag"`
}

// begin takes up what a run before left, and sees that there is room for the
// rest.
func (d *download) begin() error {
	if info, err := os.Lstat(d.path); err == nil {
		d.offset = info.Size()
	}
	if d.offset > d.offer.Length {
		d.drop()
		d.offset = 0
	}
	if err := d.enough(); err != nil {
		return err
	}
	var kept tagFile
	data, err := durable.ReadRegular(d.tagPath(), 4<<10)
	if err == nil && json.Unmarshal(data, &kept) == nil && kept.Source == d.source {
		d.tag = kept.Tag
	}
	d.resumed, d.ranged = d.offset, d.offset > 0
	if d.part, err = os.OpenFile(d.path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644); err != nil {
		return d.f.cannotWrite(err)
	}
	return nil
}

// enough refuses what will not fit, with the bytes that are missing.
func (d *download) enough() error {
	free, err := d.f.Free(d.f.targets())
	if err != nil {
		return fmt.Errorf("free space of %s: %w", d.f.targets(), err)
	}
	if lack := d.offer.Length - d.offset + room - free; lack > 0 {
		return fault.New(fault.NoSpace, "disk_full", "%d bytes (%s) are missing on the disk of %s: %s has %s, and %s must stay free",
			lack, fault.Bytes(lack), d.f.Dir, d.offer.Target, fault.Bytes(d.offer.Length), fault.Bytes(room)).
			Try("free some disk space; `df -h` shows the disks")
	}
	return nil
}

func (d *download) tagPath() string { return filepath.Join(d.f.targets(), d.offer.Name+tagSuffix) }

// forget begins the part anew.
func (d *download) forget() error {
	d.offset, d.resumed, d.ranged, d.tag = 0, 0, false, ""
	os.Remove(d.tagPath()) //nolint:errcheck // a tag that does not fit is found out
	if err := d.part.Truncate(0); err != nil {
		return d.f.cannotWrite(err)
	}
	_, err := d.part.Seek(0, io.SeekStart)
	return err
}

// drop leaves nothing.
func (d *download) drop() {
	os.Remove(d.path)      //nolint:errcheck // the next run removes or uses it
	os.Remove(d.tagPath()) //nolint:errcheck // the same
}

// bring completes the part and verifies it. One that was put together and is
// wrong in the end is brought once more as a whole: its beginning may be of a
// power cut, or of another source.
func (d *download) bring(ctx context.Context) error {
	for again := true; ; again = false {
		err := retry(ctx, d.f.Pause, func() (bool, error) {
			before := d.offset
			err := d.attempt(ctx)
			return d.offset > before, err
		})
		if err == nil {
			err = d.verify(ctx)
		}
		var bad *fault.Error
		if !errors.As(err, &bad) || bad.Code != "artefact_damaged" {
			return err
		}
		if !again || !d.ranged {
			d.drop()
			return err
		}
		if err := d.forget(); err != nil {
			return err
		}
	}
}

// verify reads the part back.
func (d *download) verify(ctx context.Context) error {
	if _, err := d.part.Seek(0, io.SeekStart); err != nil {
		return d.f.cannotWrite(err)
	}
	return d.offer.Copy(ctx, io.Discard, d.part, nil)
}

// attempt is one request for what is missing.
func (d *download) attempt(ctx context.Context) error {
	if d.offset == d.offer.Length {
		return nil
	}
	ctx, watch := outbound.Watched(ctx, d.f.Stall)
	defer watch.End()
	s, err := d.from.open(ctx, d.offer.Name, d.offset, d.tag)
	switch {
	case errors.Is(err, errOtherRest):
		if err := d.forget(); err != nil {
			return err
		}
		return &passing{err: errOtherRest}
	case errors.Is(err, fs.ErrNotExist):
		return missing(d.offer.Target)
	case err != nil:
		return err
	}
	defer s.Close()
	if s.total >= 0 && s.total != d.offer.Length {
		return d.damaged("the source has %d bytes; %d are signed", s.total, d.offer.Length)
	}
	if err := d.goOnFrom(s); err != nil {
		return err
	}
	return d.receive(ctx, s, watch)
}

// goOnFrom makes ready for what s sends.
func (d *download) goOnFrom(s stream) error {
	if s.from != d.offset {
		if err := d.forget(); err != nil {
			return err
		}
	}
	d.ranged = d.offset > 0
	if _, err := d.part.Seek(d.offset, io.SeekStart); err != nil {
		return d.f.cannotWrite(err)
	}
	if s.tag == d.tag {
		return nil
	}
	d.tag = s.tag
	data, err := json.Marshal(tagFile{d.source, d.tag})
	if err == nil {
		err = durable.WriteFile(d.tagPath(), data, 0o644)
	}
	if err != nil {
		return d.f.cannotWrite(err)
	}
	return nil
}

// receive writes what comes to the part, and not a byte more than is signed,
// whatever the source says or sends.
func (d *download) receive(ctx context.Context, body io.Reader, watch *outbound.Watch) error {
	started, first := time.Now(), d.offset
	buf := make([]byte, d.chunk())
	for {
		n, err := body.Read(buf)
		if n > 0 {
			watch.Rest()
			if err := d.keep(buf[:n]); err != nil {
				return err
			}
			if err := d.pace(ctx, started, d.offset-first); err != nil {
				return unreachable(ctx, err)
			}
			watch.Wake()
		}
		switch {
		case errors.Is(err, io.EOF) && d.offset == d.offer.Length:
			return nil
		case errors.Is(err, io.EOF):
			return &passing{err: fmt.Errorf("the source ended at byte %d of %d", d.offset, d.offer.Length)}
		case err != nil:
			return unreachable(ctx, fmt.Errorf("at byte %d of %d: %w", d.offset, d.offer.Length, err))
		}
	}
}

// chunk is how much is read at once, in bytes: where the pace is bounded, no
// more than an eighth of a second's worth.
func (d *download) chunk() int64 {
	const most = 128 << 10
	if d.most == 0 {
		return most
	}
	return min(most, max(1, d.most/8))
}

// pace waits until so many bytes may have come.
func (d *download) pace(ctx context.Context, started time.Time, bytes int64) error {
	if d.most == 0 {
		return nil
	}
	due := time.Duration(float64(bytes) / float64(d.most) * float64(time.Second))
	return wait(ctx, due-time.Since(started))
}

func (d *download) keep(data []byte) error {
	if d.offset+int64(len(data)) > d.offer.Length {
		return d.damaged("the source sends more than the %d bytes that are signed", d.offer.Length)
	}
	n, err := d.part.Write(data)
	d.offset += int64(n)
	if err != nil {
		return d.f.cannotWrite(err)
	}
	return nil
}

func (d *download) damaged(format string, args ...any) error {
	return fault.New(fault.BadInput, "artefact_damaged", "%s: "+format, append([]any{d.offer.Target}, args...)...).
		Try("the source is damaged, or a login page of the network answers in its place: use another one")
}

// publish gives the artefact its name.
func (d *download) publish(path string) error {
	if err := d.part.Chmod(0o644); err != nil {
		return d.f.cannotWrite(err)
	}
	if err := durable.Publish(d.part, path); err != nil {
		return d.f.cannotWrite(err)
	}
	os.Remove(d.tagPath()) //nolint:errcheck // the next run removes it
	return nil
}
