package server

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humahttprouter"
	"github.com/julienschmidt/httprouter"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
	"whisper-appliance/internal/version"
)

// body is a typed answer.
type body[T any] struct{ Body T }

func answerWith[T any](v T) *body[T] { return &body[T]{Body: v} }

// raw is the input of a door that reads and writes for itself: huma's own
// multipart binding would hold the upload in memory.
type raw struct {
	w http.ResponseWriter
	r *http.Request
}

// Resolve takes the request out of huma's hands.
func (in *raw) Resolve(ctx huma.Context) []error {
	in.r, in.w, _ = humahttprouter.Unwrap(ctx)
	in.r.SetPathValue("id", ctx.Param("id"))
	return nil
}

// setHumaError replaces huma's error model, which is a variable of its package.
var setHumaError = sync.OnceFunc(func() { huma.NewError = humaError })

// Handler is every door.
func (s *Server) Handler() http.Handler {
	s.started = time.Now()
	s.meter()
	setHumaError()
	router := httprouter.New()
	router.NotFound = http.HandlerFunc(s.notFound)
	router.MethodNotAllowed = http.HandlerFunc(s.methodNotAllowed)
	config := huma.DefaultConfig("whisper-appliance", version.Build().Version)
	config.Info.Description = "Speech to text on your own machine: OpenAI's audio API, and the appliance's own."
	config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", nil
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"key": {Type: "http", Scheme: "bearer"}}
	api := humahttprouter.New(router, config)
	d := doors{s: s, api: api}
	d.openAI()
	d.original()
	d.operators()
	d.own()
	d.jobs()
	d.dialects()
	d.uploads()
	d.updates()
	d.originalUpdates()
	router.Handler(http.MethodGet, "/", through("/", s.page))
	router.Handler(http.MethodGet, "/assets/*file", through("/assets/*file", s.asset))
	guarded := s.guard(router)
	s.inside.Store(&guarded)
	return s.measured(guarded)
}

// doors registers operations with huma.
type doors struct {
	s   *Server
	api huma.API
}

// stream registers a door that reads and writes for itself.
func (d doors) stream(scope auth.Scope, op huma.Operation, h func(http.ResponseWriter, *http.Request) error) {
	// huma reads the whole body of an operation that has one: the document
	// learns of it afterwards.
	form := op.RequestBody
	op.RequestBody = nil
	if form != nil {
		defer func() {
			if op.Method == http.MethodPatch {
				d.api.OpenAPI().Paths[op.Path].Patch.RequestBody = form
				return
			}
			d.api.OpenAPI().Paths[op.Path].Post.RequestBody = form
		}()
	}
	huma.Register(d.api, entered(secured(op, scope)), func(_ context.Context, in *raw) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(huma.Context) {
			access, err := d.s.permit(in.r, scope)
			if err == nil {
				err = h(in.w, in.r.WithContext(context.WithValue(in.r.Context(), accessKey{}, access)))
			}
			if err != nil {
				d.s.writeError(in.w, in.r, err)
			}
		}}, nil
	})
}

// typed registers a door whose input and output are checked and written by huma.
func typed[I, O any](d doors, scope auth.Scope, op huma.Operation, h func(context.Context, *I) (*O, error)) {
	op = secured(op, scope)
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		r, w, _ := humahttprouter.Unwrap(ctx)
		access, err := d.s.permit(r, scope)
		if err != nil {
			d.s.writeError(w, r, err)
			return
		}
		next(huma.WithValue(ctx, accessKey{}, access))
	})
	huma.Register(d.api, entered(op), func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			f := d.s.asFault(ctx, err)
			return nil, &bodyError{code: statusOf(f), body: d.s.errorBody(op.Path, statusOf(f), f), after: retryAfter(f)}
		}
		return out, nil
	})
}

// secured says in the OpenAPI document what a door asks for.
func secured(op huma.Operation, scope auth.Scope) huma.Operation {
	if scope != needNothing {
		op.Security = []map[string][]string{{"key": {string(scope)}}, {}}
	}
	return op
}

// openAI registers OpenAI's doors.
func (d doors) openAI() {
	d.stream(auth.Transcribe, multipartOp(http.MethodPost, "/v1/audio/transcriptions", "createTranscription",
		"Transcribe a recording", transcriptionForm), d.s.transcriptions)
	d.stream(auth.Transcribe, multipartOp(http.MethodPost, "/v1/audio/translations", "createTranslation",
		"Translate a recording into English", translationForm), d.s.translations)
	typed(d, auth.Transcribe, huma.Operation{Method: http.MethodGet, Path: "/v1/models", OperationID: "listModels",
		Summary: "List the installed models", Tags: []string{"OpenAI"}}, d.s.listModels)
	typed(d, auth.Transcribe, huma.Operation{Method: http.MethodGet, Path: "/v1/models/{model}", OperationID: "getModel",
		Summary: "Show a model", Tags: []string{"OpenAI"}}, d.s.getModel)
}

