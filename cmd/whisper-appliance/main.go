// Command whisper-appliance is the appliance in the terminal: it transcribes,
// through the running server or by itself, and manages models, settings and
// keys on this machine.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/version"
)

const program = "whisper-appliance"

// Exit codes, after sysexits.h where it has one.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 64 // the command line is wrong
	exitData        = 65 // the recording, a file or a value is
	exitNoInput     = 66 // no such file or model
	exitUnavailable = 69 // a part is missing or does not answer
	exitNoSpace     = 73 // disk or memory
	exitBusy        = 75 // try again later
	exitNoPerm      = 77 // not allowed
	exitConfig      = 78 // the settings are wrong
	exitCanceled    = 130
)

const exitHelp = `Exit codes: 0 done, 1 failed, 64 wrong usage, 65 bad recording or value,
66 no such file or model, 69 a part is missing or does not answer,
73 no space, 75 busy, 77 not allowed, 78 wrong settings, 130 cancelled.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{environ: os.Environ(), in: os.Stdin, out: stdout, errOut: stderr}
	root := rootCommand(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return a.exitCode(outcome(ctx, root.ExecuteContext(ctx)))
}

// outcome is how a command ended: cancelled where somebody did so.
func outcome(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return fault.New(fault.Canceled, "canceled", "cancelled")
}

// rootCommand is the whole tree.
func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           program,
		Short:         "Speech to text on your own machine",
		Long:          "Speech to text on your own machine.\n\n" + exitHelp,
		Version:       version.Build().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) (err error) {
			a.paths, err = paths.Find(paths.System())
			return err
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate(version.Line(program) + "\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, err) })
	root.AddCommand(transcribeCommand(a), jobsCommand(a), modelsCommand(a), statusCommand(a), versionCommand(a), configCommand(a), keysCommand(a),
		componentsCommand(a), pathsCommand(a), slotCommand(a), verifyCommand(a), housekeepingCommand(a),
		smokeCommand(a), doctorCommand(a), diagnoseCommand(a), updateCommand(a), benchCommand(a))
	addBuildCommands(root)
	return root
}

// usageError is a command line that is wrong.
type usageError struct{ error }

func usage(c *cobra.Command, err error) error {
	return usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
}

// exitAs is an error whose exit code is not its kind's.
type exitAs struct {
	error
	code int
}

func (e exitAs) Unwrap() error { return e.error }

// exitCode is the one place where errors become exit codes and final words.
func (a *app) exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var f *fault.Error
	if a.jsonOut {
		words := map[string]string{"error": fault.PlainLines(err.Error(), ""), "hint": fault.PlainLines(fault.Hint(err), "")}
		if errors.As(err, &f) {
			words["code"], words["field"] = f.Code, f.Field
		}
		json.NewEncoder(a.errOut).Encode(words) //nolint:errcheck // nowhere left to say it
	} else {
		fmt.Fprintf(a.errOut, "%s: %s\n", program, fault.PlainLines(err.Error(), "  "))
		if hint := fault.Hint(err); hint != "" {
			fmt.Fprintf(a.errOut, "try: %s\n", fault.PlainLines(hint, "  "))
		}
	}
	if as, ok := errors.AsType[exitAs](err); ok {
		return as.code
	}
	if !errors.As(err, &f) {
		if errors.As(err, new(usageError)) || isCobraUsage(err) {
			return exitUsage
		}
		if errors.Is(err, os.ErrNotExist) {
			return exitNoInput
		}
		return exitError
	}
	return exitOf(f)
}

func exitOf(f *fault.Error) int {
	switch f.Kind {
	case fault.BadInput, fault.TooLarge, fault.Unsupported:
		if f.Code == "bad_config" {
			return exitConfig
		}
		return exitData
	case fault.NotFound:
		return exitNoInput
	case fault.Unavailable:
		return exitUnavailable
	case fault.NoSpace:
		return exitNoSpace
	case fault.Busy, fault.Conflict:
		return exitBusy
	case fault.Unauthorized, fault.Forbidden:
		return exitNoPerm
	case fault.Canceled:
		return exitCanceled
	}
	return exitError
}
