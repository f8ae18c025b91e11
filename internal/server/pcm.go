package server

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/fault"
)

// copy writes a recording to its file in the spool, most bytes of it at most,
// and returns how many there were. Bare samples get a WAV's header: so whoever
// reads the file, later or after a crash, need not be told what it is, and
// nothing has to guess.
//
// Such samples are what whisper-asr-webservice takes with encode=false
// (load_audio in its app/utils.py), and all that Bazarr sends (its
// custom_libs/subliminal_patch/providers/whisperai.py).
func (f form) copy(file *os.File, src io.Reader, most int64) (int64, error) {
	if !f.bare {
		return io.Copy(file, io.LimitReader(src, most))
	}
	in := bufio.NewReader(src)
	first, _ := in.Peek(12) //nolint:errcheck // reading on tells
	head := string(first)
	if strings.HasPrefix(head, "RIFF") && strings.HasSuffix(head, "WAVE") && len(head) == 12 {
		return io.Copy(file, io.LimitReader(in, most)) // it says itself what it is
	}
	if kind := container(head); kind != "" {
		return 0, fault.New(fault.BadInput, "not_pcm", "encode=false says that the recording is bare samples, and it is %s", kind).On(f.file).
			Try("leave encode out: then any file will do")
	}
	if _, err := file.Write(audio.PCMHeader(0)); err != nil {
		return 0, err
	}
	size, err := io.Copy(file, io.LimitReader(in, most))
	if err != nil {
		return size, err
	}
	if size%2 != 0 && size < most {
		return size, fault.New(fault.BadInput, "not_pcm", "encode=false says that the recording is samples of 16 bits, and it has %d bytes", size).On(f.file).
			Try("send s16le at 16 kHz, mono, or leave encode out")
	}
	if _, err := file.WriteAt(audio.PCMHeader(size), 0); err != nil {
		return size, fmt.Errorf("put the header before the samples: %w", err)
	}
	return size, nil
}

// container is what a file of no bare samples is, by its first bytes; "" where
// they say nothing. Samples that happen to begin so are one in four billion.
func container(head string) string {
	if len(head) >= 8 && head[4:8] == "ftyp" {
		return "an MP4 file"
	}
	for magic, kind := range map[string]string{
		"fLaC": "a FLAC file", "OggS": "an Ogg file", "\x1aE\xdf\xa3": "a Matroska or WebM file", "ID3\x03": "an MP3 file", "ID3\x04": "an MP3 file",
	} {
		if strings.HasPrefix(head, magic) {
			return kind
		}
	}
	return ""
}
