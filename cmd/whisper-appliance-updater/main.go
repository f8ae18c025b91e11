// Command whisper-appliance-updater changes which release of the appliance
// serves. People call it as `whisper-appliance update`; units call it for the
// timer, the boot, the scrub and D-Bus, and the package's scripts for what dpkg
// brings. All of them go through the one transaction of package update.
//
// Exit codes: 0 done, queued or nothing to do; 1 failed; 64 wrong usage; 65 a
// file or a value is wrong; 66 no such release; 69 the release before serves on;
// 73 no space; 75 another change is under way; 77 not allowed; 78 wrong settings;
// 130 cancelled.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/site"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/update"
	"whisper-appliance/internal/version"
)

const program = "whisper-appliance-updater"

// Exit codes, after sysexits.h.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 64
	exitData        = 65
	exitNoInput     = 66
	exitUnavailable = 69
	exitNoSpace     = 73
	exitBusy        = 75
	exitNoPerm      = 77
	exitConfig      = 78
	exitCanceled    = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{out: stdout, errOut: stderr}
	root := rootCommand(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if a.machine != nil {
		err = errors.Join(err, a.machine.Close())
	}
	return a.exitCode(err)
}

// app is what every verb needs.
type app struct {
	out, errOut io.Writer
	jsonOut     bool
	door        string
	machine     *site.Machine
}

// rootCommand is the whole tree, under the name that people know.
func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:         program,
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "whisper-appliance update"},
		Short:       "Keep the appliance up to date, without ever leaving it without a working version",
		Long: "Keep the appliance up to date. A release is verified, put into the slot that does not serve, tried,\n" +
			"switched to without refusing a connection, and committed after a trial; one that fails is taken back.",
		Version:       version.Build().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetVersionTemplate(version.Line(program) + "\n")
	root.PersistentFlags().BoolVar(&a.jsonOut, "json", false, "print one JSON document")
	root.PersistentFlags().StringVar(&a.door, "door", string(deployment.DoorCLI), "who asks, for the record")
	root.PersistentFlags().MarkHidden("door") //nolint:errcheck // it is there
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(checkCommand(a), downloadCommand(a), applyCommand(a), installCommand(a), rollbackCommand(a), commitCommand(a), cancelCommand(a),
		restartCommand(a), statusCommand(a), historyCommand(a), pinCommand(a), unpinCommand(a), quarantineCommand(a), policyCommand(a),
		deployCommand(a), switchCommand(a), recoverCommand(a), scrubCommand(a), autoCommand(a), daemonCommand(a))
	return root
}

type usageError struct{ error }

// open is the updater of this machine. change says that it will be asked to
// change something, which is root's alone.
func (a *app) open(change bool) (*update.Updater, error) {
	p, err := paths.Find(paths.System())
	if err != nil {
		return nil, err
	}
	if change && os.Geteuid() != 0 {
		return nil, fault.New(fault.Forbidden, "need_root", "this changes the system, and is root's alone").Try("sudo whisper-appliance update …")
	}
	log, err := a.log(os.Getenv("JOURNAL_STREAM"))
	if err != nil {
		return nil, err
	}
	if a.machine, err = site.Open(p, log); err != nil {
		return nil, err
	}
	if change {
		persist()
	}
	return a.machine.Updater()
}

// log is for units; people are told by what is printed.
func (a *app) log(stream string) (*slog.Logger, error) {
	if stream == "" {
		return slog.New(slog.DiscardHandler), nil
	}
	return logging.New(logging.Options{W: a.errOut, JournalStream: stream,
		Attrs: []slog.Attr{slog.String(logging.Component, "updater"), slog.String(logging.Version, version.Build().Version)}})
}

// persist lets the program live though its terminal has gone, or nobody reads
// what it writes: a change that is killed in the middle has to be settled by
// another run. It holds until the program ends, whose exit code is then the
// outcome's.
func persist() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGPIPE)
}

// print writes v as JSON, or words where that was not asked for. That nobody
// reads it changes nothing of what was done.
func (a *app) print(v any, words string) error {
	var err error
	if a.jsonOut {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		err = e.Encode(v)
	} else if words != "" {
		_, err = fmt.Fprintln(a.out, strings.TrimRight(words, "\n"))
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EIO) {
		return nil
	}
	return err
}

// exitCode is the one place where errors become exit codes and final words.
func (a *app) exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var f *fault.Error
	known := errors.As(err, &f)
	if a.jsonOut {
		words := map[string]string{"error": err.Error(), "hint": fault.Hint(err)}
		if known {
			words["code"], words["field"] = f.Code, f.Field
		}
		json.NewEncoder(a.errOut).Encode(words) //nolint:errcheck // nowhere left to say it
	} else {
		fmt.Fprintf(a.errOut, "whisper-appliance: %v\n", err)
		if hint := fault.Hint(err); hint != "" {
			fmt.Fprintf(a.errOut, "try: %s\n", hint)
		}
	}
	if systemd.Booted("") && os.Getenv("JOURNAL_STREAM") != "" && a.machine != nil {
		a.machine.Log.Error("not done", logging.Err(err))
	}
	switch {
	case known:
		return exitOf(f)
	case errors.As(err, new(usageError)), strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	}
	return exitError
}

// exitOf keeps apart for scripts: 69 says that the release before serves on, 75
// that to wait helps.
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
		if f.Code == slot.NotServing {
			return exitError
		}
		return exitUnavailable
	case fault.NoSpace:
		return exitNoSpace
	case fault.Busy:
		return exitBusy
	case fault.Unauthorized, fault.Forbidden:
		return exitNoPerm
	case fault.Canceled:
		return exitCanceled
	}
	return exitError
}
