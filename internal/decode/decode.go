// Package decode turns any media file into 16 kHz mono PCM without the server
// ever parsing it, but for the headers of a WAV that is such PCM already. It is
// both ends of one protocol:
//
// The server's end, Decoder, starts the decoder program with one end of a
// socket pair as descriptor 3, just as systemd would for a socket unit with
// Accept=yes, and sends one message: a line of JSON (Limits) and the
// descriptor of the file. The decoder's end, Worker, gives up every right but
// that of reading this file (Confine), executes ffmpeg and answers with frames
// of one byte type, four bytes length (little endian) and payload:
//
//	'P'  f32le samples, 16 kHz mono
//	'D'  Info as JSON: the end
//	'E'  a failure as JSON: the end
//
// The file's descriptor is all that the decoder sees of it: ffmpeg opens it
// again under its number, so it can seek.
//
// The server's end trusts nothing that comes back: it counts the samples
// itself, takes the words for people from its own table and ends the decoder
// with all its children when the answer is over. The decoder's end trusts the
// server and nothing in the file. Neither writes anything but to its sink.
package decode

import (
	"time"

	"whisper-appliance/internal/audio"
)

// bytesPerSecond of the PCM.
const bytesPerSecond = audio.SampleRate * audio.SampleSize

// DefaultMemory is the address space the decoder may use where Limits names
// none: ffmpeg with its libraries maps a few hundred MB before it begins.
const DefaultMemory = 2 << 30

// Limits bound one decode. Zero values are no limit.
type Limits struct {
	MaxDuration time.Duration `json:"max_duration_ns,omitempty"` // of the sound
	MaxBytes    int64         `json:"max_bytes,omitempty"`       // of the file
	Timeout     time.Duration `json:"timeout_ns,omitempty"`      // wall and CPU time
	Memory      int64         `json:"memory,omitempty"`          // bytes of address space; 0 = DefaultMemory
}

// Info is what is known of a file once it is decoded.
type Info struct {
	Duration   time.Duration `json:"duration_ns"` // of the PCM that was written
	Format     string        `json:"format"`      // ffmpeg's name of the container: "mov,mp4,m4a,3gp,3g2,mj2"
	Codec      string        `json:"codec"`       // ffmpeg's name: "aac"
	SampleRate int           `json:"sample_rate"` // Hz, in the file
	Channels   int           `json:"channels"`    // in the file
	HasVideo   bool          `json:"has_video"`   // moving pictures; a cover is none
	Direct     bool          `json:"direct"`      // a WAV that fits: read without a decoder, so without a sandbox
	Note       string        `json:"note,omitempty"`
	Sandbox    Sandbox       `json:"sandbox"`
}

// Sandbox says what the decoder had given up when it touched the file.
type Sandbox struct {
	Landlock int  `json:"landlock"` // ABI version in force; 0 = this kernel has none
	Seccomp  bool `json:"seccomp"`  // no sockets of any kind
}

// Level is "full", or "reduced" where the kernel lacks a part.
func (s Sandbox) Level() string {
	if s.Landlock > 0 && s.Seccomp {
		return "full"
	}
	return "reduced"
}
