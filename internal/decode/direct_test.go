package decode

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"path/filepath"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// wav is a file of 16 bit samples, all of value 1/2, whose header promises
// length bytes and which holds samples of them.
func wav(rate, length, samples int) []byte {
	le := binary.LittleEndian
	b := append([]byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"), le.AppendUint32(nil, uint32(rate))...)
	b = le.AppendUint32(b, uint32(2*rate))
	b = append(b, "\x02\x00\x10\x00data"...)
	b = le.AppendUint32(b, uint32(length))
	return append(b, bytes.Repeat([]byte{0, 0x40}, samples)...)
}

// noDecoder fails whenever it is needed.
func noDecoder(t *testing.T) *Decoder {
	return &Decoder{Program: []string{filepath.Join(t.TempDir(), "absent")}}
}

func TestDirect(t *testing.T) {
	const second = 16000
	tests := []struct {
		name    string
		file    []byte
		limits  Limits
		code    string
		seconds int
		note    bool
	}{
		{"fits", wav(16000, 4*second, 2*second), Limits{MaxDuration: 2 * time.Second}, "", 2, false},
		{"no samples", wav(16000, 0, 0), Limits{}, "", 0, false},
		{"cut", wav(16000, 8*second, second), Limits{}, "", 1, true},
		{"too long", wav(16000, 4*second, 2*second), Limits{MaxDuration: time.Second}, CodeTooLong, 0, false},
		{"too large", wav(16000, 4*second, 2*second), Limits{MaxBytes: 1000}, CodeTooLarge, 0, false},
		{"cut in its header", wav(16000, 0, 0)[:30], Limits{}, CodeTruncated, 0, false},
		{"another rate", wav(8000, 4*second, 2*second), Limits{}, CodeDecoderMissing, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			info, err := noDecoder(t).Decode(t.Context(), file(t, tt.file), tt.limits, &out)
			if tt.code != "" {
				wantFault(t, err, tt.code)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if info.Duration != time.Duration(tt.seconds)*time.Second || out.Len() != tt.seconds*bytesPerSecond {
				t.Errorf("%v in %d bytes, want %d s", info.Duration, out.Len(), tt.seconds)
			}
			if !info.Direct || info.Codec != "pcm_s16le" || (info.Note != "") != tt.note {
				t.Errorf("got %+v", info)
			}
		})
	}
}

func TestDirectStops(t *testing.T) {
	in := file(t, wav(16000, 32000, 16000))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := noDecoder(t).Decode(ctx, in, Limits{}, io.Discard)
	wantFault(t, err, CodeCanceled)
	full := fault.New(fault.NoSpace, "disk_full", "full")
	if _, err := noDecoder(t).Decode(t.Context(), in, Limits{}, failingSink{full}); err != error(full) {
		t.Errorf("got %v, want the sink's own error", err)
	}
}
