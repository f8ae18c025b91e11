package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/environment"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
	"whisper-appliance/internal/watchdog"
)

// Surroundings is where the appliance runs, as it was found at the start.
type Surroundings struct {
	environment.Environment
	SearchPaths []string // where programs and models are looked for
	AppRoot     string   // the release in use
	Detected    []string // the appliance's directories that are there
}

// Detailed is the long health answer. What may be slow to find out is told from
// memory, and sampled every few seconds; only the models' files are looked at in
// the request, so that one that was just fetched counts at once.
type Detailed struct {
	Status        component.Health  `json:"status" enum:"ok,degraded,error"`
	Reasons       []string          `json:"reasons" doc:"Why status is not ok."`
	Modules       Modules           `json:"modules"`
	ModuleReasons map[string]string `json:"module_reasons" doc:"Why a module is false."`
	Components    []component.State `json:"components"`
	Environment   EnvironmentInfo   `json:"environment"`
	Units         []systemd.Unit    `json:"units" doc:"What systemd knows of the appliance's units; times in nanoseconds."`
	UnitsMissing  string            `json:"units_not_available,omitempty" doc:"Why units is empty or old."`
	Resources     Resources         `json:"resources"`
	Startup       Startup           `json:"startup"`
	Watchdog      WatchdogInfo      `json:"watchdog"`
	Errors        Mistakes          `json:"errors"`
	Versions      Versions          `json:"versions"`
	SampleAge     float64           `json:"sample_age_seconds" doc:"How old units and resources are; -1 before the first sample."`
	Uptime        float64           `json:"uptime_seconds"`
	Timestamp     string            `json:"timestamp" format:"date-time"`
}

// WatchdogInfo is how the watchdog is doing.
type WatchdogInfo watchdog.Status

// Modules are the original's three. They are true only where they work.
type Modules struct {
	Update      bool `json:"update"`
	Maintenance bool `json:"maintenance"`
	Enterprise  bool `json:"enterprise"`
}

// EnvironmentInfo is where the appliance runs.
type EnvironmentInfo struct {
	Deployment   string   `json:"deployment_type" doc:"lxc, vm, docker, podman, kubernetes, bare_metal, development …"`
	Container    string   `json:"container_type" doc:"Empty where there is none."`
	Virt         string   `json:"virtualization"`
	Unprivileged *bool    `json:"unprivileged,omitempty" doc:"root here is not root on the host; absent where that cannot be seen."`
	Profile      string   `json:"profile" doc:"development, testing, staging or production."`
	Evidence     string   `json:"evidence" doc:"What says so."`
	PythonPath   []string `json:"python_path" doc:"search_paths, under the name that the original had."`
	SearchPaths  []string `json:"search_paths" doc:"Where programs and models are looked for."`
	AppRoot      string   `json:"app_root" doc:"The release in use."`
	Slot         string   `json:"slot" doc:"a, b or golden; empty where there are no slots."`
}

// Startup is how long the start took, in milliseconds.
type Startup struct {
	ComponentsMS float64 `json:"components_ms" doc:"All components together."`
	ReadyMS      float64 `json:"ready_ms" doc:"From the start of the process to its readiness; 0 until then."`
}

// Versions are of the programs that work together.
type Versions struct {
	Server string `json:"server"`
	Engine string `json:"engine,omitempty" doc:"Of the engine that runs; absent while none does."`
	Agree  bool   `json:"agree" doc:"They are of one build."`
}

type detailedAnswer struct {
	Status int
	Body   Detailed
}

