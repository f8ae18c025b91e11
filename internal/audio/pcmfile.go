package audio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// pcmBuffer bounds what an append or a read holds in memory beside its samples,
// in bytes.
const pcmBuffer = 64 << 10

// PCMFile is PCM on disk: appended once, then read anywhere, by several
// goroutines if need be. The file has no name, so its space is free again after
// Close and after a crash alike.
type PCMFile struct {
	f *os.File

	mu   sync.Mutex
	buf  []byte // written but not in f yet
	size int64  // bytes in f and buf
	err  error  // the first failed write; the file is of no use after it
}

// CreatePCM makes an empty PCMFile on the file system of dir.
func CreatePCM(dir string) (*PCMFile, error) {
	f, err := durable.Nameless(dir, 0o600)
	if err != nil {
		return nil, spaceFault(fmt.Errorf("create PCM spool: %w", err))
	}
	return &PCMFile{f: f, buf: make([]byte, 0, pcmBuffer)}, nil
}

// Write appends f32le bytes. It may be called with any split of them. A full
// disk is a fault of kind NoSpace.
func (p *PCMFile) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	if len(p.buf)+len(b) > pcmBuffer {
		if err := p.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) >= pcmBuffer {
		n, err := p.f.Write(b)
		p.size += int64(n)
		return n, p.fail(err)
	}
	p.buf = append(p.buf, b...)
	p.size += int64(len(b))
	return len(b), nil
}

// flush moves the buffer to the file; mu is held.
func (p *PCMFile) flush() error {
	if p.err != nil || len(p.buf) == 0 {
		return p.err
	}
	_, err := p.f.Write(p.buf)
	p.buf = p.buf[:0]
	return p.fail(err)
}

// fail remembers err and puts it into words; mu is held.
func (p *PCMFile) fail(err error) error {
	if err != nil {
		p.err = spaceFault(fmt.Errorf("write PCM spool: %w", err))
		return p.err
	}
	return nil
}

// Samples is how many whole samples were written.
func (p *PCMFile) Samples() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size / SampleSize
}

// Duration is how long they last.
func (p *PCMFile) Duration() time.Duration { return Duration(p.Samples()) }

// ReadSamples implements Source.
func (p *PCMFile) ReadSamples(dst []float32, from int64) (int, error) {
	p.mu.Lock()
	err := p.flush()
	have := p.size/SampleSize - from
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if from < 0 || have <= 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(dst)), have))
	b := make([]byte, min(n*SampleSize, pcmBuffer))
	for done := 0; done < n; done += len(b) / SampleSize {
		b = b[:min(len(b), (n-done)*SampleSize)]
		if _, err := p.f.ReadAt(b, (from+int64(done))*SampleSize); err != nil {
			return 0, fmt.Errorf("read PCM spool: %w", err)
		}
		decodeF32(dst[done:done+len(b)/SampleSize], b)
	}
	if n < len(dst) {
		return n, io.EOF
	}
	return n, nil
}

// ReadWindow returns the samples from start to end, both from the beginning
// of the recording; what lies past its end is left out.
func (p *PCMFile) ReadWindow(start, end time.Duration) ([]float32, error) {
	from, to := SamplesIn(start), min(SamplesIn(end), p.Samples())
	if from < 0 || to < from {
		return nil, fmt.Errorf("read window %v to %v of %v: out of order", start, end, p.Duration())
	}
	pcm := make([]float32, to-from)
	if len(pcm) == 0 {
		return pcm, nil
	}
	_, err := p.ReadSamples(pcm, from)
	return pcm, err
}

// Close gives the space back.
func (p *PCMFile) Close() error { return p.f.Close() }

// spaceFault gives a full disk its words and leaves other errors as they are.
func spaceFault(err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return fault.New(fault.NoSpace, "disk_full", "there is no room left for the decoded sound").
		Try("free some space in the state directory: an hour of sound needs 230 MB while it is transcribed").
		Because(err)
}
