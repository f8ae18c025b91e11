package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/paths"
)

// firstModelFile asks for the model in use, which a new installation has not
// got yet. Its one line is a directory to take it from, or empty. systemd
// starts the server as long as the file is there.
const firstModelFile = "first-model"

// Pause between two attempts at work that failed.
const (
	retryLeast = 15 * time.Second
	retryMost  = 15 * time.Minute
)

// TakeUpPending does the work that lies in the pending directory, until it is
// done or ctx ends. What fails is tried again, more and more rarely; its file
// stays, so that a restart takes it up.
func (a *Appliance) TakeUpPending(ctx context.Context, p paths.Paths, settings func() *config.Config, log *slog.Logger) {
	defer a.first.Store(nil)
	file := filepath.Join(p.Pending, firstModelFile)
	for pause := retryLeast; ; pause = min(2*pause, retryMost) {
		from, err := os.ReadFile(file)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				log.Error("pending work cannot be read", "path", file, "error", err)
			}
			return
		}
		err = a.pullFirst(ctx, settings(), strings.TrimSpace(string(from)), log)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if err = os.Remove(file); err == nil || errors.Is(err, fs.ErrNotExist) {
				return
			}
		}
		log.Warn("first model not fetched yet", "next_attempt_in", pause, logging.Err(err))
		a.say("the last attempt failed (%v); the next is in %v", err, pause)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// pullFirst fetches the model in use from the directory from, the mirror and
// upstream, the first that has it.
func (a *Appliance) pullFirst(ctx context.Context, c *config.Config, from string, log *slog.Logger) error {
	name := c.Models.Default
	if _, err := a.Models.Resolve(name); err == nil {
		return nil
	}
	a.say("it begins")
	log.Info("fetching the first model", "model", name, "directory", from)
	if from != "" {
		err := a.takeFirst(ctx, name, from)
		if err == nil {
			log.Info("first model taken", "model", name, "source", from)
			return nil
		}
		log.Warn("first model not taken from its directory", "model", name, logging.Err(err))
	}
	o := a.pull
	if c.Models.Mirror != "" {
		o.Sources = []string{c.Models.Mirror}
	}
	o.Progress = func(p model.Progress) {
		if p.Total > 0 {
			a.say("%d %% of %s", 100*p.Bytes/p.Total, fault.Bytes(p.Total))
		}
	}
	result, err := a.Models.Pull(ctx, name, o)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", name, err)
	}
	log.Info("first model fetched", "model", name, "source", result.Source)
	return nil
}

// takeFirst copies the model from a directory that the administrator named.
func (a *Appliance) takeFirst(ctx context.Context, name, from string) error {
	path, err := a.Models.Path(name)
	if err != nil {
		return err
	}
	_, err = a.Models.ImportGGML(ctx, filepath.Join(from, filepath.Base(path)), model.ImportOptions{Name: name})
	return err
}

func (a *Appliance) say(format string, args ...any) {
	words := fmt.Sprintf(format, args...)
	a.first.Store(&words)
}

// firstModel is how the fetching of the first model goes, "" where none is
// being fetched.
func (a *Appliance) firstModel() string {
	if words := a.first.Load(); words != nil {
		return *words
	}
	return ""
}
