package decode

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// file writes content to a temporary file and opens it.
func file(t testing.TB, content []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(name, content, 0o444); err != nil {
		t.Fatal(err)
	}
	return open(t, name)
}

func open(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// wantFault asserts an error for people with this code, and returns it.
func wantFault(t testing.TB, err error, code string) *fault.Error {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != code {
		t.Fatalf("got %v, want a fault with code %q", err, code)
	}
	return f
}

func TestDecoderTakesAnAnswer(t *testing.T) {
	var n counter
	info, err := fake("good").Decode(t.Context(), file(t, []byte("TEXT")), Limits{MaxDuration: 7 * time.Second}, &n)
	if err != nil {
		t.Fatal(err)
	}
	if info.Codec != "TEXT" || info.SampleRate != 7 {
		t.Errorf("descriptor or limits did not arrive: %+v", info)
	}
	if info.Duration != time.Second || n != bytesPerSecond {
		t.Errorf("%v and %d bytes, want what was sent: 1 s", info.Duration, n)
	}
	if info.Format != "a[31mb" {
		t.Errorf("format %q has what a terminal obeys", info.Format)
	}
}

func TestDecoderThatMisbehaves(t *testing.T) {
	tests := []struct {
		mode, code, cause string
		limits            Limits
	}{
		{"dies", CodeDecoderDied, "exit status 3: a bug", Limits{}},
		{"huge frame", CodeDecoderDied, "at most", Limits{}},
		{"unknown frame", CodeDecoderFailed, "unknown type", Limits{}},
		{"half a sample", CodeDecoderFailed, "whole samples", Limits{}},
		{"no JSON", CodeDecoderFailed, "read info", Limits{}},
		{"strange code", CodeDecoderFailed, "script", Limits{}},
		{"endless", CodeTooLong, "", Limits{MaxDuration: 3 * time.Second}},
	}
	for _, tt := range tests {
		t.Run(tt.mode, func(t *testing.T) {
			_, err := fake(tt.mode).Decode(t.Context(), file(t, []byte("x")), tt.limits, io.Discard)
			f := wantFault(t, err, tt.code)
			if !strings.Contains(f.Error(), tt.cause) || strings.Contains(f.Error(), "\x1b") {
				t.Errorf("error %q, want %q in it", f, tt.cause)
			}
		})
	}
}

func TestDecoderTimeout(t *testing.T) {
	start := time.Now()
	_, err := fake("silent").Decode(t.Context(), file(t, []byte("x")), Limits{Timeout: time.Millisecond}, io.Discard)
	if f := wantFault(t, err, CodeTimeout); !strings.Contains(f.Message, "1ms") {
		t.Errorf("the limit is not named: %s", f.Message)
	}
	if took := time.Since(start); took > grace+2*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestDecoderCanceled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := fake("silent").Decode(ctx, file(t, []byte("x")), Limits{}, io.Discard)
	if f := wantFault(t, err, CodeCanceled); f.Kind != fault.Canceled {
		t.Errorf("kind %v", f.Kind)
	}
	if _, err := fake("good").Decode(ctx, file(t, []byte("x")), Limits{}, io.Discard); err == nil {
		t.Error("decoded with a context that is over")
	}
}

type failingSink struct{ err error }

func (s failingSink) Write([]byte) (int, error) { return 0, s.err }

func TestDecoderSinkError(t *testing.T) {
	full := fault.New(fault.NoSpace, "disk_full", "full")
	_, err := fake("endless").Decode(t.Context(), file(t, []byte("x")), Limits{}, failingSink{full})
	if err != error(full) {
		t.Errorf("got %v, want the sink's own error", err)
	}
}

func TestDecoderRefusesWithoutAProcess(t *testing.T) {
	none := &Decoder{Program: []string{filepath.Join(t.TempDir(), "absent")}}
	_, err := none.Decode(t.Context(), file(t, nil), Limits{}, io.Discard)
	wantFault(t, err, CodeEmptyFile)
	_, err = none.Decode(t.Context(), file(t, make([]byte, 3<<20)), Limits{MaxBytes: 2 << 20}, io.Discard)
	if f := wantFault(t, err, CodeTooLarge); !strings.Contains(f.Message, "2 MiB") {
		t.Errorf("the limit is not named: %s", f.Message)
	}
	_, err = none.Decode(t.Context(), open(t, t.TempDir()), Limits{}, io.Discard)
	wantFault(t, err, CodeDecoderFailed)
	_, err = none.Decode(t.Context(), file(t, []byte("x")), Limits{}, io.Discard)
	if f := wantFault(t, err, CodeDecoderMissing); f.Kind != fault.Unavailable {
		t.Errorf("kind %v", f.Kind)
	}
	_, err = new(Decoder).Decode(t.Context(), file(t, []byte("x")), Limits{}, io.Discard)
	wantFault(t, err, CodeDecoderFailed)
}

// TestWords: every code has words that name what would be right.
func TestWords(t *testing.T) {
	l := Limits{MaxDuration: time.Hour, MaxBytes: 1 << 30, Timeout: time.Minute}
	for _, code := range []string{CodeEmptyFile, CodeTooLarge, CodeTooLong, CodeUndecodable, CodeNoAudioStream, CodeTruncated,
		CodeForbiddenFormat, CodeTimeout, CodeMemory, CodeDecoderMissing, CodeDecoderDied} {
		f := wantFault(t, inWords(fail(code, "detail"), l), code)
		if f.Message == "" || f.Hint == "" || f.Err == nil {
			t.Errorf("%s: %+v", code, f)
		}
	}
	already := fault.New(fault.Busy, "x", "y")
	if inWords(already, l) != error(already) || inWords(nil, l) != nil {
		t.Error("a fault or nil was changed")
	}
}

func TestSandboxLevel(t *testing.T) {
	for s, want := range map[Sandbox]string{
		{}: "reduced", {Landlock: 2}: "reduced", {Seccomp: true}: "reduced", {Landlock: 1, Seccomp: true}: "full",
	} {
		if got := s.Level(); got != want {
			t.Errorf("%+v is %s, want %s", s, got, want)
		}
	}
}

func TestReceiveRequestRefuses(t *testing.T) {
	for name, send := range map[string]func(*net.UnixConn){
		"no descriptor": func(c *net.UnixConn) { c.Write([]byte("{}\n")) },
		"hang-up":       func(c *net.UnixConn) { c.Close() },
		"no JSON": func(c *net.UnixConn) {
			c.WriteMsgUnix([]byte("{"), rights(3), nil)
		},
		"two descriptors": func(c *net.UnixConn) {
			c.WriteMsgUnix([]byte("{}\n"), rights(2), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs, err := socketPair()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			c, err := net.FileConn(theirs)
			theirs.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			before := openFDs(t)
			send(ours)
			if f, _, err := receiveRequest(c.(*net.UnixConn)); err == nil {
				f.Close()
				t.Error("accepted")
			}
			if after := openFDs(t); len(after) > len(before) {
				t.Errorf("descriptors left open: %v, before %v", after, before)
			}
		})
	}
}

// TestNothingIsLeft: neither descriptors nor processes, after good and bad ends.
func TestNothingIsLeft(t *testing.T) {
	in := file(t, []byte("TEXT"))
	fake("good").Decode(t.Context(), in, Limits{}, io.Discard) // the poller's own descriptors
	before := openFDs(t)
	for _, mode := range []string{"good", "dies", "unknown frame", "endless", "strange code"} {
		for range 3 {
			fake(mode).Decode(t.Context(), in, Limits{MaxDuration: time.Second}, io.Discard)
		}
	}
	if after := openFDs(t); !slices.Equal(after, before) {
		t.Errorf("descriptors %v, before %v", after, before)
	}
	if left := children(t, os.Getpid()); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }
