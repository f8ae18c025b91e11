package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/appliance"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// order is what the command line asks for.
type order struct {
	api.Request
	format    string
	subtitles map[string]*string // by the names of transcript.LayoutFields, as typed
	layout    *transcript.Layout
	output    string
	translate bool
	force     bool
	quiet     bool
	alone     bool
}

func transcribeCommand(a *app) *cobra.Command {
	var o order
	c := &cobra.Command{
		Use:   "transcribe FILE…",
		Short: "Turn recordings into text",
		Long: `Turn recordings into text: anything that ffmpeg reads, sound or video.

It works through the server that runs on this machine (or --url), and by itself
where none runs. The text goes to standard output; progress to a terminal only.
A FILE of - is standard input.

Subtitles (srt, vtt) are laid out for people to read: lines of 42 characters, two
at a time, broken where the text allows it, for as long as reading takes. The
section [subtitles] of the settings says otherwise, or these options; with
--subtitle_style segments they are Whisper's segments as they come.`,
		Example: `  whisper-appliance transcribe talk.mp3
  whisper-appliance transcribe --format srt --output subtitles/ *.mp4
  whisper-appliance transcribe --format vtt --max_line_width 32 --max_line_count 1 talk.mp3
  whisper-appliance transcribe --language de --translate rede.ogg`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, files []string) error { return a.transcribe(c.Context(), o, files) },
	}
	f := c.Flags()
	f.StringVarP(&o.format, "format", "f", "txt", "txt, json, verbose_json, srt, vtt, tsv, words or lrc")
	f.StringVarP(&o.Language, "language", "l", "", "language spoken (de or german); left out: detected")
	f.BoolVar(&o.translate, "translate", false, "write it in English")
	f.StringVarP(&o.Model, "model", "m", "", "`name` of an installed model; left out: the one in use")
	f.StringVar(&o.Prompt, "prompt", "", "`text` that names words and spellings to expect")
	f.StringVar(&o.Temperature, "temperature", "", "0 to 1: where decoding starts")
	o.subtitleFlags(c)
	f.StringVarP(&o.output, "output", "o", "", "`file`, or directory for one file each; left out: standard output")
	f.BoolVar(&o.force, "force", false, "overwrite files that are there")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress, no notes")
	f.BoolVar(&o.alone, "alone", false, "work without a server even where one runs")
	a.serverFlags(c)
	a.completeTranscribe(c)
	return c
}

// subtitleFlags adds what may be asked for of subtitles, by the names that the
// API's fields and Whisper's own program have.
func (o *order) subtitleFlags(c *cobra.Command) {
	o.subtitles = map[string]*string{}
	for name, says := range map[string]string{
		"subtitle_style":     "srt and vtt: broadcast or segments",
		"max_line_width":     "srt and vtt: characters of a line; a full-width one counts twice",
		"max_line_count":     "srt and vtt: lines of a cue",
		"max_words_per_line": "srt and vtt: words of a line",
		"max_cps":            "srt and vtt: characters a second that people can read",
	} {
		o.subtitles[name] = c.Flags().String(name, "", says)
	}
}

// recogniser turns one recording into a transcript.
type recogniser func(ctx context.Context, q api.Request, m *meter) (*transcript.Transcript, error)