func (s *Server) detailed(context.Context, *struct{}) (*detailedAnswer, error) {
	reasons := s.missing()
	status, also := s.overall(reasons)
	modules, because := s.modules()
	d := Detailed{
		Status: status, Reasons: append(append([]string{}, reasons...), also...), Modules: modules, ModuleReasons: because,
		Components: s.states(), Environment: s.environment(), Units: []systemd.Unit{}, Startup: s.startup(),
		Watchdog: WatchdogInfo(s.Watchdog.Status()), Errors: s.mistakes.sum(time.Now()), Versions: s.versions(), SampleAge: -1,
		Uptime: time.Since(s.started).Seconds(), Timestamp: time.Now().UTC().Format(time.RFC3339),
	}
	units, at, err := s.seen.units.get()
	if err != nil {
		d.UnitsMissing = "not available: " + err.Error()
	} else if age := time.Since(at); age > 3*sampleEvery {
		d.UnitsMissing = fmt.Sprintf("not available: systemd has not answered for %v", age.Round(time.Second))
	}
	d.Units = append(d.Units, units...)
	res, at, err := s.seen.resources.get()
	d.Resources = res
	if err == nil {
		d.SampleAge = time.Since(at).Seconds()
	} else {
		d.Resources = Resources{Disk: []Disk{}, Pressure: map[string]Pressure{}, NotAvailable: map[string]string{"all": err.Error()}}
	}
	return &detailedAnswer{statusFor(status, reasons), d}, nil
}

// statusFor is the HTTP status of a health answer: 503 where a recording sent
// now would not be transcribed, or the appliance should not serve at all.
func statusFor(status component.Health, reasons []string) int {
	if len(reasons) > 0 || status == component.Broken {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}

func (s *Server) states() []component.State {
	if s.Components == nil {
		return []component.State{}
	}
	return s.Components.States()
}

func (s *Server) environment() EnvironmentInfo {
	e := s.Environment
	search := append([]string{}, e.SearchPaths...)
	info := EnvironmentInfo{
		Deployment: e.Deployment, Container: e.Container, Virt: e.Virt, Profile: e.Profile,
		Evidence: e.Evidence, PythonPath: search, SearchPaths: search, AppRoot: e.AppRoot, Slot: s.Slot,
	}
	if e.PrivilegeKnown {
		info.Unprivileged = &e.Unprivileged
	}
	return info
}

// modules are the original's, each true only where its component works.
func (s *Server) modules() (Modules, map[string]string) {
	reasons := map[string]string{}
	works := func(name string, part string) bool {
		if s.Components == nil {
			reasons[name] = "this appliance runs without it"
			return false
		}
		st, ok := s.Components.State(part)
		switch {
		case !ok:
			reasons[name] = "there is no such component in this version"
		case st.Status != component.OK:
			reasons[name] = st.Error
		default:
			return true
		}
		return false
	}
	m := Modules{Update: works("update", partUpdater), Maintenance: works("maintenance", partMaintenance)}
	m.Enterprise = m.Update && m.Maintenance
	if !m.Enterprise {
		reasons["enterprise"] = "it is update and maintenance together"
	}
	return m, reasons
}

func (s *Server) startup() Startup {
	var out Startup
	if s.Components != nil {
		out.ComponentsMS = milliseconds(s.Components.Total())
	}
	if s.ReadyAfter != nil {
		out.ReadyMS = milliseconds(s.ReadyAfter())
	}
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// versions compares the server's build with that of the engine as it was last
// seen. An engine that says nothing of itself agrees.
func (s *Server) versions() Versions {
	b := version.Build()
	v := Versions{Server: b.Version + " (" + b.Commit + ")", Agree: true}
	if st, _, err := s.seen.engine.get(); err == nil && st != nil && st.Version != "" {
		v.Engine = st.Version + " (" + st.Commit + ")"
		v.Agree = v.Engine == v.Server
	}
	return v
}

// ComponentList is the answer of the appliance's own door for components.
type ComponentList struct {
	Health     component.Health  `json:"health" enum:"ok,degraded,error"`
	TotalMS    float64           `json:"total_ms" doc:"Time that all took to start."`
	Components []component.State `json:"components"`
}

func (s *Server) components(context.Context, *struct{}) (*body[ComponentList], error) {
	list := ComponentList{Health: component.Well, TotalMS: s.startup().ComponentsMS, Components: s.states()}
	if s.Components != nil {
		list.Health = s.Components.Health()
	}
	return answerWith(list), nil
}
