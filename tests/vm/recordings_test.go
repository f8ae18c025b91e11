//go:build e2e

package vm

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/vm/hearing"
)

// recording is one that is sent as a job.
type recording struct {
	name, path string
	size       int64
	text       string // that has to come out

	pieces bool   // it is sent in pieces
	upload string // that it has become so far; "" = none was begun
}

// burst is noise that no other call gives, about half a second of it.
func burst(random *rand.Rand) clips.Sound {
	sound := make(clips.Sound, audio.SamplesIn(500*time.Millisecond)+random.Int64N(1600))
	for i := range sound {
		sound[i] = int16(random.IntN(20000) - 10000)
	}
	return sound
}

// recordings are n of different noise with what the appliance makes of each: every
// eighth has three windows, and every fourth comes in pieces.
func recordings(t *testing.T, n int, random *rand.Rand) (all []*recording) {
	t.Helper()
	dir, heard := t.TempDir(), listener(t)
	texts := map[string]string{}
	for i := range n {
		sounds := []clips.Sound{burst(random)}
		if i%8 == 5 {
			sounds = append(sounds, burst(random), burst(random))
		}
		r := &recording{name: fmt.Sprintf("noise-%03d.wav", i), pieces: i%4 == 1}
		r.path = filepath.Join(dir, r.name)
		if err := clips.Join(sounds, 6*time.Second, 7*time.Second, random.Uint64()).WriteWAV(r.path); err != nil {
			t.Fatal(err)
		}
		r.text, r.size = heard(r.path)
		if other := texts[r.text]; r.text == "" || other != "" {
			t.Fatalf("of %s the fake engine hears %q, as of %s", r.name, r.text, other)
		}
		texts[r.text] = r.name
		all = append(all, r)
	}
	return all
}

// listener gives what the appliance makes of a recording where nothing disturbs
// it: its own code, with the fake engine in this process.
func listener(t *testing.T) func(path string) (text string, size int64) {
	t.Helper()
	backend, err := hearing.New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	model, err := backend.Load("ggml-tiny.bin")
	if err != nil {
		t.Fatal(err)
	}
	engine, err := model.NewState()
	if err != nil {
		t.Fatal(err)
	}
	service := transcribe.Service{Engine: engine, Decoder: wavs{}, Queue: &schedule.Queue{}, Spool: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	return func(path string) (string, int64) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		job := transcribe.Job{Audio: f, Name: path, Class: schedule.Long, Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Transcribe}
		result, err := service.Run(t.Context(), job, func(transcribe.Update) {})
		if err != nil {
			t.Fatal(err)
		}
		return result.Text(), info.Size()
	}
}

// wavs reads WAV files.
type wavs struct{}

func (wavs) Decode(_ context.Context, f *os.File, _ decode.Limits, sink io.Writer) (decode.Info, error) {
	info, err := f.Stat()
	if err == nil {
		_, err = audio.ReadWAV(f, info.Size(), sink)
	}
	return decode.Info{}, err
}
