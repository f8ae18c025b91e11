//go:build whisper

// Command whisper-appliance-engine holds a Whisper model in memory and decodes
// windows of PCM. It is the one program with C in it; see package engine for
// what it speaks on the Unix socket that it inherits.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
	"whisper-appliance/internal/watchdog"
	"whisper-appliance/internal/whisper"
)

const program = "whisper-appliance-engine"

// Exit codes. After 64 and 78 the unit is not started again by itself, only by
// somebody who connects: doing it again changes nothing.
const (
	exitOK     = 0
	exitError  = 1
	exitUsage  = 64
	exitConfig = 78 // no socket was handed down, or no backend fits
)

var (
	errUsage  = errors.New("usage")
	errConfig = errors.New("configuration")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err, os.Stderr))
}

// exitCode is the one place where errors become exit codes and final words.
func exitCode(err error, stderr io.Writer) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage):
		return exitUsage // flag has said why
	}
	fmt.Fprintf(stderr, "%s: %v\n", program, err)
	if errors.Is(err, errConfig) {
		return exitConfig
	}
	return exitError
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	backends := flags.String("backends", "", "`directory` of ggml's compute backends")
	models := flags.String("models", "", "`directory` of model files")
	bundled := flags.String("bundled", "", "`directory` of model files that came with the release; empty = share/models of the one that the backends are of")
	threads := flags.Int("threads", 0, "threads for a window; 0 = every core")
	lifeline := flags.Bool("lifeline", false, "exit when standard input ends")
	debug := flags.Bool("debug", false, "log more")
	show := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if *show || flags.Arg(0) == "version" {
		fmt.Fprintln(stdout, version.Line(program))
		return nil
	}
	log, err := newLogger(stderr, *debug)
	if err != nil {
		return err
	}

	if err := engine.InheritedPID(); err != nil {
		return err
	}
	listeners, err := systemd.Listeners()
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	if len(listeners) != 1 {
		return fmt.Errorf("%w: wanted one inherited socket (LISTEN_FDS=1), got %d: systemd or the server start this program", errConfig, len(listeners))
	}
	backend, err := whisper.Open(*backends)
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	if *lifeline {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		go func() {
			io.Copy(io.Discard, os.Stdin) //nolint:errcheck // any end will do
			stop()
		}()
	}
	var guard watchdog.Guard
	go watch(ctx, &guard, log)
	log.Debug("engine ready", "whisper", backend.Describe().Whisper, "backend", backend.Describe().Backend)
	machine := paths.MachineAt("")
	memory := &model.Store{Proc: machine.Proc, Cgroup: machine.Cgroup}
	server := &engine.Server{
		Backend: backend, Models: *models, Bundled: cmp.Or(*bundled, beside(*backends)), Threads: *threads,
		// Its first work says how long to stay. One that gets none was woken by mistake.
		Stay: engine.Stay{Exit: time.Minute}, Log: log,
		Watch: func(call string, most time.Duration) (beat, end func()) {
			return guard.Loop(call, max(most, systemd.WatchdogInterval()))
		},
		Spare: memory.MemoryAvailable,
	}
	systemd.Notify("READY=1") //nolint:errcheck // nobody listens without systemd
	return server.Serve(ctx, listeners[0])
}

// beside is where a release keeps models of its own, from lib/engine/backends
// in it. Units name no such directory, as they start older engines, too.
func beside(backends string) string {
	return filepath.Join(backends, "..", "..", "..", "share", "models")
}

// newLogger writes entries of the journal where systemd collects them, and
// lines of text where the server does.
func newLogger(stderr io.Writer, debug bool) (*slog.Logger, error) {
	level := new(slog.LevelVar)
	if debug {
		level.Set(slog.LevelDebug)
	}
	format := logging.Text
	if systemd.Supervised() {
		format = logging.Auto
	}
	return logging.New(logging.Options{W: stderr, Format: format, Level: level, JournalStream: os.Getenv("JOURNAL_STREAM"),
		Attrs: []slog.Attr{slog.String(logging.Component, "engine"), slog.String(logging.Version, version.Build().Version)}})
}

// watch feeds systemd's watchdog while each call into whisper.cpp returns in
// its time. WATCHDOG_USEC is the least that a window may take.
func watch(ctx context.Context, guard *watchdog.Guard, log *slog.Logger) {
	if interval := systemd.WatchdogInterval(); interval > 0 {
		guard.Run(context.WithoutCancel(ctx), interval/5, systemd.Notify, log)
	}
}
