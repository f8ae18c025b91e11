package audio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"whisper-appliance/internal/fault"
)

// chunk builds one RIFF chunk, padded; size overrides the length it states.
func chunk(id string, body []byte, size ...uint32) []byte {
	n := uint32(len(body))
	if len(size) > 0 {
		n = size[0]
	}
	b := append([]byte(id), binary.LittleEndian.AppendUint32(nil, n)...)
	b = append(b, body...)
	if len(body)%2 == 1 {
		b = append(b, 0)
	}
	return b
}

func riff(chunks ...[]byte) []byte {
	body := append([]byte("WAVE"), bytes.Join(chunks, nil)...)
	return append(append([]byte("RIFF"), binary.LittleEndian.AppendUint32(nil, uint32(len(body)))...), body...)
}

func format(code, channels, rate, bits int) []byte {
	le := binary.LittleEndian
	b := le.AppendUint16(nil, uint16(code))
	b = le.AppendUint16(b, uint16(channels))
	b = le.AppendUint32(b, uint32(rate))
	b = le.AppendUint32(b, uint32(rate*channels*bits/8))
	b = le.AppendUint16(b, uint16(channels*bits/8))
	return le.AppendUint16(b, uint16(bits))
}

func extensible(code, channels, rate, bits, valid int) []byte {
	b := format(wavExtensible, channels, rate, bits)
	b = append(b, 22, 0, byte(valid), 0, 4, 0, 0, 0, byte(code), 0)
	return append(b, subFormatTail...)
}

// s16 and its float image, for all tests.
var (
	s16Samples = []byte{0, 0, 0xff, 0x7f, 0, 0x80, 0, 0x40}
	f32Image   = []float32{0, 32767.0 / 32768, -1, 0.5}
)

func TestReadWAVThatFits(t *testing.T) {
	f32 := make([]byte, 16)
	encodeF32(f32, f32Image)
	fmt16 := chunk("fmt ", format(1, 1, 16000, 16))
	tests := []struct {
		name      string
		file      []byte
		want      []float32
		truncated bool
	}{
		{"s16", riff(fmt16, chunk("data", s16Samples)), f32Image, false},
		{"float", riff(chunk("fmt ", format(3, 1, 16000, 32)), chunk("data", f32)), f32Image, false},
		{"extensible s16", riff(chunk("fmt ", extensible(1, 1, 16000, 16, 16)), chunk("data", s16Samples)), f32Image, false},
		{"extensible float", riff(chunk("fmt ", extensible(3, 1, 16000, 32, 0)), chunk("data", f32)), f32Image, false},
		{"LIST of odd length before", riff(chunk("LIST", []byte("odd")), fmt16, chunk("data", s16Samples)), f32Image, false},
		{"chunks after the sound", riff(fmt16, chunk("data", s16Samples), chunk("LIST", []byte("INFO"))), f32Image, false},
		{"format after the sound", riff(chunk("data", s16Samples), fmt16), f32Image, false},
		{"streamed, length 0", riff(fmt16, chunk("data", s16Samples, 0)), f32Image, false},
		{"streamed, length 0xFFFFFFFF", riff(fmt16, chunk("data", s16Samples, math.MaxUint32)), f32Image, false},
		{"streamed, length near 2 GiB", riff(fmt16, chunk("data", s16Samples, 0x7FFFF024)), f32Image, false},
		{"cut in the sound", riff(fmt16, chunk("data", s16Samples, 4000)), f32Image, true},
		{"cut inside a sample", riff(fmt16, chunk("data", s16Samples, 4000))[:12+24+8+5], f32Image[:2], true},
		{"no samples", riff(fmt16, chunk("data", nil)), nil, false},
		{"no samples but a description", riff(fmt16, chunk("data", nil), chunk("LIST", []byte("INFO"))), nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			w, err := ReadWAV(bytes.NewReader(tt.file), int64(len(tt.file)), &out)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, out.Len()/SampleSize)
			decodeF32(got, out.Bytes())
			if len(got) != len(tt.want) {
				t.Fatalf("%d samples, want %d", len(got), len(tt.want))
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Errorf("sample %d is %v, want %v", i, got[i], tt.want[i])
				}
			}
			if w.Truncated != tt.truncated {
				t.Errorf("truncated %v, want %v", w.Truncated, tt.truncated)
			}
			if w.Duration() != Duration(int64(len(tt.want))) {
				t.Errorf("duration %v, want that of %d samples", w.Duration(), len(tt.want))
			}
		})
	}
}

