package audio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"whisper-appliance/internal/fault"
)

// ErrNotWAV says that a file is something else: have the decoder look at it.
var ErrNotWAV = errors.New("not a RIFF WAVE file")

// Sample formats of a WAV file.
const (
	wavPCM        = 1
	wavFloat      = 3
	wavExtensible = 0xFFFE
)

// maxChunks bounds the walk through a file that is all tiny chunks.
const maxChunks = 1000

// streamedSize and above in the data chunk's length mean "nobody knew yet":
// programs that write to a pipe leave 0xFFFFFFFF or something near 2 GiB.
const streamedSize = 0x7FFFF000

// WAV is what a WAV file's headers say.
type WAV struct {
	Format     int // 1 = integers, 3 = float; that of the sub-format where the header is extensible
	Channels   int
	SampleRate int   // Hz
	Bits       int   // of one sample, as stored
	BlockAlign int   // bytes of one sample of all channels
	DataOffset int64 // of the first sample, from the start of the file
	DataSize   int64 // bytes of whole blocks that are there
	Truncated  bool  // the header promises more than there is
}

// FitsWAV reports whether the file needs no decoder: 16 kHz, mono, 16 bit
// integers or 32 bit floats.
func FitsWAV(w WAV) bool {
	return w.SampleRate == SampleRate && w.Channels == 1 && w.BlockAlign*8 == w.Bits &&
		(w.Format == wavPCM && w.Bits == 16 || w.Format == wavFloat && w.Bits == 32)
}

// Duration is how long the sound that is there lasts.
func (w WAV) Duration() time.Duration {
	if w.BlockAlign <= 0 || w.SampleRate <= 0 {
		return 0
	}
	return time.Duration(float64(w.DataSize/int64(w.BlockAlign)) / float64(w.SampleRate) * float64(time.Second))
}

// ParseWAV reads the headers of a file of size bytes. Errors: ErrNotWAV where
// it is something else (RF64 and RIFX included: the decoder reads those), a
// fault where it ends before its sound begins.
func ParseWAV(r io.ReaderAt, size int64) (WAV, error) {
	head := make([]byte, 12)
	if n, err := r.ReadAt(head, 0); n < len(head) {
		if err != io.EOF {
			return WAV{}, fmt.Errorf("read WAV header: %w", err)
		}
		return WAV{}, ErrNotWAV
	}
	if string(head[:4]) != "RIFF" || string(head[8:]) != "WAVE" {
		return WAV{}, ErrNotWAV
	}
	return walkChunks(r, size)
}

// walkChunks finds the format and the sound, in whichever order they come.
func walkChunks(r io.ReaderAt, size int64) (w WAV, err error) {
	var haveFormat, haveData bool
	at := int64(12)
	for range maxChunks {
		id, length, err := chunkAt(r, at)
		if err != nil {
			return w, err
		}
		switch id {
		case "fmt ":
			if err := w.parseFormat(r, at+8, length); err != nil {
				return w, err
			}
			haveFormat = true
		case "data":
			w.setData(r, at+8, length, size)
			haveData = true
		}
		if haveFormat && haveData {
			w.wholeBlocks()
			return w, nil
		}
		at += 8 + length + length&1 // a chunk of odd length is padded
		if at >= size {
			break
		}
	}
	return w, cutHeader(nil)
}

// chunkAt reads the name and length of the chunk at offset at.
func chunkAt(r io.ReaderAt, at int64) (id string, length int64, err error) {
	b := make([]byte, 8)
	if n, err := r.ReadAt(b, at); n < len(b) {
		if err != io.EOF {
			return "", 0, fmt.Errorf("read WAV chunk: %w", err)
		}
		return "", 0, cutHeader(err)
	}
	return string(b[:4]), int64(binary.LittleEndian.Uint32(b[4:])), nil
}

// subFormatTail is what follows the format's number in an extensible header's GUID.
const subFormatTail = "\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"

func (w *WAV) parseFormat(r io.ReaderAt, at, length int64) error {
	b := make([]byte, min(length, 40))
	if n, err := r.ReadAt(b, at); n < len(b) {
		return cutHeader(err)
	}
	if len(b) < 16 {
		return cutHeader(nil)
	}
	le := binary.LittleEndian
	w.Format = int(le.Uint16(b))
	w.Channels = int(le.Uint16(b[2:]))
	w.SampleRate = int(le.Uint32(b[4:]))
	w.BlockAlign = int(le.Uint16(b[12:]))
	w.Bits = int(le.Uint16(b[14:]))
	if w.Format != wavExtensible || len(b) < 40 {
		return nil
	}
	valid := int(le.Uint16(b[18:]))
	if bytes.Equal(b[26:40], []byte(subFormatTail)) && (valid == 0 || valid == w.Bits) {
		w.Format = int(le.Uint16(b[24:]))
	}
	return nil
}

