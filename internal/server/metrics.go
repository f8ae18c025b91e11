package server

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// prefix begins the name of every metric of ours.
const prefix = "whisper_appliance_"

// otherRoute stands for everything that a stranger could make up.
const otherRoute = "other"

// meters are the metrics that are counted as things happen; the rest is
// collected when it is asked for.
type meters struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	uploaded  prometheus.Counter
	audio     prometheus.Counter
	work      prometheus.Counter
	factor    prometheus.Histogram
	done      prometheus.Counter
	failed    *prometheus.CounterVec
	webhooks  *prometheus.CounterVec
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
}

// meter gives the server's metrics, made at the first call.
func (s *Server) meter() *meters {
	s.metering.Do(func() {
		m := &meters{
			registry: prometheus.NewRegistry(),
			requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "http_requests_total",
				Help: "Requests that have ended, by the door's pattern."}, []string{"route", "method", "code"}),
			durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "http_request_duration_seconds",
				Help: "From a request's first byte to the end of its answer.", Buckets: []float64{.001, .005, .025, .1, .5, 2, 10, 60, 300, 1800}},
				[]string{"route", "method"}),
			uploaded: counter("upload_bytes_total", "Bytes of recordings received."),
			audio:    counter("audio_seconds_total", "Length of the recordings transcribed."),
			work:     counter("transcription_seconds_total", "Time that these took, waiting included."),
			factor: prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + "realtime_factor",
				Help: "Time that a recording took by its length: below 1 is faster than it was spoken.", Buckets: []float64{.02, .05, .1, .2, .5, 1, 2, 5}}),
			done: counter("transcriptions_total", "Recordings transcribed."),
			failed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "transcription_failures_total",
				Help: "Recordings that were not, by the error's code."}, []string{"code"}),
			webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "webhook_attempts_total",
				Help: "Attempts to tell the end of a job, by what the delivery was after it."}, []string{"state"}),
		}
		m.registry.MustRegister(m.requests, m.durations, m.uploaded, m.audio, m.work, m.factor, m.done, m.failed, m.webhooks,
			collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		s.meters, s.seen.again = m, make(chan struct{}, 1)
	})
	return s.meters
}

// metrics answers Prometheus.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	promhttp.HandlerFor(s.meter().registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}

// transcribedIn counts a job that has succeeded.
func (m *meters) transcribedIn(took time.Duration, t *transcript.Transcript) {
	m.done.Inc()
	m.audio.Add(t.Duration.Seconds())
	m.work.Add(took.Seconds())
	if t.Duration > 0 {
		m.factor.Observe(took.Seconds() / t.Duration.Seconds())
	}
}

// failure counts a job that has not.
func (m *meters) failure(f *fault.Error) { m.failed.WithLabelValues(cmp.Or(f.Code, otherRoute)).Inc() }

// exchange is what becomes known of a request on its way.
type exchange struct{ route string }

// routeKey is where measured keeps a request's *exchange.
const routeKey contextKey = 1

// at notes through which door a request came in.
func at(ctx context.Context, route string) {
	if e, ok := ctx.Value(routeKey).(*exchange); ok {
		e.route = route
	}
}

// routeOf is the pattern of a request's door.
func routeOf(ctx context.Context) string {
	if e, ok := ctx.Value(routeKey).(*exchange); ok && e.route != "" {
		return e.route
	}
	return otherRoute
}

// through is a handler that is a door of its own.
func through(route string, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at(r.Context(), route)
		h(w, r)
	})
}

// entered is through for huma's doors.
func entered(op huma.Operation) huma.Operation {
	route := op.Path
	op.Middlewares = append(huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		at(ctx.Context(), route)
		next(ctx)
	}}, op.Middlewares...)
	return op
}

// measured counts requests and their times.
func (s *Server) measured(next http.Handler) http.Handler {
	m := s.meter()
	return http.HandlerFunc(func(under http.ResponseWriter, r *http.Request) {
		began := time.Now()
		w := &statusWriter{ResponseWriter: under}
		r = r.WithContext(context.WithValue(r.Context(), routeKey, &exchange{}))
		defer func() {
			route, method := routeOf(r.Context()), methodOf(r.Method)
			m.requests.WithLabelValues(route, method, w.code()).Inc()
			m.durations.WithLabelValues(route, method).Observe(time.Since(began).Seconds())
		}()
		next.ServeHTTP(w, r)
	})
}

// methodOf bounds the methods, which clients may make up.
func methodOf(method string) string {
	known := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	if slices.Contains(known, method) {
		return method
	}
	return otherRoute
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int // 0 until it is out
}

// Write is http.ResponseWriter's.
func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// WriteHeader is http.ResponseWriter's.
func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 && code >= 200 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach deadlines and flushing.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// code is the status for a label; net/http answers 200 where a handler says nothing.
func (w *statusWriter) code() string {
	return strconv.Itoa(cmp.Or(w.status, http.StatusOK))
}
