// Command fakeengine stands in for the engine where the real one would take
// minutes for a sentence: it speaks the engine's protocol and notifies systemd
// as that does, and hears what package hearing says. A model whose name ends in
// "-hog" is one that eats all the memory it can get, one in "-takes-110s" takes as
// long for each window, and with "-fails-3" behind that the third one fails. Each
// window that is done is a line of its log.
//
// It takes the engine's flags and trusts the socket that it inherits, as the
// engine does; it writes nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
	"whisper-appliance/internal/watchdog"
	"whisper-appliance/tests/vm/hearing"
)

const program = "whisper-appliance-engine"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.String("backends", "", "not looked at")
	models := flags.String("models", "", "`directory` of model files")
	flags.Int("threads", 0, "not looked at")
	flags.Bool("lifeline", false, "not looked at")
	flags.Bool("debug", false, "not looked at")
	show := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if *show || flags.Arg(0) == "version" {
		fmt.Println(version.Line(program))
		return nil
	}
	if err := engine.InheritedPID(); err != nil {
		return err
	}
	listeners, err := systemd.Listeners()
	if err != nil {
		return err
	}
	if len(listeners) != 1 {
		return fmt.Errorf("wanted one inherited socket, got %d", len(listeners))
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	backend, err := hearing.New(log)
	if err != nil {
		return err
	}
	var guard watchdog.Guard
	if interval := systemd.WatchdogInterval(); interval > 0 {
		go guard.Run(context.WithoutCancel(ctx), interval/5, systemd.Notify, log)
	}
	server := &engine.Server{
		Backend: backend, Models: *models, Stay: engine.Stay{Exit: time.Minute}, Log: log,
		Watch: func(call string, most time.Duration) (beat, end func()) {
			return guard.Loop(call, max(most, systemd.WatchdogInterval()))
		},
	}
	systemd.Notify("READY=1") //nolint:errcheck // nobody listens without systemd
	return server.Serve(ctx, listeners[0])
}