// setData settles how much sound there is. A length of 0 or near the largest
// means that the file was written to a pipe: it goes on to the end.
func (w *WAV) setData(r io.ReaderAt, at, length, size int64) {
	rest := max(size-at, 0)
	w.DataOffset, w.DataSize = at, min(length, rest)
	switch {
	case length == 0 && !trailingChunks(r, at, size):
		w.DataSize = rest
	case length > rest && length < streamedSize:
		w.Truncated = true
	}
}

// trailingChunks reports whether all that follows offset at is chunks of
// descriptions, as after a data chunk that is truly empty.
func trailingChunks(r io.ReaderAt, at, size int64) bool {
	known := []string{"LIST", "fact", "bext", "cue ", "smpl", "inst", "id3 ", "ID3 ", "iXML", "JUNK", "PEAK", "fmt "}
	for range maxChunks {
		if at == size {
			return true
		}
		id, length, err := chunkAt(r, at)
		if err != nil || !slices.Contains(known, id) {
			return false
		}
		at += 8 + length + length&1
	}
	return false
}

// wholeBlocks drops the part of a sample that a cut may have left.
func (w *WAV) wholeBlocks() {
	if w.BlockAlign > 0 {
		w.DataSize -= w.DataSize % int64(w.BlockAlign)
	}
}

func cutHeader(err error) error {
	if err == io.EOF {
		err = nil
	}
	return fault.New(fault.Unsupported, "truncated", "the WAV file ends before its sound begins").On("file").
		Try("send the file again: it was cut off").Because(err)
}

// ReadWAV appends the sound of a WAV that fits to dst as f32le. Where FitsWAV
// would say no, err is ErrNotWAV and nothing was written.
func ReadWAV(r io.ReaderAt, size int64, dst io.Writer) (WAV, error) {
	w, err := ParseWAV(r, size)
	if err != nil {
		return w, err
	}
	if !FitsWAV(w) {
		return w, ErrNotWAV
	}
	return w, w.copyPCM(r, dst)
}

// copyPCM streams the samples of a WAV that fits.
func (w WAV) copyPCM(r io.ReaderAt, dst io.Writer) error {
	if w.DataSize == 0 {
		return nil
	}
	src := io.NewSectionReader(r, w.DataOffset, w.DataSize)
	if w.Bits == 32 {
		_, err := io.CopyBuffer(dst, struct{ io.Reader }{src}, make([]byte, pcmBuffer))
		return err
	}
	in, out := make([]byte, pcmBuffer/2), make([]byte, pcmBuffer)
	for {
		n, err := io.ReadFull(src, in)
		if n > 0 {
			if _, err := dst.Write(out[:widen(out, in[:n])]); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read WAV samples: %w", err)
		}
	}
}

// widen turns s16le into f32le, -1 to 1, and returns the bytes it made.
func widen(dst, src []byte) int {
	for i := 0; i+1 < len(src); i += 2 {
		v := float32(int16(binary.LittleEndian.Uint16(src[i:]))) / 32768
		binary.LittleEndian.PutUint32(dst[2*i:], math.Float32bits(v))
	}
	return len(src) &^ 1 * 2
}

// PCMHeaderSize is the length of a PCMHeader in bytes.
const PCMHeaderSize = 44

// PCMHeader is what makes a WAV of size bytes of bare samples: 16 kHz, mono, 16
// bit integers. Where size is more than its fields can say it says nothing, as
// programs do that write to a pipe.
func PCMHeader(size int64) []byte {
	const rest = PCMHeaderSize - 8 // of the header, which the file's length counts
	whole := size + rest
	if whole > math.MaxUint32 {
		size, whole = 0, 0
	}
	le := binary.LittleEndian
	b := le.AppendUint32([]byte("RIFF"), uint32(whole))
	b = le.AppendUint32(append(b, "WAVEfmt "...), 16)
	b = le.AppendUint16(b, wavPCM)
	b = le.AppendUint16(b, 1)
	b = le.AppendUint32(b, SampleRate)
	b = le.AppendUint32(b, 2*SampleRate)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 16)
	return le.AppendUint32(append(b, "data"...), uint32(size))
}
