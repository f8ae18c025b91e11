// Command whisper-appliance-decode turns one media file into 16 kHz mono f32le
// PCM, with no right but that of reading this file. systemd, or the server
// itself, starts one for each file with a connected socket as descriptor 3
// (LISTEN_FDS=1); package decode has the protocol. By hand:
//
//	whisper-appliance-decode --file talk.mp4 > talk.f32
//
// It trusts whoever is at the other end of the socket and nothing in the
// file. It writes to the socket or to standard output alone.
//
// Exit codes: 0 done, or the client was told what is wrong; 1 not done;
// 64 wrong usage; 69 ffmpeg is not installed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/decode/sandbox"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/version"
)

const program = "whisper-appliance-decode"

const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 64
	exitUnavailable = 69
)

// firstFD is where systemd puts the first descriptor it passes.
const firstFD = 3

var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err, os.Stderr))
}

// exitCode is the one place where errors become exit codes and final words.
func exitCode(err error, stderr io.Writer) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage): // flag has said what
		return exitUsage
	}
	fmt.Fprintf(stderr, "%s: %v\n", program, err)
	if hint := fault.Hint(err); hint != "" {
		fmt.Fprintf(stderr, "try: %s\n", hint)
	}
	if fault.KindOf(err) == fault.Unavailable {
		return exitUnavailable
	}
	return exitError
}

// options are the command line's.
type options struct {
	file    string
	ffmpeg  string
	limits  decode.Limits
	version bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet(program, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.file, "file", "", "decode `FILE` to standard output instead of serving the socket at descriptor 3")
	f.StringVar(&o.ffmpeg, "ffmpeg", "ffmpeg", "the ffmpeg `program`")
	f.DurationVar(&o.limits.MaxDuration, "max-duration", 0, "with --file: refuse a longer recording (0 = no limit)")
	f.DurationVar(&o.limits.Timeout, "timeout", 0, "with --file: give up after this time (0 = never)")
	f.BoolVar(&o.version, "version", false, "print the version")
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return o, err
	case err != nil:
		return o, errUsage
	case f.NArg() == 1 && f.Arg(0) == "version":
		o.version = true
	case f.NArg() > 0:
		fmt.Fprintf(stderr, "%s takes no arguments but flags: %q\n", program, f.Args())
		return o, errUsage
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.version {
		fmt.Fprintln(stdout, version.Line(program))
		return nil
	}
	if o.file != "" {
		return decodeFile(ctx, o, stdout, stderr)
	}
	conn, err := inherited()
	if err != nil {
		return err
	}
	system := sandbox.Linux()
	worker := &decode.Worker{FFmpeg: o.ffmpeg, FDDir: system.FDDir, Confine: system.Confine}
	return worker.Serve(ctx, conn)
}

// decodeFile does by hand what the server does: it starts this very program
// as the decoder, as a confined process could not write to a file.
func decodeFile(ctx context.Context, o options, stdout, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := os.Open(o.file)
	if err != nil {
		return err
	}
	defer f.Close()
	decoder := decode.Decoder{Program: []string{self, "--ffmpeg", o.ffmpeg}}
	info, err := decoder.Decode(ctx, f, o.limits, stdout)
	if err != nil {
		return err
	}
	how := fmt.Sprintf("sandbox %s (landlock %d)", info.Sandbox.Level(), info.Sandbox.Landlock)
	if info.Direct {
		how = "read without ffmpeg"
	}
	fmt.Fprintf(stderr, "%v of %s in %s, %d Hz, %d channels; %s\n", info.Duration.Round(time.Millisecond),
		info.Codec, info.Format, info.SampleRate, info.Channels, how)
	if info.Note != "" {
		fmt.Fprintf(stderr, "note: %s\n", info.Note)
	}
	return nil
}

// inherited is the connection that systemd or the server passed. The server
// cannot know the number of the process it starts, so LISTEN_PID may be missing.
func inherited() (*net.UnixConn, error) {
	pid := os.Getenv("LISTEN_PID")
	if os.Getenv("LISTEN_FDS") != "1" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, fault.New(fault.BadInput, "no_socket", "there is no connection at descriptor %d", firstFD).
			Try("the service manager or the server starts this program; by hand use --file FILE")
	}
	f := os.NewFile(firstFD, "client")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", firstFD, err)
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("descriptor %d is no Unix socket", firstFD)
	}
	return unix, nil
}
