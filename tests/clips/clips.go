// Package clips is the recordings that the measurements send: where they are,
// the same sound in the one form that every recogniser reads (16 kHz, mono,
// 16 bit), several of them joined into a long one, and the upload itself. It
// trusts the recordings and ffmpeg, and writes WAV files where it is told to.
package clips

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/durable"
)

// Manifest is the table of recordings, in the directory that Shared finds.
const Manifest = "transcripts.tsv"

// Sound is 16 kHz mono.
type Sound []int16

// Shared is the directory of spoken clips that lies beside the repository:
// ../shared/speech of root. The error says where it looked.
func Shared(root string) (string, error) {
	dir := filepath.Join(filepath.Dir(root), "shared", "speech")
	if _, err := os.Stat(filepath.Join(dir, Manifest)); err != nil {
		return "", fmt.Errorf("find the spoken clips in %s: %w", dir, err)
	}
	return dir, nil
}

// Read is the sound of any recording, by ffmpeg.
func Read(ctx context.Context, path string) (Sound, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "ffmpeg", "-nostdin", "-v", "error", "-i", path,
		"-f", "s16le", "-ac", "1", "-ar", fmt.Sprint(audio.SampleRate), "-")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("convert %s: %w: %s", filepath.Base(path), err, bytes.TrimSpace(stderr.Bytes()))
	}
	sound := make(Sound, stdout.Len()/2)
	if _, err := binary.Decode(stdout.Bytes(), binary.LittleEndian, sound); err != nil {
		return nil, fmt.Errorf("convert %s: %w", filepath.Base(path), err)
	}
	if len(sound) == 0 {
		return nil, fmt.Errorf("convert %s: no sound came out", filepath.Base(path))
	}
	return sound, nil
}

// Convert makes dst the sound of src as a WAV file.
func Convert(ctx context.Context, src, dst string) error {
	sound, err := Read(ctx, src)
	if err != nil {
		return err
	}
	return sound.WriteWAV(dst)
}

// Duration is how long the sound lasts.
func (s Sound) Duration() time.Duration { return audio.Duration(int64(len(s))) }

// Fit is the sound cut, or filled up with silence, to last exactly d.
func (s Sound) Fit(d time.Duration) Sound {
	fitted := make(Sound, audio.SamplesIn(d))
	copy(fitted, s)
	return fitted
}

// Join puts sounds behind each other with silent pauses between them, each
// from shortest to longest long. One seed gives one result.
func Join(sounds []Sound, shortest, longest time.Duration, seed uint64) Sound {
	random := rand.New(rand.NewPCG(seed, seed))
	var joined Sound
	for i, s := range sounds {
		if i > 0 {
			pause := shortest + time.Duration(random.Int64N(int64(longest-shortest)+1))
			joined = append(joined, make(Sound, audio.SamplesIn(pause))...)
		}
		joined = append(joined, s...)
	}
	return joined
}

// WriteWAV makes path a WAV file of the sound.
func (s Sound) WriteWAV(path string) error {
	const sampleBytes = 2
	header := struct {
		Riff          [4]byte
		Rest          uint32
		Wave, Fmt     [4]byte
		FmtSize       uint32
		PCM, Channels uint16
		Rate, Flow    uint32
		Align, Bits   uint16
		Data          [4]byte
		Size          uint32
	}{
		[4]byte([]byte("RIFF")), 0, [4]byte([]byte("WAVE")), [4]byte([]byte("fmt ")),
		16, 1, 1, audio.SampleRate, audio.SampleRate * sampleBytes, sampleBytes, 8 * sampleBytes,
		[4]byte([]byte("data")), uint32(len(s) * sampleBytes),
	}
	header.Rest = header.Size + uint32(binary.Size(header)) - 8
	return durable.Write(path, 0o644, func(w io.Writer) error {
		if err := binary.Write(w, binary.LittleEndian, header); err != nil {
			return err
		}
		return binary.Write(w, binary.LittleEndian, []int16(s))
	})
}
