// Command run starts the appliance that was built, runs a command against it
// and stops it: go run ./tests/appliance/run -- node --test tests/conformance.
// The command finds the appliance in its environment:
//
//	WA_URL, WA_HTTPS_URL    where it serves
//	WA_KEY, WA_ADMIN_KEY    API keys with the scopes transcribe and admin
//	WA_STATE, WA_RUN        its state directory and its API socket
//	WA_PID                  the server's process id
//	WA_MAX_UPLOAD           the largest recording it takes, in bytes
//
// Where WA_MAX_UPLOAD is set already it is what the appliance is told.
// Its exit code is the command's, which go run turns into 1 where it is not 0;
// it is 1 where the appliance did not start or stop as it should.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"whisper-appliance/tests/appliance"
)

const (
	program   = "run"
	exitError = 1
	exitUsage = 64
)

// grace is how long the command may take to end after a signal.
const grace = 10 * time.Second

// endedError is the exit code of the command, when it is not 0.
type endedError int

func (e endedError) Error() string { return fmt.Sprintf("the command ended with exit code %d", int(e)) }

var errUsage = errors.New("usage: run [flags] -- COMMAND [ARGUMENT…]")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err, os.Stderr))
}

// exitCode is the one place where errors become exit codes and final words.
func exitCode(err error, stderr io.Writer) int {
	var ended endedError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &ended):
		return int(ended) // the command has said why
	}
	fmt.Fprintf(stderr, "%s: %v\n", program, err)
	if errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitError
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	var options appliance.Options
	var verbose bool
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&options.Model, "model", "tiny", "catalogue `name` of the model to use")
	flags.Int64Var(&options.MaxUpload, "max-upload", maxUpload(os.Getenv("WA_MAX_UPLOAD")), "largest recording taken, in `bytes`; 0 = the setting's own default")
	flags.BoolVar(&options.Keep, "keep", false, "leave the appliance's directory behind")
	flags.BoolVar(&verbose, "v", false, "show the appliance's log")
	flags.Func("env", "`NAME=value` for the appliance's environment; may be repeated", func(s string) error {
		if !strings.Contains(s, "=") {
			return errors.New("it must be NAME=value")
		}
		options.Env = append(options.Env, s)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() == 0 {
		return errUsage
	}
	if verbose {
		options.Stderr = stderr
	}
	return with(ctx, options, func(a *appliance.Appliance) error {
		fmt.Fprintf(stderr, "%s: the appliance serves at %s (started in %v)\n", program, a.URL, a.Started.Round(time.Millisecond))
		return command(ctx, a, flags.Args(), stdin, stdout, stderr)
	})
}

// maxUpload is the limit without the flag, in bytes: what the variable says,
// or so little that a test can send more.
func maxUpload(variable string) int64 {
	if n, err := strconv.ParseInt(variable, 10, 64); err == nil && n > 0 {
		return n
	}
	return 64 << 20
}

// with runs do beside an appliance. The first of do's error and that of the
// stop counts.
func with(ctx context.Context, options appliance.Options, do func(*appliance.Appliance) error) error {
	a, err := appliance.Start(ctx, options)
	if err != nil {
		return err
	}
	err = do(a)
	if stopErr := a.Stop(); err == nil {
		err = stopErr
	}
	return err
}

// command runs args against a. When ctx ends it is asked to end as well.
func command(ctx context.Context, a *appliance.Appliance, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.Env = append(os.Environ(),
		"WA_URL="+a.URL, "WA_HTTPS_URL="+a.HTTPS, "WA_KEY="+a.Key, "WA_ADMIN_KEY="+a.AdminKey,
		"WA_STATE="+a.State, "WA_RUN="+a.Run, "WA_PID="+strconv.Itoa(a.PID),
		"WA_MAX_UPLOAD="+strconv.FormatInt(a.MaxUpload, 10))
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.Exited() {
		return endedError(ended.ExitCode())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return nil
}
