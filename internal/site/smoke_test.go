package site

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/component"
)

// answers is a server behind a socket that answers with what is given by path.
func answers(t *testing.T, readyz int, states ...component.State) string {
	t.Helper()
	return answersAt(t, filepath.Join(t.TempDir(), "s.sock"), readyz, states...)
}

func answersAt(t *testing.T, socket string, readyz int, states ...component.State) string {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(readyz) })
	mux.HandleFunc("/api/v1/components", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"components": states}) //nolint:errcheck // the test reads it
	})
	srv := &http.Server{Handler: mux}
	go srv.Serve(l) //nolint:errcheck // ends with Close
	t.Cleanup(func() { srv.Close() })
	return socket
}

func TestSwitchSmoke(t *testing.T) {
	state := func(name string, s component.Status) component.State {
		return component.State{Name: name, Status: s, Error: "why " + name}
	}
	failing := func(name string) component.State { return state(name, component.Failed) }
	none := filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		name, before, socket, word string
	}{
		{"well", none, answers(t, 200, state("engine", component.OK)), ""},
		{"nobody there", none, none, "/livez"},
		{"no model", none, answers(t, 503, failing("models"), state("engine", component.Waiting)), ""},
		{"a part fails", none, answers(t, 503, failing("engine")), "engine: why engine"},
		{"a part fails beside the model", none, answers(t, 503, failing("models"), failing("engine")), "engine"},
		{"as before", answers(t, 503, failing("engine")), answers(t, 503, failing("engine")), ""},
		{"another than before", answers(t, 503, failing("decoder")), answers(t, 503, failing("engine")), "engine"},
		{"ready in spite of it", none, answers(t, 200, failing("engine")), ""},
		{"not ready and says not why", none, answers(t, 503), "/readyz: status 503"},
		{"no such page", none, answers(t, 404), "status 404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := (&switchSmoke{serving: tt.before}).ask(t.Context(), tt.socket)
			if (err == nil) != (tt.word == "") || err != nil && !strings.Contains(err.Error(), tt.word) {
				t.Errorf("error %v, want %q", err, tt.word)
			}
		})
	}
	alone := answers(t, 503, failing("engine"))
	if err := (&switchSmoke{serving: alone}).ask(t.Context(), alone); err != nil {
		t.Errorf("with nobody to compare with: %v", err)
	}
}

// TestWayBackSmoke: who serves again is held against how it did before; where it
// was not asked then, being alive is enough.
func TestWayBackSmoke(t *testing.T) {
	failing := func(name string) component.State {
		return component.State{Name: name, Status: component.Failed, Error: "why " + name}
	}
	for _, tt := range []struct {
		name          string
		before, after []component.State
		asked         bool
		word          string
	}{
		{"as well as before", nil, nil, true, ""},
		{"worse", nil, []component.State{failing("engine")}, true, "engine: why engine"},
		{"as bad as before", []component.State{failing("engine")}, []component.State{failing("engine")}, true, ""},
		{"its model has gone", nil, []component.State{failing("models")}, true, ""},
		{"not asked before", nil, []component.State{failing("engine")}, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s.sock")
			s := &switchSmoke{serving: socket}
			s.full = func(context.Context, string) error { t.Error("it is to transcribe"); return nil }
			ready := func(states []component.State) int {
				if len(states) > 0 {
					return 503
				}
				return 200
			}
			if tt.asked {
				t.Run("before", func(t *testing.T) {
					answersAt(t, socket, ready(tt.before), tt.before...)
					s.remember()
				})
			} else {
				s.remember() // nobody is there
			}
			err := s.ask(t.Context(), answersAt(t, socket, ready(tt.after), tt.after...))
			if (err == nil) != (tt.word == "") || err != nil && !strings.Contains(err.Error(), tt.word) {
				t.Errorf("error %v, want %q", err, tt.word)
			}
		})
	}
}

// TestExcused: what speaks of the machine, or failed before, keeps no release
// from the port.
func TestExcused(t *testing.T) {
	failing := func(names ...string) string {
		var states []component.State
		for _, name := range names {
			states = append(states, component.State{Name: name, Status: component.Failed, Error: "why"})
		}
		return answers(t, 200, states...)
	}
	none := filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		name, before, socket string
		want                 bool
	}{
		{"the bus is down", none, failing("systemd", "updater"), true},
		{"a part of its own", none, failing("systemd", "decoder"), false},
		{"as before", failing("decoder"), failing("decoder"), true},
		{"another than before", failing("tls"), failing("decoder"), false},
		{"nothing fails", none, failing(), false},
		{"nobody there", failing("decoder"), none, false},
	} {
		if got := (&switchSmoke{serving: tt.before}).excused(t.Context(), tt.socket); got != tt.want {
			t.Errorf("%s: excused is %v", tt.name, got)
		}
	}
}
