package decode

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
	"unicode"

	"whisper-appliance/internal/audio"
)

// grace is how long past the timeout the decoder has to say so itself.
const grace = 2 * time.Second

// Decoder is the server's end: one decoder for each file. It connects to
// Socket, where systemd starts one for each connection, or else starts Program.
type Decoder struct {
	// Program is the decoder with its arguments. Of the environment it gets PATH alone.
	Program []string
	Socket  string // path; "" = there is none, and Program is started
}

// Decode writes the sound of f to sink as f32le, 16 kHz, mono, in pieces as
// they come. What sink holds is of use only where err is nil. f has to be a
// regular file that the decoder's user may read; its offset does not matter.
// A file that holds no sample gives no error and a Duration of 0; one that
// ends early gives what is there, and Info.Note says so. A WAV that fits
// already is read straight, without a decoder.
//
// Errors are *fault.Error with one of the Codes. An error of the sink is
// returned as it is. When Decode returns, no process
// that it started is left; one that systemd started ends with the connection.
func (d *Decoder) Decode(ctx context.Context, f *os.File, l Limits, sink io.Writer) (Info, error) {
	if err := check(f, l); err != nil {
		return Info{}, inWords(err, l)
	}
	info, err := direct(ctx, f, l, sink)
	if !errors.Is(err, audio.ErrNotWAV) {
		return info, err
	}
	return d.byProgram(ctx, f, l, sink)
}

// byProgram decodes with a process of its own.
func (d *Decoder) byProgram(ctx context.Context, f *os.File, l Limits, sink io.Writer) (Info, error) {
	if l.Timeout > 0 {
		late := fail(CodeTimeout, "no answer in time")
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, l.Timeout+grace, late)
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return Info{}, inWords(stopped(ctx), l)
	}
	p, err := d.open(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return Info{}, inWords(stopped(ctx), l)
	case err != nil:
		return Info{}, err
	}
	stop := context.AfterFunc(ctx, p.kill)
	info, err := exchange(p.conn, f, l, sink)
	stop()
	p.end()
	if err == nil {
		return info, nil
	}
	var sunk *sinkError
	switch {
	case errors.As(err, &sunk):
		return Info{}, sunk.err
	case ctx.Err() != nil:
		return Info{}, inWords(stopped(ctx), l)
	case errors.Is(err, errBroken):
		return Info{}, inWords(fail(CodeDecoderDied, "%v; %s", err, p.lastWords()), l)
	}
	return Info{}, inWords(err, l)
}

// open gives a decoder that waits for its file.
func (d *Decoder) open(ctx context.Context) (*process, error) {
	if d.Socket == "" {
		return d.start()
	}
	return d.connect(ctx)
}

// stopped tells a timeout from a caller that left.
func stopped(ctx context.Context) error {
	var late *failure
	if errors.As(context.Cause(ctx), &late) {
		return late
	}
	return fail(CodeCanceled, "%v", context.Cause(ctx))
}

// check refuses what needs no decoder to be refused.
func check(f *os.File, l Limits) error {
	st, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file", st.Name())
	case st.Size() == 0:
		return fail(CodeEmptyFile, "")
	case l.MaxBytes > 0 && st.Size() > l.MaxBytes:
		return fail(CodeTooLarge, "%d bytes", st.Size())
	}
	return nil
}

// errBroken says that the answer ended without a last frame.
var errBroken = errors.New("the stream broke off")

// sinkError keeps the caller's own error apart from the decoder's.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }

// exchange sends the request and reads the answer to its end.
func exchange(conn *net.UnixConn, f *os.File, l Limits, sink io.Writer) (Info, error) {
	if err := sendRequest(conn, f, l); err != nil {
		return Info{}, fmt.Errorf("%w: send request: %w", errBroken, err)
	}
	r, buf := bufio.NewReaderSize(conn, maxFrame), make([]byte, maxFrame)
	var total int64
	for {
		kind, payload, err := readFrame(r, buf)
		if err != nil {
			return Info{}, fmt.Errorf("%w after %d bytes of sound: %w", errBroken, total, err)
		}
		switch kind {
		case framePCM:
			total += int64(len(payload))
			if l.exceededBy(total) {
				return Info{}, fail(CodeTooLong, "")
			}
			if _, err := sink.Write(payload); err != nil {
				return Info{}, &sinkError{err}
			}
		case frameDone:
			return parseDone(payload, total)
		case frameError:
			return Info{}, parseError(payload)
		default:
			return Info{}, fmt.Errorf("frame of unknown type %q", kind)
		}
	}
}

// exceededBy reports whether n bytes of PCM are more than the limit allows.
func (l Limits) exceededBy(n int64) bool {
	return l.MaxDuration > 0 && pcmDuration(n) > l.MaxDuration
}

// pcmDuration is how long n bytes of PCM last.
func pcmDuration(n int64) time.Duration {
	return audio.Duration(n / audio.SampleSize)
}

func parseDone(payload []byte, total int64) (Info, error) {
	var info Info
	if err := json.Unmarshal(payload, &info); err != nil {
		return Info{}, fmt.Errorf("read info: %w", err)
	}
	if total%audio.SampleSize != 0 {
		return Info{}, fmt.Errorf("%d bytes are no whole samples", total)
	}
	info.Duration = pcmDuration(total)
	info.Format, info.Codec, info.Note = printable(info.Format), printable(info.Codec), printable(info.Note)
	return info, nil
}

func parseError(payload []byte) error {
	var f failure
	if err := json.Unmarshal(payload, &f); err != nil {
		return fmt.Errorf("read failure: %w", err)
	}
	f.Code, f.Detail = printable(f.Code), printable(f.Detail)
	return &f
}

// printable bounds a text that a decoder may have been made to say.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > 300 {
		s = string(runes[:300])
	}
	return s
}
