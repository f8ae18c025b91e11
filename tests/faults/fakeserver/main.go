// Command fakeserver stands in for whisper-appliance-server in releases that
// tests make: a small program that answers as the server does, and misbehaves
// as the file share/mode of its own release says (see mode.go). What it hears in
// a recording derives from the bytes.
//
// It needs nothing but the standard library, takes its sockets from systemd or
// from whoever stands in for it, and writes nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	exitError  = 1
	exitUsage  = 64
	exitConfig = 78
)

var (
	errUsage  = errors.New("wrong usage")
	errConfig = errors.New("this release cannot be run")
	errCrash  = errors.New("the mode wants a crash")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(exitCode(err, os.Stderr))
}

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "%s: %v\n", program, err)
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errConfig):
		return exitConfig
	}
	return exitError
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	show := flags.Bool("version", false, "print the version")
	check := flags.Bool("check", false, "read the release, and end")
	listen := flags.String("listen", "", "`address:port`, where no sockets are handed down")
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	own, err := ownRelease()
	if err != nil {
		return errors.Join(errConfig, err)
	}
	if *show {
		fmt.Fprintf(stdout, "%s %s (commit %s of %s)\n", program, own.Version, own.Commit, own.date())
		return nil
	}
	m, err := readMode(own.dir)
	if err != nil {
		return errors.Join(errConfig, err)
	}
	if *check {
		return nil
	}
	doors, err := inherited()
	if err == nil && len(doors) == 0 {
		doors, err = byHand(*listen)
	}
	if err != nil {
		return err
	}
	if m, err = m.here(role(os.Getenv("LISTEN_FDNAMES")), directory(doors)); err != nil {
		return errors.Join(errConfig, err)
	}
	return newServer(own, m, notifier{os.Getenv("NOTIFY_SOCKET")}).serve(ctx, doors)
}

// directory is where the first Unix socket lies, "" where there is none.
func directory(doors []net.Listener) string {
	for _, l := range doors {
		if a, ok := l.Addr().(*net.UnixAddr); ok {
			return filepath.Dir(a.Name)
		}
	}
	return ""
}

// byHand opens a door for somebody who looks at the program alone.
func byHand(address string) ([]net.Listener, error) {
	if strings.TrimSpace(address) == "" {
		return nil, errors.New("no sockets were handed down, and --listen names none")
	}
	l, err := net.Listen("tcp", address)
	return []net.Listener{l}, err
}
