// Command whisper-appliance-fetch brings releases and their metadata to this
// machine. It is the only part of the updates that goes out to the network; it
// runs as its own user, writes into its own directory alone, and what it brings
// is verified again by the updater. The updater starts its unit and writes what
// it wants to request.json; the answer is in result.json. By hand:
//
//	whisper-appliance-fetch --request FILE --dir DIR --root FILE
//
// It trusts the root of trust of the package and, of a request, that its
// sources may be asked. Package fetch has the files and their meaning.
//
// Exit codes, whose reason is in result.json: 0 done; 1 failed; 64 wrong usage;
// 65 what a source gave was refused; 66 a source has no such thing; 69 no source
// answers; 73 the disk is full; 75 another one is at work; 77 its directory may
// not be written; 78 nothing to ask or to trust: request, sources or root of
// trust; 130 told to stop.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/fetch"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/version"
)

const program = "whisper-appliance-fetch"

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

// maxRoot is far more than the root of trust has, in bytes.
const maxRoot = 1 << 20

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
	var f *fault.Error
	if !errors.As(err, &f) {
		return exitError
	}
	return exitOf(f)
}

func exitOf(f *fault.Error) int {
	configured := []string{"bad_request", "bad_target", "no_source", "bad_source", "no_trust_root", "bad_trust_root", "no_directory"}
	if slices.Contains(configured, f.Code) {
		return exitConfig
	}
	switch f.Kind {
	case fault.BadInput:
		return exitData
	case fault.NotFound:
		return exitNoInput
	case fault.Unavailable:
		return exitUnavailable
	case fault.NoSpace:
		return exitNoSpace
	case fault.Busy, fault.Conflict:
		return exitBusy
	case fault.Forbidden:
		return exitNoPerm
	case fault.Canceled:
		return exitCanceled
	}
	return exitError
}

// options are the command line's.
type options struct {
	request string
	dir     string
	root    string
	version bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := installed()
	f := flag.NewFlagSet(program, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.request, "request", o.request, "the `file` that says what to bring")
	f.StringVar(&o.dir, "dir", o.dir, "the `directory` to bring it to")
	f.StringVar(&o.root, "root", o.root, "the `file` with the root of trust")
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
	if o.version {
		return o, nil
	}
	for _, needed := range []struct{ name, value string }{{"request", o.request}, {"dir", o.dir}, {"root", o.root}} {
		if needed.value == "" {
			fmt.Fprintf(stderr, "%s needs --%s: this machine has no place for it\n", program, needed.name)
			return o, errUsage
		}
	}
	return o, nil
}

// installed are the places of an installed appliance; the unit's own directory
// comes before the usual one.
func installed() (o options) {
	if dirs := filepath.SplitList(os.Getenv("STATE_DIRECTORY")); len(dirs) > 0 {
		o.dir = dirs[0]
	}
	p, err := paths.Find(paths.System())
	if err != nil || p.Kind != paths.Installed {
		return o
	}
	if o.dir == "" {
		o.dir = p.Fetched
	}
	o.root = p.TrustRoot
	o.request = p.Order()
	return o
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
	log, err := logging.New(logging.Options{
		W: stderr, Format: logging.Auto, JournalStream: os.Getenv("JOURNAL_STREAM"),
		Attrs: []slog.Attr{slog.String(logging.Component, "fetcher"), slog.String(logging.Version, version.Build().Version)},
	})
	if err != nil {
		return err
	}
	f := &fetch.Fetcher{Dir: o.dir, Agent: program + "/" + version.Build().Version, Log: log}
	if f.Root, err = readRoot(o.root); err != nil {
		return f.Fail(err)
	}
	_, err = f.RunFile(ctx, o.request)
	return err
}

// readRoot gives nothing where there is no root of trust, of which others know
// what to say.
func readRoot(path string) ([]byte, error) {
	data, err := durable.ReadRegular(path, maxRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "bad_trust_root", "the root of trust %s cannot be read", path).Because(err).
			Try("install the package again: `apt reinstall whisper-appliance`")
	}
	return data, nil
}
