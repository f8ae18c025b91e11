// Package audio holds recordings the way the engine wants them: 16 kHz mono
// float32 PCM. It reads WAV files that already fit, keeps PCM in a file of no
// name while a job lasts, measures its energy, tells loud from silent where no
// better detector does, and packs speech into windows, which end in pauses.
//
// PCM at rest is f32le, not s16le: it is what the decoder sends and what the
// engine takes, so nothing is converted, rounded or clipped between them, and
// it costs 230 MB an hour of disk, never of memory.
//
// It trusts no input: every length in a WAV header is checked against the
// file, and samples that are not numbers become silence. It writes to the
// directory given to CreatePCM alone.
package audio

import (
	"encoding/binary"
	"math"
	"time"
)

// SampleRate is the rate of all PCM here, in Hz.
const SampleRate = 16000

// SampleSize is the size of a sample at rest, in bytes: f32le.
const SampleSize = 4

// samplePeriod is exact: 16 kHz divides a second into whole nanoseconds.
const samplePeriod = time.Second / SampleRate

// Duration is how long n samples last.
func Duration(n int64) time.Duration { return time.Duration(n) * samplePeriod }

// SamplesIn is the number of whole samples in d.
func SamplesIn(d time.Duration) int64 { return int64(d / samplePeriod) }

// Source is PCM that can be read anywhere.
type Source interface {
	// Samples is how many there are.
	Samples() int64
	// ReadSamples fills p from sample number from on. Like io.ReaderAt it
	// returns io.EOF where it filled less than all of p.
	ReadSamples(p []float32, from int64) (int, error)
}

// decodeF32 turns f32le bytes into samples; len(b) is SampleSize*len(dst).
// Samples that are no finite number become 0: one of them would make every
// sum over the recording meaningless. Louder than full scale is cut to it, as
// every player does with float files that were never normalised.
func decodeF32(dst []float32, b []byte) {
	for i := range dst {
		bits := binary.LittleEndian.Uint32(b[i*SampleSize:])
		if bits>>23&0xff == 0xff {
			bits = 0
		}
		dst[i] = max(-1, min(1, math.Float32frombits(bits)))
	}
}