func (a *app) transcribe(ctx context.Context, o order, files []string) error {
	format, err := transcript.ParseFormat(o.format)
	if err != nil {
		return onFlag(err, "--format")
	}
	if o.layout, err = a.layout(o, format); err != nil {
		return err
	}
	o.Words = format.NeedsWords() || format == transcript.VerboseJSON || o.layout != nil
	o.Task = transcript.Transcribe
	if o.translate {
		o.Task = transcript.Translate
	}
	targets, err := o.targets(files, format)
	if err != nil {
		return err
	}
	recognise, end, err := a.recogniser(ctx, o.alone)
	if err != nil {
		return err
	}
	defer end()
	var failed []error
	for i, file := range files {
		o.Path = file
		if file == "-" {
			spooled, err := spoolInput(a.in)
			if err != nil {
				return err
			}
			defer os.Remove(spooled)
			o.Path = spooled
		}
		if err := a.one(ctx, o, format, recognise, targets[i], len(files), i); err != nil {
			if len(files) > 1 {
				err = fmt.Errorf("%s: %w", file, err)
			}
			failed = append(failed, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// layout is how the cues of subtitles are laid out, nil for no layout. Through
// a server, too, it is this machine's settings that say it.
func (a *app) layout(o order, format transcript.Format) (*transcript.Layout, error) {
	c := config.Default()
	if format.Cues() {
		var err error
		if c, _, err = config.Load(a.sources()); err != nil {
			return nil, err
		}
	}
	layout, err := transcript.ChooseLayout(format, transcript.Broadcast, c.Subtitles.Layout(), func(name string) string { return *o.subtitles[name] })
	var f *fault.Error
	if errors.As(err, &f) {
		return nil, onFlag(err, "--"+f.Field)
	}
	return layout, nil
}

// spoolInput puts standard input into a file: media are read back and forth.
func spoolInput(in io.Reader) (path string, err error) {
	f, err := os.CreateTemp("", "whisper-appliance-input-*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, in)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("read standard input: %w", err)
	}
	return f.Name(), nil
}

// onFlag names the flag where the server would name its field.
func onFlag(err error, flag string) error {
	var f *fault.Error
	if errors.As(err, &f) {
		f.Field = flag
	}
	return err
}

// one does the i-th file of n.
func (a *app) one(ctx context.Context, o order, format transcript.Format, recognise recogniser, target string, n, i int) error {
	file := o.Path
	if isDir(file) {
		return fault.New(fault.BadInput, "is_directory", "%s is a directory", file).Try("name the recordings in it: %s", filepath.Join(file, "*"))
	}
	if err := o.refuse(file, target); err != nil {
		return err
	}
	m := a.meter(o.quiet)
	t, err := recognise(ctx, o.Request, m)
	m.clear()
	if err != nil {
		return err
	}
	if !o.quiet {
		for _, note := range t.Notes {
			fmt.Fprintf(a.errOut, "%s: %s\n", file, note)
		}
	}
	render := func(w io.Writer) error {
		return transcript.Render(w, format, t, transcript.Options{Words: true, Segments: true, Layout: o.layout})
	}
	if target != "" {
		return write(target, render)
	}
	if n > 1 && format == transcript.Txt {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "==> %s <==\n", file)
	}
	return render(a.out)
}

// recogniser is the server's, or one of our own where none runs. end frees it.
func (a *app) recogniser(ctx context.Context, alone bool) (r recogniser, end func(), err error) {
	if !alone {
		c, ok, err := a.client(ctx)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			return throughServer(c), func() {}, nil
		}
	}
	return a.byItself(ctx)
}

func throughServer(c *api.Client) recogniser {
	return func(ctx context.Context, q api.Request, m *meter) (*transcript.Transcript, error) {
		name := filepath.Base(q.Path)
		return c.Transcribe(ctx, q, func(done, total int64) {
			m.show("%s  sending %s of %s", name, fault.Bytes(done), fault.Bytes(total))
		}, func(p api.Progress) {
			m.show("%s  %s", name, phaseLine(p.Phase, seconds(p.Done), seconds(p.Total)))
		})
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func phaseLine(phase string, done, total time.Duration) string {
	if total == 0 {
		return phase
	}
	return fmt.Sprintf("%s  %d %%  %s of %s", phase, 100*done/total, clock(done), clock(total))
}

// spool is where decoded sound lies, 230 MB for an hour: the state's directory
// where we may write to it, for a temporary one is often held in memory.
func (a *app) spool(temporary string) string {
	if a.paths.Kind != paths.Installed { // or its directories would be ours
		a.paths.Prepare() //nolint:errcheck // the probe tells
	}
	probe, err := os.CreateTemp(a.paths.Spool, ".probe-*")
	if err != nil {
		return temporary
	}
	probe.Close()
	os.Remove(probe.Name()) //nolint:errcheck // an empty file at worst
	return a.paths.Spool
}

// byItself starts an engine for this command alone, with its socket in a
// directory of its own.
func (a *app) byItself(ctx context.Context) (recogniser, func(), error) {
	c, _, err := config.Load(a.sources())
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "whisper-appliance-")
	if err != nil {
		return nil, nil, err
	}
	p := a.paths
	p.Run, p.EngineSocket = dir, filepath.Join(dir, "engine.sock")
	p.Spool = a.spool(dir)
	log := slog.New(slog.NewTextHandler(a.errOut, &slog.HandlerOptions{Level: slog.LevelWarn}))
	parts, err := appliance.New(p, func() *config.Config { return c }, log, io.Discard)
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if err := parts.Run(ctx); err != nil {
			log.Error("engine", "error", err)
		}
	}()
	end := func() {
		cancel()
		<-gone
		os.RemoveAll(dir)
	}
	return ownRecogniser(c, parts), end, nil
}

func ownRecogniser(c *config.Config, parts *appliance.Appliance) recogniser {
	return func(ctx context.Context, q api.Request, m *meter) (*transcript.Transcript, error) {
		job, err := transcribe.Request{
			Model: q.Model, Language: q.Language, Prompt: q.Prompt, Temperature: q.Temperature, Task: q.Task, Words: q.Words,
		}.Job(parts.Models, c)
		if err != nil {
			return nil, err
		}
		job.Name = filepath.Base(q.Path)
		if job.Audio, err = os.Open(q.Path); err != nil {
			return nil, err
		}
		defer job.Audio.Close()
		return parts.Service.Run(ctx, job, func(u transcribe.Update) {
			m.show("%s  %s", job.Name, phaseLine(string(u.Phase), u.Done, u.Total))
		})
	}
}