// original registers the doors of the appliance that this one replaces.
func (d doors) original() {
	upload := multipartOp(http.MethodPost, "/transcribe", "transcribeUpload", "Transcribe a recording (original appliance)", legacyForm)
	live := multipartOp(http.MethodPost, "/api/transcribe-live", "transcribeLive", "Transcribe a recording (original appliance)", legacyForm)
	for _, op := range []*huma.Operation{&upload, &live} {
		op.Deprecated, op.Tags = true, []string{"Original"}
	}
	d.stream(auth.Transcribe, upload, d.s.legacyUpload)
	d.stream(auth.Transcribe, live, d.s.legacyLive)
	typed(d, needNothing, huma.Operation{Method: http.MethodGet, Path: "/api/status", OperationID: "status",
		Summary: "What the appliance is and does", Tags: []string{"Operators"}}, d.s.status)
	typed(d, auth.Transcribe, huma.Operation{Method: http.MethodGet, Path: "/api/enterprise/deployment-info", OperationID: "deploymentInfo",
		Summary: "Where the appliance runs (original appliance)", Tags: []string{"Original"}, Deprecated: true}, d.s.deploymentInfo)
}

// operators registers what monitors ask.
func (d doors) operators() {
	typed(d, needNothing, huma.Operation{Method: http.MethodGet, Path: "/health", OperationID: "health",
		Summary: "Health in short: 200 when a recording sent now would be transcribed", Tags: []string{"Operators"}}, d.s.health)
	d.sameAs200("/health", http.StatusServiceUnavailable, "Something is missing: reasons says what.")
	typed(d, auth.Transcribe, huma.Operation{Method: http.MethodGet, Path: "/health/detailed", OperationID: "healthDetailed",
		Summary: "Health in full: components, units, resources, errors, versions", Tags: []string{"Operators"}}, d.s.detailed)
	d.sameAs200("/health/detailed", http.StatusServiceUnavailable, "Something is missing: reasons says what.")
	d.stream(auth.Transcribe, huma.Operation{Method: http.MethodGet, Path: "/metrics", OperationID: "metrics",
		Summary: "Metrics in Prometheus' text format", Tags: []string{"Operators"}, Responses: map[string]*huma.Response{
			"200": {Description: "Metrics, each with its help.", Content: map[string]*huma.MediaType{"text/plain": {}}}}}, d.s.metrics)
	d.stream(needNothing, huma.Operation{Method: http.MethodGet, Path: "/livez", OperationID: "livez",
		Summary: "200 while the process answers", Tags: []string{"Operators"}, Responses: plain("It answers.")}, d.s.livez)
	d.stream(needNothing, huma.Operation{Method: http.MethodGet, Path: "/readyz", OperationID: "readyz",
		Summary: "200 when a recording sent now would be transcribed", Tags: []string{"Operators"}, Responses: plain("It would.")}, d.s.readyz)
}

// sameAs200 documents a further status of a GET, with the body of success.
func (d doors) sameAs200(path string, status int, why string) {
	answers := d.api.OpenAPI().Paths[path].Get.Responses
	answers[strconv.Itoa(status)] = &huma.Response{Description: why, Content: answers["200"].Content}
}

// own registers the appliance's own API.
func (d doors) own() {
	d.stream(auth.Transcribe, multipartOp(http.MethodPost, "/api/v1/transcriptions", "transcribe",
		"Transcribe a recording, with progress as server-sent events", ownForm), d.s.transcribeWithEvents)
	typed(d, auth.Transcribe, huma.Operation{Method: http.MethodGet, Path: "/api/v1/components", OperationID: "components",
		Summary: "The appliance's components and how each is", Tags: []string{"Appliance"}}, d.s.components)
	typed(d, auth.Admin, huma.Operation{Method: http.MethodPut, Path: "/api/v1/models/current", OperationID: "useModel",
		Summary: "Choose the model in use", Tags: []string{"Appliance"}}, d.s.useModel)
	d.stream(auth.Admin, huma.Operation{Method: http.MethodPost, Path: "/api/v1/engine/unload", OperationID: "unload",
		Summary: "Give the model's memory back", Tags: []string{"Appliance"}, DefaultStatus: http.StatusNoContent}, d.s.unload)
}

