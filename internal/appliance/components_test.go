package appliance

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
)

// box is a machine with all parts in place but a model.
func box(t *testing.T) Parts {
	t.Helper()
	dir := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	p := paths.Paths{Kind: paths.Installed, SlotName: "a", Slot: at("slot"), Golden: at("golden"), State: at("state"), Models: at("state", "models"),
		Spool: at("state", "spool"), Jobs: at("state", "jobs"), Uploads: at("state", "uploads"), Database: at("state", "database", "appliance.db"), TLS: at("state", "tls"), Pending: at("state", "pending"), Run: at("run"),
		EngineSocket: at("run", "engine-a.sock"), DecodeSocket: at("run", "decode.sock"), UnitFFmpeg: at("ffmpeg")}
	for _, file := range []string{p.EngineProgram()[0], p.EngineBinary(), p.EngineSocket, p.DecodeSocket, p.UnitFFmpeg,
		at("golden", "bin", "whisper-appliance-decode")} {
		touch(t, file, "")
	}
	if err := os.MkdirAll(p.Pending, 0o755); err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	settings := func() *config.Config { return c }
	healthy := func(context.Context, string) (systemd.Unit, error) { return systemd.Unit{Active: "inactive"}, nil }
	parts := Parts{Paths: p, Config: settings, Appliance: Supervised(p, settings, slog.New(slog.DiscardHandler), healthy)}
	parts.Jobs = &Jobs{Paths: p, Config: settings, Service: parts.Appliance.Service, Role: "server", Log: slog.New(slog.DiscardHandler)}
	t.Cleanup(func() { parts.Jobs.Close() })
	parts.Doors = func(context.Context) error { return nil }
	parts.Certificate = func(context.Context) error { return nil }
	parts.Keys = func() error { return nil }
	parts.Systemd = func(context.Context) error { return nil }
	return parts
}

func touch(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func started(t *testing.T, p Parts) (*component.Registry, error) {
	t.Helper()
	r, err := component.New(p.Components(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r, r.Start(t.Context())
}

// TestComponentsBroken: each part that is broken fails alone, with a code and
// words that name it, and only what needs it fails with it.
func TestComponentsBroken(t *testing.T) {
	remove := func(path func(Parts) string) func(*testing.T, *Parts) {
		return func(t *testing.T, p *Parts) {
			if err := os.RemoveAll(path(*p)); err != nil {
				t.Fatal(err)
			}
		}
	}
	no := errors.New("no")
	for _, c := range []struct {
		name, component, code string
		critical              bool
		spoil                 func(*testing.T, *Parts)
	}{
		{"no model", "models", "model_not_installed", false, func(*testing.T, *Parts) {}},
		{"damaged model", "models", "model_damaged", false, func(t *testing.T, p *Parts) {
			touch(t, filepath.Join(p.Paths.Models, "ggml-base.bin"), "nothing of a model")
		}},
		{"no ffmpeg", "decoder", "decoder_missing", false, remove(func(p Parts) string { return p.Paths.UnitFFmpeg })},
		{"no decoder socket", "decoder", "decoder_missing", false, remove(func(p Parts) string { return p.Paths.DecodeSocket })},
		{"no engine", "engine", "engine_missing", false, remove(func(p Parts) string { return p.Paths.EngineBinary() })},
		{"engine given up", "engine", "engine_down", false, func(_ *testing.T, p *Parts) {
			p.Appliance.unit.ask = func(context.Context, string) (systemd.Unit, error) {
				return systemd.Unit{Active: "activating", Sub: "auto-restart", Result: "exit-code", Restarts: 4}, nil
			}
		}},
		{"full disk", "spool", "disk_full", false, func(_ *testing.T, p *Parts) {
			p.Free = func(string) (int64, error) { return 1 << 20, nil }
		}},
		{"no certificate", "tls", "tls_x", false, func(_ *testing.T, p *Parts) {
			p.Certificate = func(context.Context) error { return fault.New(fault.Unavailable, "tls_x", "none") }
		}},
		{"certificate of somebody else", "tls", "certificate_unusable", false, func(_ *testing.T, p *Parts) {
			p.Certificate = func(context.Context) error { return no }
		}},
		{"bad keys", "keys", component.CodeFailed, false, func(_ *testing.T, p *Parts) { p.Keys = func() error { return no } }},
		{"no bus", "systemd", component.CodeFailed, false, func(_ *testing.T, p *Parts) {
			p.Systemd = func(context.Context) error { return no }
		}},
		{"no door", "doors", component.CodeFailed, true, func(_ *testing.T, p *Parts) {
			p.Doors = func(context.Context) error { return no }
		}},
		{"file for a directory", "state", "no_directory", true, func(t *testing.T, p *Parts) {
			if err := os.RemoveAll(p.Paths.State); err != nil {
				t.Fatal(err)
			}
			touch(t, p.Paths.State, "")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := box(t)
			c.spoil(t, &p)
			r, err := started(t, p)
			if (err != nil) != c.critical {
				t.Errorf("start: %v, critical %t", err, c.critical)
			}
			s, _ := r.State(c.component)
			if s.Status != component.Failed || s.Code != c.code || s.Critical != c.critical || s.Error == "" {
				t.Errorf("%+v, want code %s", s, c.code)
			}
			for _, other := range r.States() {
				needs := other.Name == c.component || other.Name == "models" || other.Name == "memory" || other.Name == "vad"
				if other.Status == component.Failed && !needs {
					t.Errorf("%s failed too: %s", other.Name, other.Error)
				}
			}
		})
	}
}

// TestDetectorComponent: it is well with the release's model, or where nobody
// wants one, and says else how to get it.
func TestDetectorComponent(t *testing.T) {
	for _, c := range []struct {
		name, detector string
		size           int64 // of the release's model
		code, about    string
	}{
		{"bundled", "auto", 885_098, "", "ggml-silero-v6.2.0.bin"},
		{"missing", "auto", 0, "detector_missing", ""},
		{"broken off", "auto", 1000, "detector_missing", ""},
		{"not wanted", "loudness", 0, "", "loudness"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := box(t)
			p.Config().VAD.Detector = c.detector
			if c.size > 0 {
				file := filepath.Join(p.Paths.Bundled(), "ggml-silero-v6.2.0.bin")
				touch(t, file, "")
				if err := os.Truncate(file, c.size); err != nil {
					t.Fatal(err)
				}
			}
			about, err := p.checkVAD(t.Context())
			var f *fault.Error
			if errors.As(err, &f) && (f.Code != c.code || f.Hint != "whisper-appliance models pull silero") || (err != nil) != (c.code != "") {
				t.Errorf("%v, want %q", err, c.code)
			}
			if !strings.Contains(about, c.about) {
				t.Errorf("says %q, want %q", about, c.about)
			}
		})
	}
}

// TestComponentsCanBeShown: the list is complete without anything behind it.
func TestComponentsCanBeShown(t *testing.T) {
	list := Parts{}.Components()
	if _, err := component.New(list, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.Does == "" || c.Without == "" || c.Planned == "" && c.Checked == "" {
			t.Errorf("%s does not say what it does, how it is checked or what happens without it", c.Name)
		}
	}
}

// TestComponentsPage: the page in docs is what is declared.
func TestComponentsPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "components.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := component.Page(Parts{}.Components()); string(page) != want {
		t.Error("docs/components.md is not what the components declare: make docs")
	}
}

