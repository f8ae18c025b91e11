package appliance

import (
	"log/slog"
	"os"
	"sync"
	"time"

	"whisper-appliance/internal/config"
)

// Settings is the configuration as it is now: what page, API and CLI save in
// settings.toml counts without a restart. A file that was made wrong meanwhile
// is reported once and the last good settings stay.
type Settings struct {
	Log *slog.Logger // set before Current; the settings themselves say how to log

	// Changed is told of settings that were taken over; nil = nobody is. It is
	// set before Current, and must not call back.
	Changed func(*config.Config)

	sources config.Sources

	mu      sync.Mutex
	current *config.Config
	report  *config.Report
	checked time.Time
	seen    os.FileInfo // of settings.toml at the last reading; nil where there was none
}

// recheck is how often settings.toml is looked at.
const recheck = 500 * time.Millisecond

// LoadSettings reads all sources. The error is config.Load's.
func LoadSettings(from config.Sources) (*Settings, error) {
	s := &Settings{sources: from, Log: slog.New(slog.DiscardHandler), seen: stat(from.Settings)}
	var err error
	s.current, s.report, err = config.Load(from)
	return s, err
}

// Current is the configuration; it must not be changed.
func (s *Settings) Current() *config.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.checked) >= recheck {
		s.checked = now
		s.refresh()
	}
	return s.current
}

// Report tells where each value comes from.
func (s *Settings) Report() *config.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

// Save writes one setting to settings.toml; see config.Sources.Save.
func (s *Settings) Save(key, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sources.Save(map[string]string{key: value}); err != nil {
		return err
	}
	s.refresh()
	return nil
}

// Reload reads everything anew. Where that fails the last good settings stay.
func (s *Settings) Reload() (*config.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = stat(s.sources.Settings)
	err := s.load()
	return s.current, err
}

// refresh reads everything anew when settings.toml has changed; mu is held.
func (s *Settings) refresh() {
	now := stat(s.sources.Settings)
	if same(now, s.seen) {
		return
	}
	s.seen = now
	if err := s.load(); err != nil {
		s.Log.Error("changed settings are not taken over", "error", err)
	}
}

// load takes over what the sources say; mu is held.
func (s *Settings) load() error {
	c, report, err := config.Load(s.sources)
	if err != nil {
		return err
	}
	s.current, s.report = c, report
	if s.Changed != nil {
		s.Changed(c)
	}
	return nil
}

// stat describes a file, nil where there is none.
func stat(path string) os.FileInfo {
	st, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return st
}

// same compares more than times: two saves may fall into one tick of the clock.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