// jobs registers the doors of what nobody waits for.
func (d doors) jobs() {
	submit := multipartOp(http.MethodPost, "/api/v1/jobs", "submitJob", "Have a recording transcribed while nobody waits", jobForm)
	submit.Tags = []string{"Jobs"}
	submit.Responses = d.answers202(submit.Responses)
	d.stream(auth.Transcribe, submit, d.s.submitJob)
	d.webhook()
	op := func(method, path, id, summary string) huma.Operation {
		return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{"Jobs"}}
	}
	typed(d, auth.Transcribe, op(http.MethodGet, "/api/v1/jobs", "listJobs", "List jobs, the newest first"), d.s.listJobs)
	typed(d, auth.Transcribe, op(http.MethodGet, "/api/v1/jobs/{id}", "getJob", "Show a job, with its text as far as there is any"), d.s.getJob)
	typed(d, auth.Transcribe, op(http.MethodPost, "/api/v1/jobs/{id}/cancel", "cancelJob", "Stop a job"), d.s.cancelJob)
	typed(d, auth.Transcribe, op(http.MethodPost, "/api/v1/jobs/{id}/retry", "retryJob", "Go on with a job that failed or was cancelled"), d.s.retryJob)
	typed(d, auth.Transcribe, op(http.MethodDelete, "/api/v1/jobs/{id}", "deleteJob", "Remove a job and all that belongs to it"), d.s.deleteJob)
	text := op(http.MethodGet, "/api/v1/jobs/{id}/transcript", "jobTranscript", "The text of a job that is done, in any format")
	text.Parameters = []*huma.Param{pathParam("id", "Of the job."), {Name: "format", In: "query", Description: "text (default), json, verbose_json, srt, vtt, tsv, words or lrc.",
		Schema: &huma.Schema{Type: huma.TypeString}}}
	for _, name := range transcript.LayoutFields() {
		text.Parameters = append(text.Parameters, queryParam(name, choice(), fieldDocs[name]))
	}
	text.Responses = plain("The text.")
	d.stream(auth.Transcribe, text, d.s.jobTranscript)
	events := op(http.MethodGet, "/api/v1/jobs/{id}/events", "jobEvents", "Follow a job by server-sent events: job, progress, segment, then done or error")
	events.Parameters = []*huma.Param{pathParam("id", "Of the job."), headerParam(lastEventHeader, false, "The last segment's id that the client has: those after it follow.")}
	events.Responses = map[string]*huma.Response{"200": {Description: fmt.Sprintf("Events, until the job ends. One caller may follow %d jobs at once.", followsOfOne),
		Content: map[string]*huma.MediaType{"text/event-stream": {}}}}
	d.stream(auth.Transcribe, events, d.s.jobEvents)
}

func pathParam(name, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
}

func headerParam(name string, required bool, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "header", Required: required, Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
}

// answers202 are those of a door that accepts.
func (d doors) answers202(answers map[string]*huma.Response) map[string]*huma.Response {
	delete(answers, "200")
	answers["202"] = &huma.Response{Description: "The job, which is safe now. Location is where it is.", Content: map[string]*huma.MediaType{
		"application/json": {Schema: d.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.Job](), true, "Job")}}}
	return answers
}

// multipartOp documents a door that takes a form.
func multipartOp(method, path, id, summary string, f form) huma.Operation {
	props := map[string]*huma.Schema{f.file: {Type: huma.TypeString, Format: "binary", Description: "The recording: anything ffmpeg reads."}}
	for _, name := range f.fields {
		props[name] = &huma.Schema{Type: huma.TypeString, Description: fieldDocs[strings.TrimSuffix(name, "[]")]}
	}
	required := []string{f.file}
	if f.instead != "" {
		required = nil
	}
	tag := "Appliance"
	if strings.HasPrefix(path, "/v1/") {
		tag = "OpenAI"
	}
	return huma.Operation{
		Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{tag}, Responses: answersOf(path),
		Parameters: []*huma.Param{headerParam(idempotencyHeader, false, "Names the request, in 255 bytes at most: sent again with it by the same caller, it is the same job, which goes on when the caller leaves.")},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"multipart/form-data": {Schema: &huma.Schema{
				Type: huma.TypeObject, Properties: props, Required: required, AdditionalProperties: false,
			}},
		}},
	}
}