func TestReadWAVLeavesTheRestToTheDecoder(t *testing.T) {
	data := chunk("data", s16Samples)
	odd := format(1, 1, 16000, 16)
	odd[12] = 4 // block align that does not match
	tests := map[string][]byte{
		"empty":             nil,
		"text":              []byte("this is no sound at all"),
		"RF64":              append([]byte("RF64"), riff()[4:]...),
		"stereo":            riff(chunk("fmt ", format(1, 2, 16000, 16)), data),
		"8 kHz":             riff(chunk("fmt ", format(1, 1, 8000, 16)), data),
		"mu-law":            riff(chunk("fmt ", format(7, 1, 16000, 8)), data),
		"24 bit":            riff(chunk("fmt ", format(1, 1, 16000, 24)), data),
		"8 bit":             riff(chunk("fmt ", format(1, 1, 16000, 8)), data),
		"float of 64 bit":   riff(chunk("fmt ", format(3, 1, 16000, 64)), data),
		"odd block":         riff(chunk("fmt ", odd), data),
		"12 valid bits":     riff(chunk("fmt ", extensible(1, 1, 16000, 16, 12)), data),
		"extensible, short": riff(chunk("fmt ", format(wavExtensible, 1, 16000, 16)), data),
	}
	for name, file := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			_, err := ReadWAV(bytes.NewReader(file), int64(len(file)), &out)
			if !errors.Is(err, ErrNotWAV) || out.Len() > 0 {
				t.Errorf("got %v and %d bytes, want ErrNotWAV and none", err, out.Len())
			}
		})
	}
}

func TestReadWAVCutInItsHeader(t *testing.T) {
	whole := riff(chunk("fmt ", format(1, 1, 16000, 16)), chunk("data", s16Samples))
	for n := 12; n < 44; n++ {
		_, err := ReadWAV(bytes.NewReader(whole[:n]), int64(n), &bytes.Buffer{})
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != "truncated" || f.Hint == "" {
			t.Fatalf("cut at %d: got %v, want a truncated fault", n, err)
		}
	}
}

func FuzzParseWAV(f *testing.F) {
	f.Add(riff(chunk("fmt ", format(1, 1, 16000, 16)), chunk("data", s16Samples)))
	f.Add(riff(chunk("fmt ", extensible(3, 2, 48000, 32, 32)), chunk("data", s16Samples, 0)))
	f.Fuzz(func(t *testing.T, file []byte) {
		w, err := ParseWAV(bytes.NewReader(file), int64(len(file)))
		if err == nil && (w.DataSize < 0 || w.DataOffset+w.DataSize > int64(len(file))) {
			t.Errorf("sound from %d of %d bytes in a file of %d", w.DataOffset, w.DataSize, len(file))
		}
	})
}

// TestPCMHeader: bare samples behind it are read back as they are, also where
// there are more than a header can say.
func TestPCMHeader(t *testing.T) {
	for _, n := range []int64{0, 2, 1000} {
		file := append(PCMHeader(n), bytes.Repeat([]byte{0, 64}, int(n/2))...)
		var out bytes.Buffer
		w, err := ReadWAV(bytes.NewReader(file), int64(len(file)), &out)
		if err != nil || w.Truncated || w.DataOffset != PCMHeaderSize || w.DataSize != n || int64(out.Len()) != 2*n {
			t.Errorf("%d bytes: %+v, %v, %d bytes out", n, w, err, out.Len())
		}
		for i := 0; i+4 <= out.Len(); i += 4 {
			if v := math.Float32frombits(binary.LittleEndian.Uint32(out.Bytes()[i:])); v != 0.5 {
				t.Fatalf("sample %d is %v, want 0.5", i/4, v)
			}
		}
	}
	const huge = int64(5) << 30
	head := append(PCMHeader(huge), 1, 2, 3, 4, 5, 6, 7, 8)
	w, err := ParseWAV(bytes.NewReader(head), huge+PCMHeaderSize)
	if err != nil || w.DataSize != huge || w.Truncated || !FitsWAV(w) {
		t.Errorf("5 GiB: %+v, %v", w, err)
	}
}
