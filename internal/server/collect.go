package server

import (
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
)

// collector tells Prometheus what the server knows already. It asks nobody:
// what may be slow to find out was sampled.
type collector struct{ s *Server }

// Describe is prometheus.Collector's. It says nothing, because which
// components and units there are is not known beforehand.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect is prometheus.Collector's.
func (c collector) Collect(to chan<- prometheus.Metric) {
	e := emitter{to}
	c.basics(e)
	c.engine(e)
	c.components(e)
	c.units(e)
	c.resources(e)
	c.watchdog(e)
	c.updates(e)
	for code, n := range c.s.mistakes.sum(time.Now()).Counts {
		e.count("errors_total", "Answers that were errors, by the error's code.", float64(n), "code", code)
	}
}

// emitter makes metrics of values.
type emitter struct{ to chan<- prometheus.Metric }

// gauge emits a value with labels given by name and value.
func (e emitter) gauge(name, help string, v float64, labels ...string) {
	e.emit(prometheus.GaugeValue, name, help, v, labels)
}

// count is gauge for what only grows.
func (e emitter) count(name, help string, v float64, labels ...string) {
	e.emit(prometheus.CounterValue, name, help, v, labels)
}

func (e emitter) emit(kind prometheus.ValueType, name, help string, v float64, labels []string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	desc := prometheus.NewDesc(prefix+name, help, names, nil)
	m, err := prometheus.NewConstMetric(desc, kind, v, values...)
	if err != nil { // only our own names come here
		m = prometheus.NewInvalidMetric(desc, err)
	}
	e.to <- m
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c collector) basics(e emitter) {
	b := version.Build()
	e.gauge("build_info", "The build that runs; always 1.", 1, "version", b.Version, "commit", b.Commit, "goversion", runtime.Version(), "slot", c.s.Slot)
	e.gauge("ready", "1 while a recording sent now would be transcribed.", truth(len(c.s.missing()) == 0))
	e.gauge("http_requests_in_flight", "Requests under way.", float64(c.s.active.Load()))
	e.gauge("jobs", "Recordings being worked on.", float64(c.s.Jobs()))
	e.gauge("queue_recordings", "Recordings in line or being transcribed, of the [queue] most that are taken.", float64(c.s.Service.Queue.Inside()))
	e.gauge("queue_windows", "Windows in line for the engine.", float64(c.s.Service.Waiting()))
	start := c.s.startup()
	e.gauge("startup_components_seconds", "Time that the components took to start.", start.ComponentsMS/1000)
	e.gauge("startup_ready_seconds", "Time from the start of the process to its readiness; 0 until then.", start.ReadyMS/1000)
	if c.s.Connections != nil {
		seen := c.s.Connections()
		e.gauge("connections_open", "Connections taken and not closed yet.", float64(seen.Open))
		e.gauge("connections_pending", "Of these, the ones that have not sent a byte.", float64(seen.Pending))
		e.count("connections_silent_total", "Connections closed because they sent nothing.", float64(seen.Silent))
		e.count("connections_evicted_total", "Silent connections closed to make room.", float64(seen.Evicted))
	}
}

func (c collector) engine(e emitter) {
	st, _, err := c.s.seen.engine.get()
	running := err == nil && st != nil
	e.gauge("engine_running", "1 while an engine runs and answers.", truth(running))
	e.gauge("engine_model_loaded", "1 while it holds a model.", truth(running && st.Model != nil))
	e.gauge("engine_busy", "1 while it decodes a window.", truth(running && st.Busy))
	if running {
		e.count("engine_windows_total", "Windows decoded by the engine that runs.", float64(st.Windows))
	}
	e.gauge("version_mismatch", "1 while server and engine are of different builds.", truth(!c.s.versions().Agree))
}

func (c collector) components(e emitter) {
	if c.s.Components == nil {
		return
	}
	for _, st := range c.s.Components.States() {
		for _, status := range component.Statuses() {
			e.gauge("component_state", "1 for the state that a component is in, 0 for the others.", truth(st.Status == status),
				"component", st.Name, "state", string(status))
		}
		e.count("component_failures_total", "How often a component has failed, attempts to mend it included.", float64(st.Failures), "component", st.Name)
	}
}

// unitSum is a unit, or all instances of a template.
type unitSum struct {
	active, restarts, memory float64
	hasMemory                bool
}

func (c collector) units(e emitter) {
	units, _, err := c.s.seen.units.get()
	if err != nil {
		return
	}
	for name, u := range sumUnits(units) {
		e.gauge("unit_active", "Units of this name that are active.", u.active, "unit", name)
		e.count("unit_restarts_total", "Restarts by systemd.", u.restarts, "unit", name)
		if u.hasMemory {
			e.gauge("unit_memory_bytes", "Memory of the units of this name.", u.memory, "unit", name)
		}
	}
}

// sumUnits puts the instances of a template together that are named by a
// number: each connection has its own, and would be a label for ever.
func sumUnits(units []systemd.Unit) map[string]unitSum {
	sums := map[string]unitSum{}
	for _, u := range units {
		name := unitLabel(u.Name)
		sum := sums[name]
		sum.active += truth(u.Active == "active")
		sum.restarts += float64(u.Restarts)
		if u.Memory != nil {
			sum.memory, sum.hasMemory = sum.memory+float64(*u.Memory), true
		}
		sums[name] = sum
	}
	return sums
}

func unitLabel(name string) string {
	stem, rest, instance := strings.Cut(name, "@")
	dot := strings.LastIndexByte(rest, '.')
	if !instance || dot < 0 || slices.Contains([]string{"a", "b", "golden"}, rest[:dot]) {
		return name
	}
	return stem + "@" + rest[dot:]
}

func (c collector) resources(e emitter) {
	res, _, err := c.s.seen.resources.get()
	if err != nil {
		return
	}
	for _, d := range res.Disk {
		if d.Error == "" {
			e.gauge("disk_free_bytes", "Bytes left to the appliance on a directory's file system.", float64(d.Free), "directory", d.Name)
		}
	}
	for what, p := range res.Pressure {
		e.gauge("pressure_some_ratio", "Share of the last 10 s in which some work waited for a resource.", p.Some10/100, "resource", what)
	}
}

func (c collector) watchdog(e emitter) {
	w := c.s.Watchdog.Status()
	e.count("watchdog_signs_total", "Signs of life given to systemd.", float64(w.Sent))
	e.count("watchdog_withheld_total", "Signs of life withheld because a call was overdue.", float64(w.Withheld))
	e.gauge("watchdog_overdue_calls", "Calls that should have returned.", float64(len(w.Overdue)))
}
