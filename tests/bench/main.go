// Command bench times the appliance beside whisper.cpp's own whisper-server:
// the same model, threads, recordings and decoding, in turn, on one machine.
// It asserts nothing about speed. It trusts the build in build/slot and the
// peer's root, and writes docs/results/bench.txt.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/peer"
	"whisper-appliance/tests/report"
)

const program = "bench"

// bestOf is how many candidates both sides weigh where they decode again.
const bestOf = "5"

// settings are the flags.
type settings struct {
	root, peer, model, save string
	threads, runs, starts   int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(report.ExitCode(program, err, os.Stderr))
}

func parse(args []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.peer, "peer", "", "`directory` that peer.sh made; empty = build/peer")
	flags.StringVar(&s.model, "model", "tiny", "catalogue `name` of the model")
	flags.StringVar(&s.save, "save", "bench.txt", "`name` of the result in docs/results; empty = print only")
	flags.IntVar(&s.threads, "threads", runtime.NumCPU(), "threads that decode, both sides")
	flags.IntVar(&s.runs, "runs", 10, "runs of each clip, each side")
	flags.IntVar(&s.starts, "starts", 5, "starts, each side")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return s, err
		}
		return s, report.ErrUsage
	}
	if s.runs < 1 || s.starts < 1 {
		fmt.Fprintln(stderr, "runs and starts must be 1 or more")
		return s, report.ErrUsage
	}
	if s.root, err = appliance.Root(); err != nil {
		return s, err
	}
	s.peer = cmp.Or(s.peer, filepath.Join(s.root, "build", "peer"))
	return s, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	p, err := peer.Open(s.peer)
	if err != nil {
		return err
	}
	version, err := p.Version()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wa-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := &measurement{settings: s, peer: p, progress: stderr}
	if m.samples, err = makeSamples(ctx, s.root, dir); err != nil {
		return err
	}
	begin, load := time.Now(), report.Load()
	if err := m.all(ctx); err != nil {
		return err
	}
	out := report.New("Speed and memory: the appliance beside whisper-server", m.ours.Commit,
		"ours "+m.ours.Line, "theirs whisper.cpp "+version+", whisper-server",
		fmt.Sprintf("decoding %s, greedy, best of %s, %d threads, language en", s.model, bestOf, s.threads),
		"load "+load+" when it began",
		fmt.Sprintf("took %v", time.Since(begin).Round(time.Second)))
	m.write(out)
	fmt.Fprint(stdout, out)
	if s.save == "" {
		return nil
	}
	return out.Save(s.root, s.save)
}

// oursEnv makes the appliance decode as the peer does.
func (s settings) oursEnv() []string {
	return []string{
		"WHISPER_APPLIANCE_ENGINE_THREADS=" + strconv.Itoa(s.threads),
		"WHISPER_APPLIANCE_TRANSCRIPTION_BEAM_SIZE=0",
		"WHISPER_APPLIANCE_TRANSCRIPTION_BEST_OF=" + bestOf,
	}
}

// theirArgs makes whisper-server decode as the appliance does.
func (s settings) theirArgs() []string {
	return []string{"-t", strconv.Itoa(s.threads), "-bs", "1", "-bo", bestOf, "-l", "en"}
}
