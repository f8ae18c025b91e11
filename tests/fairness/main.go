// Command fairness measures how long short recordings wait while long ones
// run: clips of 3 s, one every ten seconds, beside two long files, and ten users
// at once beside one. It does so with the appliance as it is, with its engine in
// one lane, and with whisper.cpp's own whisper-server. It fails where something
// does not work, not where somebody waits. It trusts the build in build/slot and
// the peer's root, and writes docs/results/fairness.txt.
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
	"time"

	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/peer"
	"whisper-appliance/tests/report"
)

const program = "fairness"

// model is what all sides transcribe with.
const model = "tiny"

// settings are the flags.
type settings struct {
	root, peer, save string
	threads          int
	load             load
	theirs           load // of whisper-server
	quick            bool
}

func main() { report.Main(program, run) }

func parse(args []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.StringVar(&s.peer, "peer", "", "`directory` that peer.sh made; empty = build/peer")
	flags.StringVar(&s.save, "save", "fairness.txt", "`name` of the result in docs/results; empty = print only")
	flags.IntVar(&s.threads, "threads", runtime.NumCPU(), "threads that decode, all sides")
	flags.IntVar(&s.load.clips, "clips", 60, "clips beside the long files")
	flags.IntVar(&s.theirs.clips, "their-clips", 20, "the same for whisper-server, which takes minutes for each")
	flags.DurationVar(&s.load.every, "every", 10*time.Second, "one clip in so long")
	flags.IntVar(&s.load.rounds, "rounds", 5, "times that ten users come at once")
	flags.BoolVar(&s.quick, "quick", false, "a quick look: few clips, nothing saved")
	if err := report.Parse(flags, args, stderr); err != nil {
		return s, err
	}
	if s.quick {
		s.load = load{idle: 5, clips: 5, every: 2 * time.Second, rounds: 1}
		s.save, s.theirs.clips = "", 3
	} else {
		s.load.idle = 40
	}
	if s.threads < 1 || s.load.clips < 1 || s.theirs.clips < 1 || s.load.rounds < 1 || s.load.every <= 0 {
		fmt.Fprintln(stderr, "threads, clips, rounds and every must be above 0")
		return s, report.ErrUsage
	}
	s.theirs.idle, s.theirs.every, s.theirs.rounds = s.load.idle, s.load.every, min(s.load.rounds, 2)
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
	dir, err := os.MkdirTemp("", "wa-fairness-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sounds, err := makeSounds(ctx, s.root, dir, s.quick)
	if err != nil {
		return err
	}
	begin, machine := time.Now(), report.Load()
	r := &rig{settings: s, peer: p, sounds: sounds, progress: stderr}
	results, err := r.all(ctx)
	if err != nil {
		return err
	}
	out := report.New("Fairness: how long a short recording waits while long ones run", r.ours.Commit,
		"ours "+r.ours.Line, "theirs whisper.cpp "+version+", whisper-server",
		fmt.Sprintf("decoding %s, greedy, %d threads, language en", model, s.threads),
		"load "+machine+" when it began",
		fmt.Sprintf("took %v", time.Since(begin).Round(time.Second)))
	write(out, results)
	return out.Publish(stdout, s.root, s.save)
}
