package report

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes of the programs that write reports.
const (
	ExitError = 1
	ExitUsage = 64
)

// ErrUsage is a wrong command line; package flag has said why.
var ErrUsage = errors.New("usage")

// Program is what a measurement's main calls: run with the command line, until
// it has ended or somebody has had enough.
type Program func(ctx context.Context, args []string, stdout, stderr io.Writer) error

// Main runs a program and ends the process with its code.
func Main(name string, run Program) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(ExitCode(name, err, os.Stderr))
}

// Parse reads a command line, and gives ErrUsage for one that is wrong.
func Parse(flags *flag.FlagSet, args []string, stderr io.Writer) error {
	flags.SetOutput(stderr)
	err := flags.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return ErrUsage
}

// ExitCode is the one place where errors become exit codes and final words.
func ExitCode(program string, err error, stderr io.Writer) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, ErrUsage):
		return ExitUsage
	}
	fmt.Fprintf(stderr, "%s: %v\n", program, err)
	return ExitError
}
