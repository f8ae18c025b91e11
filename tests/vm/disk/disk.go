// Package disk is a virtual machine's disk that can lose its power: a file
// behind a cache of writes that were not flushed yet, as real disks have one.
// When qemu alone is killed, all that it ever wrote is safe in the host's page
// cache, flushed or not; so the cache lies here, and a cut throws away of it
// what chance decides, block by block: each of a disk's unflushed writes may
// have reached the platter or not, in whatever order.
//
// It speaks the NBD protocol on a Unix socket and trusts its client, qemu, as
// far as the protocol's lengths. It writes the one file.
package disk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
)

const (
	block   = 4096 // of the cache, bytes: ext4's own
	mostAge = 64 << 20 / block
)

// Disk is a file with a cache before it. It is safe for concurrent use.
type Disk struct {
	mu    sync.Mutex
	file  *os.File
	size  int64
	off   bool
	cache map[int64][]byte // by number of the block: what was not flushed
	dice  *rand.Rand
	cuts  Cuts
}

// Cuts is what became of a disk, in sums since it was opened.
type Cuts struct {
	Cuts    int   // power cuts
	Flushes int64 // what the machine asked for, to be safe
	Kept    int64 // bytes that were not flushed and survived a cut
	Lost    int64 // bytes that were not flushed and did not
}

// Open takes a file, whose size is a multiple of 4096 bytes, for a disk. seed
// decides what a cut leaves.
func Open(path string, seed uint64) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size()%block != 0 {
		err = fmt.Errorf("%s has %d bytes, which is no multiple of %d", path, info.Size(), block)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Disk{file: f, size: info.Size(), cache: map[int64][]byte{}, dice: rand.New(rand.NewPCG(seed, seed))}, nil
}

// Cut takes the power away: nothing is written any more, and what was not
// flushed is there or is not.
func (d *Disk) Cut() (Cuts, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return d.cuts, nil
	}
	d.off = true
	d.cuts.Cuts++
	var err error
	for n, data := range d.cache {
		if d.dice.IntN(2) == 0 {
			d.cuts.Lost += block
			continue
		}
		d.cuts.Kept += block
		if _, e := d.file.WriteAt(data, n*block); e != nil {
			err = e
		}
	}
	clear(d.cache)
	return d.cuts, err
}

// On gives the power back.
func (d *Disk) On() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = false
}

// Cuts tells what became of it so far.
func (d *Disk) Cuts() Cuts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cuts
}

// Close drops what was not flushed.
func (d *Disk) Close() error { return d.file.Close() }

// read fills p from the cache where it has it, and from the file.
func (d *Disk) read(p []byte, at int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.within(p, at); err != nil {
		return err
	}
	if _, err := d.file.ReadAt(p, at); err != nil {
		return err
	}
	for n := at / block; n*block < at+int64(len(p)); n++ {
		if data, ok := d.cache[n]; ok {
			overlay(p, at, data, n*block)
		}
	}
	return nil
}

// overlay copies what of src, which lies at from, belongs into dst, which lies
// at at.
func overlay(dst []byte, at int64, src []byte, from int64) {
	if from >= at {
		copy(dst[from-at:], src)
		return
	}
	copy(dst, src[at-from:])
}

// write takes p into the cache; safe says that it has to survive.
func (d *Disk) write(p []byte, at int64, safe bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.within(p, at); err != nil {
		return err
	}
	for n := at / block; n*block < at+int64(len(p)); n++ {
		data, ok := d.cache[n]
		if !ok {
			data = make([]byte, block)
			if _, err := d.file.ReadAt(data, n*block); err != nil {
				return err
			}
			d.cache[n] = data
		}
		overlay(data, n*block, p, at)
		if safe {
			if err := d.settle(n); err != nil {
				return err
			}
		}
	}
	return d.age()
}

// age writes some of what is in a full cache, as a disk does by itself.
func (d *Disk) age() error {
	for n := range d.cache {
		if len(d.cache) <= mostAge {
			break
		}
		if err := d.settle(n); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) settle(n int64) error {
	if _, err := d.file.WriteAt(d.cache[n], n*block); err != nil {
		return err
	}
	delete(d.cache, n)
	return nil
}

// flush makes all that was written survive a cut. The host's own page cache
// does: the host is not what loses its power here.
func (d *Disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return errOff
	}
	d.cuts.Flushes++
	for n := range d.cache {
		if err := d.settle(n); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) within(p []byte, at int64) error {
	switch {
	case d.off:
		return errOff
	case at < 0 || at > d.size || int64(len(p)) > d.size-at:
		return fmt.Errorf("%d bytes at %d are not within %d", len(p), at, d.size)
	}
	return nil
}
