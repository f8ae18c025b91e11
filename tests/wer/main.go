// Command wer counts the appliance's word errors beside those of whisper.cpp's
// own whisper-cli: the same recordings, the same model, the same decoding, in
// one run. It exits with 1 where the appliance is worse by more than half a
// point overall. It trusts the references that lie with the recordings, starts
// an appliance of its own from build/slot, and writes docs/results/wer.txt.
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

	"whisper-appliance/internal/score"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/peer"
	"whisper-appliance/tests/report"
)

const program = "wer"

// tolerance is by how much our rate may be above the peer's.
const tolerance = 0.005

// bestOf is how many candidates both sides weigh where they decode again.
const bestOf = 5

// settings are the flags.
type settings struct {
	root, speech, peer, model, save string
	threads, beam                   int
	detect                          bool
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
	flags.StringVar(&s.speech, "speech", "", "`directory` of recordings with "+clips.Manifest+"; empty = ../shared/speech of the checkout")
	flags.StringVar(&s.peer, "peer", "", "`directory` that peer.sh made; empty = build/peer")
	flags.StringVar(&s.model, "model", "tiny", "catalogue `name` of the model")
	flags.StringVar(&s.save, "save", "wer.txt", "`name` of the result in docs/results; empty = print only")
	flags.IntVar(&s.threads, "threads", runtime.NumCPU(), "threads that decode, both sides")
	flags.IntVar(&s.beam, "beam", 0, "hypotheses of beam search, both sides; below 2 = greedy")
	flags.BoolVar(&s.detect, "detect", false, "let both sides detect the language instead of telling them")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return s, err
		}
		return s, report.ErrUsage
	}
	if s.root, err = appliance.Root(); err != nil {
		return s, err
	}
	s.peer = cmp.Or(s.peer, filepath.Join(s.root, "build", "peer"))
	if s.speech == "" {
		s.speech, err = clips.Shared(s.root)
	}
	return s, err
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	list, err := score.Manifest(filepath.Join(s.speech, clips.Manifest))
	if err != nil {
		return err
	}
	theirs, err := peer.Open(s.peer)
	if err != nil {
		return err
	}
	ours, err := appliance.Start(ctx, appliance.Options{Root: s.root, Model: s.model, Env: []string{
		"WHISPER_APPLIANCE_ENGINE_THREADS=" + strconv.Itoa(s.threads),
		"WHISPER_APPLIANCE_TRANSCRIPTION_BEAM_SIZE=" + strconv.Itoa(s.beam),
		"WHISPER_APPLIANCE_TRANSCRIPTION_BEST_OF=" + strconv.Itoa(bestOf),
	}})
	if err != nil {
		return err
	}
	result, err := compare(ctx, s, list, ours, theirs, stderr)
	if stopErr := ours.Stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return err
	}
	return finish(s, result, theirs, stdout)
}

// compare measures both sides, with the converted clips in a directory that
// lives as long.
func compare(ctx context.Context, s settings, list []score.Clip, ours *appliance.Appliance, theirs peer.Peer, progress io.Writer) (*result, error) {
	dir, err := os.MkdirTemp("", "wa-wer-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	m := measurement{
		dir: dir, progress: progress,
		ours:   s.ours(ours),
		theirs: s.theirs(theirs, appliance.ModelFile(s.root, s.model)),
	}
	start := time.Now()
	r, err := m.all(ctx, list)
	if err != nil {
		return nil, err
	}
	r.took = time.Since(start)
	r.ours, err = ours.Identify(ctx)
	return r, err
}

// ours transcribes through the running server.
func (s settings) ours(a *appliance.Appliance) recogniser {
	return func(ctx context.Context, path, language string) (string, error) {
		fields := map[string]string{"model": s.model, "temperature": "0", "response_format": "json"}
		if !s.detect {
			fields["language"] = language
		}
		text, _, err := clips.Request{URL: a.URL + "/v1/audio/transcriptions", Key: a.Key, Fields: fields, Path: path}.Transcribe(ctx)
		return text, err
	}
}

// theirs transcribes with whisper-cli.
func (s settings) theirs(p peer.Peer, model string) recogniser {
	return func(ctx context.Context, path, language string) (string, error) {
		if s.detect {
			language = "auto"
		}
		text, _, err := p.CLI(ctx, model, path, "-l", language, "-t", strconv.Itoa(s.threads),
			"-bs", strconv.Itoa(max(s.beam, 1)), "-bo", strconv.Itoa(bestOf), "-tp", "0")
		return text, err
	}
}

// finish prints and keeps the result, and judges it.
func finish(s settings, r *result, p peer.Peer, stdout io.Writer) error {
	version, err := p.Version()
	if err != nil {
		return err
	}
	decoding := "greedy, best of " + strconv.Itoa(bestOf)
	if s.beam > 1 {
		decoding = "beam search with " + strconv.Itoa(s.beam)
	}
	language := "told"
	if s.detect {
		language = "detected"
	}
	out := report.New("Word error rate: the appliance beside whisper-cli", r.ours.Commit,
		"ours "+r.ours.Line, "theirs whisper.cpp "+version+", whisper-cli",
		fmt.Sprintf("decoding %s, %s, %d threads, language %s", s.model, decoding, s.threads, language),
		fmt.Sprintf("took %v", r.took.Round(time.Second)))
	r.write(out)
	fmt.Fprint(stdout, out)
	if s.save != "" {
		if err := out.Save(s.root, s.save); err != nil {
			return err
		}
	}
	return r.verdict()
}