// fieldDocs says what the forms' fields mean.
var fieldDocs = map[string]string{
	"model":                   "Name of an installed model; left out or one of OpenAI's names: the model in use.",
	"language":                "Language spoken, ISO 639-1 (\"de\") or its English name; left out: detected.",
	"prompt":                  "Text that names words and spellings to expect.",
	"response_format":         "json (default), text, srt, verbose_json or vtt; tsv, words and lrc too.",
	"temperature":             "0 (default) to 1: where decoding starts; it rises by itself where the text looks wrong.",
	"timestamp_granularities": "word, segment (default) or both; needs verbose_json.",
	"stream":                  "true: server-sent events with text as it is recognised; needs json.",
	"include":                 "logprobs: the tokens with their log probabilities; needs json.",
	"chunking_strategy":       "auto: the recording is cut at its pauses, as it always is.",
	"subtitle_style":          "srt and vtt: broadcast (lines for people to read, as [subtitles] says) or segments (one cue for each of Whisper's segments). Left out: broadcast where one of the max_ fields is sent, and for the transcripts of jobs; else segments.",
	"max_line_width":          "srt and vtt: characters of a line, 10 to 100; a full-width character counts twice.",
	"max_line_count":          "srt and vtt: lines of a cue, 1 to 4.",
	"max_words_per_line":      "srt and vtt: words of a line, 1 to 50; left out: any number.",
	"max_cps":                 "srt and vtt: characters a second that people can read, 5 to 100: a cue stays for as long as that takes, if the next one lets it.",
	"task":                    "transcribe (default) or translate (into English).",
	"words":                   "true: each word with its own times. A job's subtitles are timed by them where they are cut; without them by the share of characters.",
	"priority":                "normal (default) or background: after everything else.",
	"url":                     "In place of file: where the appliance is to fetch the recording from, http or https. Only hosts that an administrator has named.",
	"webhook":                 "Where the job's end is told to, http or https: a signed POST, sent again for a day until it is taken. Only hosts that an administrator has named.",
	"deadline":                "When nobody wants the text any more: 2026-01-02T15:04:05Z, or 90m from now.",
}

// guard is what every request passes: a wrong key is 401 wherever it knocks,
// pages move to HTTPS, panics cost one request.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(under http.ResponseWriter, r *http.Request) {
		s.active.Add(1)
		defer s.active.Add(-1)
		r = named(under, r)
		w := s.patient(under)
		w.unlimited()
		defer s.afterwards(w, r)
		if r.Body != nil && r.Body != http.NoBody {
			s.allowRead(w) // also for what net/http reads of it itself
		}
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := s.knownKey(r); err != nil {
			s.writeError(w, r, err)
			return
		}
		if s.redirected(w, r) {
			return
		}
		if r.Method == http.MethodHead { // net/http leaves the body out
			r = r.WithContext(context.WithValue(r.Context(), headKey{}, true))
			r.Method = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}

// afterwards ends a request. A panic costs this one alone: it is logged, and
// answered where the status is still open. It goes on only as
// http.ErrAbortHandler, which breaks the transfer off.
func (s *Server) afterwards(w *patientWriter, r *http.Request) {
	p := recover()
	if p == http.ErrAbortHandler {
		panic(p)
	}
	if p != nil {
		err := fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		if w.begun {
			s.asFault(r.Context(), err) // logs it
			panic(http.ErrAbortHandler)
		}
		s.writeError(w, r, err)
	}
	w.limitRest()
}

// redirected sends pages that another machine asks for by plain HTTP to HTTPS,
// while there is a certificate to serve it with, and refuses it the API where
// the settings say so.
func (s *Server) redirected(w http.ResponseWriter, r *http.Request) bool {
	c := s.Config().Server
	if encrypted(r) || fromThisMachine(r) || r.URL.Path == "/livez" || r.URL.Path == "/readyz" || r.URL.Path == "/health" {
		return false
	}
	isPage := r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, "/assets/")
	switch {
	case isPage && c.HTTPRedirect && (s.TLSReady == nil || s.TLSReady()):
		http.Redirect(w, r, "https://"+r.Host+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return true
	case !isPage && !c.PlainAPI:
		s.writeError(w, r, fault.New(fault.Forbidden, "https_required", "the API is served to other machines by HTTPS alone").
			Try("use https://%s, or set [server] plain_api", r.Host))
		return true
	}
	return false
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	if socketIO(r.URL.Path) {
		s.gone(w, r)
		return
	}
	s.writeError(w, r, fault.New(fault.NotFound, "not_found", "there is nothing at %s", fault.Short(r.URL.Path)).
		Try("/openapi.json lists what there is"))
}

func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	f := fault.New(fault.BadInput, "method_not_allowed", "%s is not possible at %s", fault.Short(r.Method), fault.Short(r.URL.Path)).
		Try("use %s", w.Header().Get("Allow"))
	writeJSON(w, http.StatusMethodNotAllowed, s.errorBody(r.URL.Path, http.StatusMethodNotAllowed, f))
}
