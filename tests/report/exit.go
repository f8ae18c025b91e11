package report

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// Exit codes of the programs that write reports.
const (
	ExitError = 1
	ExitUsage = 64
)

// ErrUsage is a wrong command line; package flag has said why.
var ErrUsage = errors.New("usage")

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