func TestEngineUnit(t *testing.T) {
	for _, c := range []struct {
		name    string
		unit    systemd.Unit
		err     error
		running bool
		down    string
	}{
		{"waits for work", systemd.Unit{Active: "inactive", Result: "success"}, nil, false, ""},
		{"runs", systemd.Unit{Active: "active", MainPID: 7, Result: "success"}, nil, true, ""},
		{"runs again after a crash", systemd.Unit{Active: "active", MainPID: 7, Result: "core-dump", Restarts: 7}, nil, true, ""},
		{"first crash", systemd.Unit{Active: "activating", Result: "exit-code", Restarts: 1}, nil, false, ""},
		{"crash loop", systemd.Unit{Active: "activating", Result: "exit-code", Restarts: 3}, nil, false, "3 times in a row (exit-code)"},
		{"given up", systemd.Unit{Active: "failed", Result: "exec-condition"}, nil, false, "exec-condition"},
		{"masked", systemd.Unit{Load: "masked", Active: "inactive"}, nil, false, "is masked"},
		{"not installed", systemd.Unit{Load: "not-found", Active: "inactive", Result: "success"}, nil, false, "is not-found"},
		{"unknown", systemd.Unit{}, errors.New("no bus"), false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := &engineUnit{name: "x.service", ask: func(context.Context, string) (systemd.Unit, error) { return c.unit, c.err }}
			if got := u.running(); got != c.running {
				t.Errorf("running %t", got)
			}
			if got := u.down(); (got == "") != (c.down == "") || !strings.Contains(got, c.down) {
				t.Errorf("down %q, want %q", got, c.down)
			}
		})
	}
}

// TestEngineRestartsAreForgiven: a minute of work makes up for the restarts before.
func TestEngineRestartsAreForgiven(t *testing.T) {
	unit := systemd.Unit{Active: "active", MainPID: 7, Restarts: 9, Since: time.Now().Add(-2 * unitWell)}
	u := &engineUnit{name: "x.service", ask: func(context.Context, string) (systemd.Unit, error) { return unit, nil }}
	u.running()
	for restarts, down := range map[uint32]bool{10: false, 11: false, 12: true} {
		unit = systemd.Unit{Active: "activating", Result: "signal", Restarts: restarts}
		u.at = time.Time{}
		if got := u.down(); (got != "") != down {
			t.Errorf("after restart %d: %q", restarts, got)
		}
	}
	unit.Restarts = 0 // somebody has started it himself
	u.at = time.Time{}
	if got := u.down(); got != "" {
		t.Errorf("after a start: %q", got)
	}
}

// TestPreloadGivesUp: an engine that cannot be started does not keep the doors shut.
func TestPreloadGivesUp(t *testing.T) {
	p := box(t)
	touch(t, filepath.Join(p.Paths.Models, "ggml-base.bin"), "a model")
	socket := filepath.Join(t.TempDir(), "s") // nobody takes what waits there
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Skipf("no socket: %v", err)
	}
	defer l.Close()
	p.Appliance.Engine.Socket = socket
	p.Appliance.unit.ask = func(context.Context, string) (systemd.Unit, error) {
		return systemd.Unit{Active: "failed", Result: "exit-code"}, nil
	}
	began := time.Now()
	if err := p.Appliance.Preload(t.Context(), "base"); err == nil || !strings.Contains(err.Error(), "in a row") || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
