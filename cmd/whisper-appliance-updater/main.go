// Command whisper-appliance-updater changes which release of the appliance
// serves. People call it as `whisper-appliance update`; units call it for the
// timer, the boot, the scrub and D-Bus, and the package's scripts for what dpkg
// brings. All of them go through the one transaction of package update.
//
// Its exit codes are in exitHelp.
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
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

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

const exitHelp = `Exit codes: 0 done, queued or nothing to do, 1 failed, 64 wrong usage,
65 a file or a value is wrong, 66 no such release, 69 it was not done or was
taken back, and the release before serves on, 73 no space, 75 another change
is under way, 77 not allowed, 78 wrong settings, 130 cancelled.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends at once
	code := newApp(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// appliance is the machine that is updated.
type appliance interface {
	// Updater puts its updater together.
	Updater() (*update.Updater, error)
	// Down tells whether no server runs, nor is being started.
	Down(ctx context.Context) bool
	// Close ends what was opened.
	Close() error
}

// app is what every verb needs.
type app struct {
	out, errOut io.Writer
	jsonOut     bool
	door        string
	verb        string // as people write it: "whisper-appliance update check"

	find    func() (paths.Paths, error)
	euid    int
	journal string          // JOURNAL_STREAM
	entries logging.Options // how the journal is reached where it does not take what is printed
	machine func(p paths.Paths, log *slog.Logger, watching bool) (appliance, error)

	// Set by open.
	paths   paths.Paths
	log     *slog.Logger
	site    appliance // nil before
	changes bool      // the verb changes something
}

func newApp(stdout, stderr io.Writer) *app {
	return &app{
		out: stdout, errOut: stderr, euid: os.Geteuid(), journal: os.Getenv("JOURNAL_STREAM"),
		find: func() (paths.Paths, error) { return paths.Find(paths.System()) },
		machine: func(p paths.Paths, log *slog.Logger, watching bool) (appliance, error) {
			m, err := site.Open(p, log)
			if err != nil {
				return nil, err
			}
			m.Watching = watching
			return m, nil
		},
	}
}

func (a *app) run(ctx context.Context, args []string) int {
	root := rootCommand(a)
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	err := outcome(ctx, root.ExecuteContext(ctx))
	if a.site != nil {
		err = errors.Join(err, a.site.Close())
	}
	return a.exitCode(err)
}

// outcome is how a verb ended: cancelled where somebody did so, unless it says
// more.
func outcome(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errors.As(err, new(*fault.Error)) {
		return err
	}
	return fault.New(fault.Canceled, "canceled", "cancelled").Because(err)
}

// rootCommand is the whole tree, under the name that people know.
func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:         program,
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "whisper-appliance update"},
		Short:       "Keep the appliance up to date, without ever leaving it without a working version",
		Long: "Keep the appliance up to date. A release is verified, put into the slot that does not serve, tried,\n" +
			"switched to without refusing a connection, and committed after a trial; one that fails is taken back.\n\n" + exitHelp,
		Version:           version.Build().Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.NoArgs,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { a.verb = c.CommandPath(); return knownDoor(a.door) },
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetVersionTemplate(version.Line(program) + "\n")
	root.PersistentFlags().BoolVar(&a.jsonOut, "json", false, "print one JSON document")
	root.PersistentFlags().StringVar(&a.door, "door", string(deployment.DoorCLI), "who asks, for the record")
	root.PersistentFlags().MarkHidden("door") //nolint:errcheck // it is there
	root.SetFlagErrorFunc(wrongUsage)
	root.AddCommand(checkCommand(a), downloadCommand(a), applyCommand(a), installCommand(a), rollbackCommand(a), commitCommand(a), cancelCommand(a),
		restartCommand(a), statusCommand(a), historyCommand(a), pinCommand(a), unpinCommand(a), quarantineCommand(a), policyCommand(a),
		deployCommand(a), switchCommand(a), forgetCommand(a), recoverCommand(a), scrubCommand(a), autoCommand(a), daemonCommand(a))
	addBuildCommands(root)
	markArgs(root)
	return root
}

// usageError is a command line that is wrong.
type usageError struct{ error }

func wrongUsage(c *cobra.Command, err error) error {
	return usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
}

// markArgs makes what c and all below it say of their arguments a usageError.
func markArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return wrongUsage(c, err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markArgs(sub)
	}
}

// knownDoor refuses a door that no record should have.
func knownDoor(door string) error {
	doors := []deployment.Door{deployment.DoorTimer, deployment.DoorCLI, deployment.DoorHTTP, deployment.DoorDBus, deployment.DoorDpkg, deployment.DoorFile, deployment.DoorBoot}
	if !slices.Contains(doors, deployment.Door(door)) {
		return usageError{fmt.Errorf("there is no door %q; the doors are %v", fault.Short(door), doors)}
	}
	return nil
}

// open is the updater of this machine, to be looked at.
func (a *app) open() (*update.Updater, error) { return a.openFor(false, false) }

// openToChange is the updater to be asked to change something, which is root's
// alone.
func (a *app) openToChange() (*update.Updater, error) { return a.openFor(true, false) }

func (a *app) openFor(change, watching bool) (*update.Updater, error) {
	var err error
	if a.paths, err = a.find(); err != nil {
		return nil, err
	}
	if a.log, err = a.newLog(change && a.euid == 0); err != nil {
		return nil, err
	}
	if a.site, err = a.machine(a.paths, a.log, watching); err != nil {
		return nil, err
	}
	if change && a.euid != 0 {
		return nil, fault.New(fault.Forbidden, "need_root", "`%s` changes the system, and is root's alone", a.verb).Try("sudo %s", a.verb)
	}
	if a.changes = change; change {
		persist()
	}
	return a.site.Updater()
}

// newLog is the log of a unit; or of a change that somebody makes at a terminal,
// who is told by what is printed: then the journal alone has it.
func (a *app) newLog(change bool) (*slog.Logger, error) {
	o := a.entries
	o.Attrs = []slog.Attr{slog.String(logging.Component, "updater"), slog.String(logging.Version, version.Build().Version)}
	switch {
	case journaled(a.errOut, a.journal):
		o.W, o.JournalStream = a.errOut, a.journal
	case change:
		o.W, o.Format = io.Discard, logging.Journal
		if o.Send == nil {
			o.Send = systemd.JournalSend
		}
		o.Send = (&impatient{send: o.Send, limit: journalLimit}).Send
	default:
		return slog.New(slog.DiscardHandler), nil
	}
	return logging.New(o)
}

// journaled tells whether w is the stream to the journal that systemd names, as
// it is in a unit. What a unit starts may have inherited the name alone.
func journaled(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	var st unix.Stat_t
	return ok && stream != "" && unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// persist lets the program live though its terminal has gone, or nobody reads
// what it writes: a change that is killed in the middle has to be settled by
// another run. It holds until the program ends, whose exit code is then the
// outcome's.
func persist() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGPIPE)
}

// print writes v as JSON, or words where that was not asked for.
func (a *app) print(v any, words string) error {
	var err error
	if a.jsonOut {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		err = e.Encode(v)
	} else if words != "" {
		_, err = fmt.Fprintln(a.out, strings.TrimRight(words, "\n"))
	}
	return a.unread(err)
}

// unread is what becomes of an error of printing: that nobody can read it
// changes nothing of what was done.
func (a *app) unread(err error) error {
	if a.changes || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EIO) {
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
	if a.log != nil {
		a.log.Error("not done", "verb", a.verb, logging.Err(err))
	}
	switch {
	case journaled(a.errOut, a.journal) && a.log != nil: // it would stand there twice
	case a.jsonOut:
		words := map[string]string{"error": fault.PlainLines(err.Error(), ""), "hint": fault.PlainLines(fault.Hint(err), "")}
		if known {
			words["code"], words["field"] = f.Code, f.Field
		}
		json.NewEncoder(a.errOut).Encode(words) //nolint:errcheck // nowhere left to say it
	default:
		fmt.Fprintf(a.errOut, "whisper-appliance: %s\n", fault.PlainLines(err.Error(), "  "))
		if hint := fault.Hint(err); hint != "" {
			fmt.Fprintf(a.errOut, "try: %s\n", fault.PlainLines(hint, "  "))
		}
	}
	switch {
	case known:
		return exitOf(f)
	case errors.As(err, new(usageError)):
		return exitUsage
	}
	return exitError
}

// unsure are the codes after which nobody can say that the release before serves.
var unsure = []string{slot.NotServing, "no_way_back", "not_restarted", "nobody_watches", "systemd_away", "job_failed", "job_unfinished", "job_canceled", "no_systemd"}

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
		if slices.Contains(unsure, f.Code) {
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
