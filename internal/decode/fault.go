package decode

import (
	"errors"
	"fmt"
	"time"

	"whisper-appliance/internal/fault"
)

// Codes of the faults that Decode returns, and of the protocol's failures.
const (
	CodeEmptyFile       = "empty_file"
	CodeTooLarge        = "too_large"
	CodeTooLong         = "too_long"
	CodeUndecodable     = "undecodable"
	CodeNoAudioStream   = "no_audio_stream"
	CodeTruncated       = "truncated"
	CodeForbiddenFormat = "forbidden_format"
	CodeTimeout         = "decode_timeout"
	CodeMemory          = "decode_memory"
	CodeDecoderMissing  = "decoder_missing"
	CodeDecoderDied     = "decoder_died"
	CodeDecoderFailed   = "decoder_failed"
	CodeCanceled        = "canceled"
)

// failure is an 'E' frame. The words for people are made from its code by the
// server's end; the detail is for the log.
type failure struct {
	Code   string `json:"code"`
	Detail string `json:"detail,omitempty"`
}

func (f *failure) Error() string { return f.Code + ": " + f.Detail }

func fail(code, format string, args ...any) *failure {
	return &failure{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// inWords puts a failure into words. Errors of other kinds, and codes that are
// not in the table, become an internal fault.
func inWords(err error, l Limits) error {
	var f *failure
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	if !errors.As(err, &f) {
		return failed(err)
	}
	out := words(f.Code, l)
	if out == nil {
		return failed(err)
	}
	if f.Detail != "" {
		out = out.Because(errors.New(f.Detail))
	}
	return out
}

func failed(err error) *fault.Error {
	return fault.New(fault.Internal, CodeDecoderFailed, "the decoder could not do its work").Because(err)
}

// words is the table of what people read; nil for a code that is not in it.
func words(code string, l Limits) *fault.Error {
	const otherFile = "send a sound or video file: wav, mp3, m4a, mp4, ogg, opus, webm, flac and many more"
	file := func(kind fault.Kind, message, hint string) *fault.Error {
		return fault.New(kind, code, "%s", message).On("file").Try("%s", hint)
	}
	switch code {
	case CodeEmptyFile:
		return file(fault.BadInput, "the file is empty: it has 0 bytes", "send the file again")
	case CodeTooLarge:
		return file(fault.TooLarge, fmt.Sprintf("the file is larger than the limit of %s", fault.Bytes(l.MaxBytes)),
			"compress it (mono Opus or MP3 loses nothing that matters here), or raise the limit in the settings")
	case CodeTooLong:
		return file(fault.TooLarge, fmt.Sprintf("the recording is longer than the limit of %s", l.MaxDuration),
			"send it in parts, or raise the limit in the settings")
	case CodeUndecodable:
		return file(fault.Unsupported, "the file is not sound or video that can be read", otherFile)
	case CodeNoAudioStream:
		return file(fault.Unsupported, "the file has no sound: it holds pictures only", otherFile)
	case CodeTruncated:
		return file(fault.Unsupported, "the file was cut off or is damaged: no sound could be read", "send the file again, or export it anew")
	case CodeForbiddenFormat:
		return file(fault.Unsupported, "the file is a playlist: it names sound that is elsewhere and has none of its own", "send the sound itself")
	case CodeTimeout:
		return file(fault.TooLarge, fmt.Sprintf("decoding the file took longer than the limit of %s", l.Timeout.Round(time.Millisecond)),
			"convert it to WAV or FLAC first, or raise the limit in the settings")
	case CodeMemory:
		return file(fault.TooLarge, fmt.Sprintf("decoding the file needs more memory than the limit of %s", fault.Bytes(l.memory())),
			"convert it to WAV or FLAC first")
	case CodeDecoderMissing:
		return fault.New(fault.Unavailable, code, "ffmpeg, which decodes this kind of file, is not installed").
			Try("apt install ffmpeg; WAV of 16 kHz, mono, 16 bit works without it")
	case CodeDecoderDied:
		return fault.New(fault.Internal, code, "the decoder died before it had finished").
			Try("try again; if it happens again with this file, convert the file to WAV or FLAC")
	case CodeCanceled:
		return fault.New(fault.Canceled, code, "decoding was cancelled")
	}
	return nil
}

func (l Limits) memory() int64 {
	if l.Memory > 0 {
		return l.Memory
	}
	return DefaultMemory
}
