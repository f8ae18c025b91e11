// Package appliance puts the parts together: from paths and settings to a
// service that transcribes. The server does it for everybody, and the CLI for
// one person where no server runs. It trusts both and writes nothing itself.
package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
)

// Appliance is the parts, assembled. Run has to be called for its engine to start.
type Appliance struct {
	Models  *model.Store
	Engine  *engine.Client
	Service *transcribe.Service

	// One of them: who starts engines.
	launcher *engine.Launcher
	unit     *engineUnit

	socket net.Listener           // the launcher's
	first  atomic.Pointer[string] // how the first model comes along
	pull   model.PullOptions      // of the first model; tests have no upstream
}

// assemble is what the appliance has whoever starts its processes.
func assemble(p paths.Paths, c func() *config.Config, log *slog.Logger) *Appliance {
	now := c()
	a := &Appliance{
		Models: Store(p, now),
		Engine: &engine.Client{Socket: p.EngineSocket, Stay: func() engine.Stay {
			e := c().Engine
			return engine.Stay{Unload: e.IdleUnload, Exit: e.IdleExit}
		}},
	}
	a.Service = &transcribe.Service{
		Queue: queue(c, a.Models),
		Spool: p.Spool, Longest: now.Transcription.MaxDuration, Timeout: now.Decode.Timeout, Log: log,
		DetectorModel: a.Models.ResolveVAD,
	}
	return a
}

// coresForTwo is from how many cores on two windows are decoded at once. Beside
// a short lane that never rests and a busy server, a recording of 36 s took twice
// as long on two cores with two lanes as with one.
const coresForTwo = 4

// queue is the line in front of the engine, as the settings have it.
func queue(c func() *config.Config, models *model.Store) *schedule.Queue {
	room := remembered{look: models.RoomForState}
	return &schedule.Queue{
		Most:       func() int { return c().Queue.Most },
		OwnersMost: func() int { return c().Queue.MostPerCaller },
		TwoLanes: func(file string) bool {
			lanes := c().Engine.Lanes
			return lanes == "two" || lanes == "auto" && runtime.NumCPU() >= coresForTwo && room.ask(file)
		},
	}
}

// remembered asks once in a while, as the queue asks for each window.
type remembered struct {
	look func(file string, before bool) bool

	mu     sync.Mutex
	file   string
	at     time.Time
	answer bool
}

const rememberFor = 5 * time.Second

func (r *remembered) ask(file string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if file != r.file || time.Since(r.at) > rememberFor {
		before := r.answer && file == r.file
		r.file, r.at, r.answer = file, time.Now(), r.look(file, before)
	}
	return r.answer
}

func socketDecoder(p paths.Paths) *decode.Decoder { return &decode.Decoder{Socket: p.DecodeSocket} }

// New assembles the parts where this process starts engine and decoders, and
// makes the engine's socket: from then on a request waits for the engine, which
// Run starts.
func New(p paths.Paths, settings func() *config.Config, log *slog.Logger, stderr io.Writer) (*Appliance, error) {
	c := settings()
	a := assemble(p, settings, log)
	a.launcher = &engine.Launcher{
		Program: engineCommand(p, c, a.Models.Dir), Socket: p.EngineSocket, Stderr: stderr, Log: log,
	}
	a.Service.Engine, a.Service.Detector = a.Engine, a.Engine
	a.Service.Decoder = &decode.Decoder{Program: decoderCommand(p, c)}
	a.Service.Stuck = a.launcher.Kill
	socket, err := a.launcher.Listen()
	if errors.Is(err, engine.ErrTaken) {
		return nil, fault.New(fault.Conflict, "already_running", "another server works in %s", p.Run).
			Try("stop it, or give this one a STATE_DIRECTORY of its own")
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "engine_socket", "the engine's socket %s cannot be made", p.EngineSocket).
			Because(err).Try("see who owns %s", p.Run)
	}
	a.socket = socket
	return a, nil
}

// Store is the models on this machine.
func Store(p paths.Paths, c *config.Config) *model.Store {
	return &model.Store{Dir: cmp.Or(c.Models.Directory, p.Models), Bundled: p.Bundled(), Proc: p.Proc, Cgroup: p.Cgroup}
}

// Programs are the files that must be there for a recording to be transcribed.
func Programs(p paths.Paths, c *config.Config) []string {
	return []string{p.EngineProgram()[0], p.DecoderProgram(), cmp.Or(c.Decode.FFmpeg, p.FFmpeg, "ffmpeg")}
}

func engineCommand(p paths.Paths, c *config.Config, models string) []string {
	return append(p.EngineProgram(),
		"--models", models,
		"--threads", strconv.Itoa(c.Engine.Threads),
		"--lifeline")
}

func decoderCommand(p paths.Paths, c *config.Config) []string {
	command := []string{p.DecoderProgram()}
	if ffmpeg := cmp.Or(c.Decode.FFmpeg, p.FFmpeg); ffmpeg != "" {
		command = append(command, "--ffmpeg", ffmpeg)
	}
	return command
}

// Run starts engines as they are needed until ctx ends; where systemd does, it
// only waits.
func (a *Appliance) Run(ctx context.Context) error {
	if a.unit != nil {
		<-ctx.Done()
		return nil
	}
	return a.launcher.Run(ctx, a.socket)
}

// EngineRunning tells whether an engine runs now.
func (a *Appliance) EngineRunning() bool {
	if a.unit != nil {
		return a.unit.running()
	}
	return a.launcher.PID() != 0
}

// EngineDown is why no engine can be started, "" where none is known.
func (a *Appliance) EngineDown() string {
	if a.unit != nil {
		return a.unit.down()
	}
	return a.launcher.Down()
}

// Preload has the engine read the model in use before anybody asks.
func (a *Appliance) Preload(ctx context.Context, name string) error {
	file, err := a.Models.Resolve(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	ctx, _, end := patience(ctx, a.EngineDown)
	defer end()
	if _, err := a.Engine.Load(ctx, file); err != nil {
		return fmt.Errorf("preload %s: %w", name, err)
	}
	return nil
}
