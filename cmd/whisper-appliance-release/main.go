// Command whisper-appliance-release is the publisher's tool: it makes keys,
// packs releases, and publishes them in a directory that any server can give
// out. It belongs to no package and runs on no appliance.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/version"
)

const program = "whisper-appliance-release"

// Exit codes, those of whisper-appliance.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 64 // the command line is wrong
	exitData        = 65 // a release, a repository or a value is
	exitNoInput     = 66 // no such file, key or version
	exitUnavailable = 69 // something cannot be reached
	exitNoSpace     = 73
	exitBusy        = 75 // another process is at it, or this state forbids it
	exitNoPerm      = 77 // not allowed, or a key that others may read
	exitCanceled    = 130
)

const help = `Publish releases of whisper-appliance.

The order of the work:

  once         keys init --dir KEYS
               Keep root-1.pem and root-2.pem on two media away from any network, and
               targets.pem too if you can. Where releases are published only targets.pem,
               online.pem and root.json are needed; for refresh online.pem and root.json.
               KEYS/root.json is the root of trust that the appliance's package carries.
  a release    build TREE --out DIR
               publish DIR/FILE.tar.zst --channel beta
               verify REPOSITORY --root KEYS/root.json
               Then copy the repository to where machines look, targets/ first and
               metadata/timestamp.json last.
  next         publish DIR/FILE.tar.zst --channel stable --rollout 10
               rollout VERSION 50, rollout VERSION 100; or withdraw VERSION
  by hand      bundle VERSION: one file for machines without a network
  monthly      refresh, or machines tell their owners that nothing was renewed
  yearly       refresh --targets; keys rotate root, and any key that may be known

Exit codes: 0 done, 1 failed, 64 wrong usage, 65 bad release, repository or value,
66 no such file, key or version, 69 not reachable, 73 no space, 75 busy, or not in
this state, 77 not allowed, or a key that others may read, 130 cancelled.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{out: stdout, errOut: stderr, now: time.Now}
	root := rootCommand(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil {
		err = fault.New(fault.Canceled, "canceled", "cancelled; what was published before is whole")
	}
	return a.exitCode(err)
}

// app is what every command needs of its surroundings.
type app struct {
	out        io.Writer
	errOut     io.Writer
	now        func() time.Time
	jsonOut    bool // --json: one JSON document on out
	keys       string
	repository string
}

func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           program,
		Short:         "Publish releases of whisper-appliance",
		Long:          help,
		Version:       version.Build().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate(version.Line(program) + "\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, err) })
	root.AddCommand(keysCommand(a), buildCommand(a), publishCommand(a), rolloutCommand(a), withdrawCommand(a), refreshCommand(a),
		bundleCommand(a), verifyCommand(a), listCommand(a))
	return root
}

// usageError is a command line that is wrong.
type usageError struct{ error }

func usage(c *cobra.Command, err error) error {
	return usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
}

// isCobraUsage tells cobra's own complaints about arguments and commands, which have no type.
func isCobraUsage(err error) bool {
	for _, start := range []string{"unknown command", "accepts ", "requires at least", "invalid argument", "required flag", "if any flags in the group"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
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
		fmt.Fprintf(a.errOut, "%s: %v\n", program, err)
		if hint := fault.Hint(err); hint != "" {
			fmt.Fprintf(a.errOut, "try: %s\n", hint)
		}
	}
	switch {
	case known:
		return exitOf(f.Kind)
	case errors.As(err, new(usageError)), isCobraUsage(err):
		return exitUsage
	case errors.Is(err, os.ErrNotExist):
		return exitNoInput
	}
	return exitError
}

func exitOf(kind fault.Kind) int {
	switch kind {
	case fault.BadInput, fault.TooLarge, fault.Unsupported:
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

func (a *app) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&a.jsonOut, "json", false, "print JSON")
}

func (a *app) keysFlag(c *cobra.Command) {
	c.Flags().StringVar(&a.keys, "keys", "keys", "`directory` of the keys")
}

func (a *app) repositoryFlag(c *cobra.Command) {
	c.Flags().StringVar(&a.repository, "repository", "repository", "`directory` of the repository, with metadata/ and targets/ in it")
}

// print is v as JSON where that is wanted, else lines that words writes.
func printed[T any](a *app, v T, words func(w io.Writer, v T)) error {
	if !a.jsonOut {
		var b strings.Builder
		words(&b, v)
		_, err := io.WriteString(a.out, b.String())
		return err
	}
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
