// Command whisper-appliance-server serves the appliance's doors: HTTP and
// HTTPS on one port, and a Unix socket for this machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/version"
)

const program = "whisper-appliance-server"

// Exit codes. After 64 and 78 the unit is not started again by itself, for
// doing it again changes nothing: only by somebody who connects, and by the
// gate ever more slowly. Whatever may pass by itself is 1.
const (
	exitOK     = 0
	exitError  = 1
	exitUsage  = 64
	exitConfig = 78
)

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
	if lasting(err) {
		return exitConfig
	}
	return exitError
}

// lasting reports whether err stays until somebody changes a setting or a file
// that one names. A full disk or a busy port passes.
func lasting(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && (f.Code == "bad_config" || f.Code == "bad_path")
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "", "`address:port` for HTTP and HTTPS; wins over [server] listen")
	show := flags.Bool("version", false, "print the version")
	only := flags.Bool("check", false, "read the settings, say what is wrong with them, and end")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() == 1 && flags.Arg(0) == "version" {
		*show = true
	} else if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "%s takes no arguments but flags: %q\n", program, flags.Args())
		return errUsage
	}
	if *show {
		fmt.Fprintln(stdout, version.Line(program))
		return nil
	}
	if *only {
		return check(*listen, stdout)
	}
	return serve(ctx, *listen, stderr)
}
