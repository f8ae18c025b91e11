// Command bench times the appliance beside whisper.cpp's own whisper-server:
// the same library, model, threads and recordings, in turn, on one machine,
// each with its model in memory. It holds speed, errors and memory against the
// goals and says which are met; it fails where something does not work, not
// where it is slow. It trusts the build in build/slot and the peer's root, and
// writes docs/results/bench.txt.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/peer"
	"whisper-appliance/tests/report"
)

const program = "bench"

// bestOf is how many candidates both sides weigh where they decode again, and
// beamSize how many hypotheses whisper-server keeps where it searches.
const (
	bestOf   = "5"
	beamSize = "5"
)

// settings are the flags.
type settings struct {
	root, peer, model, save string
	threads, starts         int
	full, quick             bool
}

func main() { report.Main(program, run) }

func parse(args []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.StringVar(&s.peer, "peer", "", "`directory` that peer.sh made; empty = build/peer")
	flags.StringVar(&s.model, "model", "", "catalogue `name` of the only model to measure; empty = tiny and base")
	flags.StringVar(&s.save, "save", "bench.txt", "`name` of the result in docs/results; empty = print only")
	flags.IntVar(&s.threads, "threads", runtime.NumCPU(), "threads that decode, both sides")
	flags.IntVar(&s.starts, "starts", 5, "starts, each side")
	flags.BoolVar(&s.full, "full", false, "beam search on short recordings, too")
	flags.BoolVar(&s.quick, "quick", false, "a quick look: short files, few runs, nothing saved")
	if err := report.Parse(flags, args, stderr); err != nil {
		return s, err
	}
	if s.threads < 1 || s.starts < 1 {
		fmt.Fprintln(stderr, "threads and starts must be 1 or more")
		return s, report.ErrUsage
	}
	if len(s.plan()) == 0 {
		fmt.Fprintf(stderr, "nothing is planned for the model %q; tiny and base are measured\n", s.model)
		return s, report.ErrUsage
	}
	if s.quick {
		s.save, s.starts = "", 1
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
	r := &rig{settings: s, peer: p}
	m := &measurement{progress: stderr, launch: r.launch}
	if m.samples, err = makeSamples(ctx, s.root, dir, s.quick); err != nil {
		return err
	}
	begin, load := time.Now(), report.Load()
	for i := range s.starts {
		m.say("start %d/%d", i+1, s.starts)
		if err := r.start(ctx, m.samples[0]); err != nil {
			return err
		}
	}
	if err := m.all(ctx, s.plan()); err != nil {
		return err
	}
	out := report.New("Speed, errors and memory: the appliance beside whisper-server", r.ours.Commit,
		"ours "+r.ours.Line, "theirs whisper.cpp "+version+", whisper-server",
		fmt.Sprintf("decoding greedy, best of %s, %d threads, language en; beam is whisper-server with beam search of %s", bestOf, s.threads, beamSize),
		"load "+load+" when it began",
		fmt.Sprintf("took %v", time.Since(begin).Round(time.Second)))
	if said := s.leftOut(); said != "" {
		out.Printf("\n%s\n", said)
	}
	m.write(out)
	r.write(out)
	return out.Publish(stdout, s.root, s.save)
}

// oursEnv makes the appliance decode as the peer does.
func (s settings) oursEnv() []string {
	return []string{
		"WHISPER_APPLIANCE_ENGINE_THREADS=" + strconv.Itoa(s.threads),
		"WHISPER_APPLIANCE_TRANSCRIPTION_BEAM_SIZE=0",
		"WHISPER_APPLIANCE_TRANSCRIPTION_BEST_OF=" + bestOf,
	}
}

// theirArgs makes whisper-server decode as the appliance does, but for its beam.
func (s settings) theirArgs(beam string) []string {
	return []string{"-t", strconv.Itoa(s.threads), "-bs", beam, "-bo", bestOf, "-l", "en"}
}
