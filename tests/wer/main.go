// Command wer counts the appliance's word errors beside those of whisper.cpp's
// own whisper-cli: the same recordings, the same model, the same decoding, in
// one run. It exits with 1 where the appliance is worse by more than half a
// point overall. It trusts the references that lie with the recordings, starts
// an appliance of its own from build/slot, and writes docs/results/wer.txt.
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
	"strings"
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

// defaultBeam is whisper-cli's own, which the long form is held against.
const defaultBeam = 5

// settings are the flags.
type settings struct {
	root, speech, peer, model, save string
	threads, beam, long             int
	detect, longOnly                bool
	without                         without
}

// without is which parts of ours are switched off, to see what each is worth.
type without struct{ detector, shortPass, secondLook, carriedText bool }

// env is the settings of an appliance without them.
func (w without) env() []string {
	var env []string
	for _, off := range []struct {
		is      bool
		setting string
	}{
		{w.detector, "VAD_DETECTOR=loudness"}, {w.shortPass, "TRANSCRIPTION_SHORT_PASS=false"},
		{w.secondLook, "TRANSCRIPTION_SECOND_LOOK=false"}, {!w.carriedText, "TRANSCRIPTION_CARRY_TEXT=true"},
	} {
		if off.is {
			env = append(env, "WHISPER_APPLIANCE_"+off.setting)
		}
	}
	return env
}

// String names what is switched off.
func (w without) String() string {
	var off []string
	for _, part := range []struct {
		is   bool
		name string
	}{{w.detector, "without the speech detector"}, {w.shortPass, "without the short pass"}, {w.secondLook, "without the second look"}, {!w.carriedText, "with the text before as prompt"}} {
		if part.is {
			off = append(off, part.name)
		}
	}
	return strings.Join(off, ", ")
}

func main() { report.Main(program, run) }

func parse(args []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.StringVar(&s.speech, "speech", "", "`directory` of recordings with "+clips.Manifest+"; empty = ../shared/speech of the checkout")
	flags.StringVar(&s.peer, "peer", "", "`directory` that peer.sh made; empty = build/peer")
	flags.StringVar(&s.model, "model", "tiny", "catalogue `name` of the model")
	flags.StringVar(&s.save, "save", "wer.txt", "`name` of the result in docs/results; empty = print only")
	flags.IntVar(&s.threads, "threads", runtime.NumCPU(), "threads that decode, both sides")
	flags.IntVar(&s.beam, "beam", 0, "hypotheses of beam search, both sides; below 2 = greedy")
	flags.BoolVar(&s.detect, "detect", false, "let both sides detect the language instead of telling them")
	flags.IntVar(&s.long, "long", longClips, "clips in the long form")
	flags.BoolVar(&s.longOnly, "long-only", false, "measure the long form alone")
	flags.BoolVar(&s.without.detector, "no-detector", false, "ours: find speech by loudness")
	flags.BoolVar(&s.without.shortPass, "no-short-pass", false, "ours: decode short windows with the whole context")
	flags.BoolVar(&s.without.secondLook, "no-second-look", false, "ours: take each result as it comes")
	carry := flags.Bool("carry-text", false, "ours: prompt each window with the text before it")
	if err := report.Parse(flags, args, stderr); err != nil {
		return s, err
	}
	s.without.carriedText = !*carry
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
	ours, err := appliance.Start(ctx, appliance.Options{Root: s.root, Model: s.model, Env: append(s.without.env(),
		"WHISPER_APPLIANCE_ENGINE_THREADS="+strconv.Itoa(s.threads),
		"WHISPER_APPLIANCE_TRANSCRIPTION_BEAM_SIZE="+strconv.Itoa(s.beam),
		"WHISPER_APPLIANCE_TRANSCRIPTION_BEST_OF="+strconv.Itoa(bestOf),
	)})
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
		ours: s.ours(ours), theirs: s.theirs(theirs, appliance.ModelFile(s.root, s.model), s.beam),
		theirsLong: s.theirs(theirs, appliance.ModelFile(s.root, s.model), defaultBeam),
		long:       s.long, longOnly: s.longOnly,
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
	return func(ctx context.Context, path, language string) (string, peer.Cost, error) {
		var cost peer.Cost
		before, _, err := a.Spent()
		if err != nil {
			return "", cost, err
		}
		fields := map[string]string{"model": s.model, "temperature": "0", "response_format": "json"}
		if !s.detect {
			fields["language"] = language
		}
		text, took, err := clips.Request{URL: a.URL + "/v1/audio/transcriptions", Key: a.Key, Fields: fields, Path: path}.Transcribe(ctx)
		if err != nil {
			return "", cost, err
		}
		cost.Took = took
		cost.CPU, cost.Peak, err = a.Spent()
		cost.CPU -= before
		return text, cost, err
	}
}

// theirs transcribes with whisper-cli and so many hypotheses.
func (s settings) theirs(p peer.Peer, model string, beam int) recogniser {
	return func(ctx context.Context, path, language string) (string, peer.Cost, error) {
		if s.detect {
			language = "auto"
		}
		return p.CLI(ctx, model, path, "-l", language, "-t", strconv.Itoa(s.threads),
			"-bs", strconv.Itoa(max(beam, 1)), "-bo", strconv.Itoa(bestOf), "-tp", "0")
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
	if off := s.without.String(); off != "" {
		out.Printf("ours %s\n", off)
	}
	r.write(out)
	if err := out.Publish(stdout, s.root, s.save); err != nil {
		return err
	}
	return r.verdict()
}
