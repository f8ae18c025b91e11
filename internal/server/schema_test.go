package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// schema is what of a JSON schema is held against answers.
type schema struct {
	Ref                  string `json:"$ref"`
	Properties           map[string]schema
	Required             []string
	Items                *schema
	AdditionalProperties any // false: no other keys; a schema: any key
}

func (s schema) empty() bool { return s.Ref == "" && s.Properties == nil && s.Items == nil }

// document is the OpenAPI document as far as answers go by it.
type document struct {
	Paths map[string]map[string]struct {
		Responses map[string]struct {
			Content map[string]*struct{ Schema schema }
		}
	}
	Components struct{ Schemas map[string]schema }
}

// follow is s, or what it refers to.
func (d document) follow(s schema) schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.Components.Schemas[name]
	}
	return s
}

// misfits says where value has keys that s does not name, or lacks one that it
// requires.
func (d document) misfits(s schema, value any, at string) (all []string) {
	s = d.follow(s)
	switch v := value.(type) {
	case []any:
		for i, item := range v {
			if s.Items != nil {
				all = append(all, d.misfits(*s.Items, item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		}
	case map[string]any:
		for _, name := range s.Required {
			if _, there := v[name]; !there {
				all = append(all, at+" lacks "+name)
			}
		}
		for name, inner := range v {
			of, named := s.Properties[name]
			if !named && s.AdditionalProperties == false {
				all = append(all, at+" has "+name)
			} else if named {
				all = append(all, d.misfits(of, inner, at+"."+name)...)
			}
		}
	}
	return all
}

// TestEveryDoorAnswersAsDocumented: each route of the OpenAPI document, asked
// well and asked as a stranger from afar, answers with a status that is
// documented, and with the keys that are.
func TestEveryDoorAnswersAsDocumented(t *testing.T) {
	t.Parallel()
	r, _ := updating(t)
	h := r.withDesk(t).Handler()
	var doc document
	if err := json.Unmarshal(ask(h, here, "GET", "/openapi.json").Body.Bytes(), &doc); err != nil || len(doc.Paths) != len(doorList()) {
		t.Fatalf("%d routes, %v", len(doc.Paths), err)
	}
	srv := r.start(t)
	bodies := map[string]string{"/api/v1/models/current": `{"model":"tiny"}`, "/api/v1/updates/policy": `{"channel":"beta"}`,
		"/api/update/rollback": `{"backup_name":"b"}`, "/api/updates/rollback": `{"backup_name":"b"}`}
	jobs := r.jobsInEachState(t, srv.URL)
	free := []string{"/health", "/health/detailed", "/livez", "/readyz", "/metrics", "/api/status", "/api/v1/components", "/api/enterprise/deployment-info"}
	held := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			method := strings.ToUpper(method)
			if w := ask(h, remote, method, strings.ReplaceAll(path, "{model}", "tiny")); w.Code != 401 && !slices.Contains(free, path) || w.Code >= 500 {
				t.Errorf("%s %s answers a stranger with %d", method, path, w.Code)
			}
			if path == "/api/v1/updates/events" { // it does not end
				continue
			}
			id := jobs[method+" "+path]
			if id == "" {
				id = jobs["done"]
			}
			a := asked(t, srv.URL+strings.NewReplacer("{model}", "tiny", "{id}", id).Replace(path), method, path, bodies[path])
			shape, documented := op.Responses[strconv.Itoa(a.status)]
			if a.status/100 != 2 || !documented {
				t.Errorf("%s %s answers %d: %.300s", method, path, a.status, a.body)
				continue
			}
			kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
			content, typed := shape.Content[kind]
			if !typed && a.status != http.StatusNoContent {
				t.Errorf("%s %s answers with %q, which is not documented: %.200s", method, path, kind, a.body)
			}
			var value any
			if kind != "application/json" {
				continue
			}
			if err := json.Unmarshal([]byte(a.body), &value); err != nil || content == nil || content.Schema.empty() {
				t.Errorf("%s %s: %v, documented as %+v", method, path, err, content)
				continue
			}
			for _, misfit := range doc.misfits(content.Schema, value, path) {
				t.Errorf("%s %s", method, misfit)
			}
			held++
		}
	}
	if held < 35 {
		t.Errorf("only %d answers were held against their schema", held)
	}
}

// jobsInEachState are the ids of jobs by what is to be done with them; those
// that are not done stay as they are. They belong to the administrator.
func (r *rig) jobsInEachState(t *testing.T, url string) map[string]string {
	t.Helper()
	var most atomic.Int32
	most.Store(1)
	r.Desk().AtOnce = func() int { return int(most.Load()) }
	submit := func() string {
		body, kind := encode(recording("file"))
		a := do(t, "POST", url+"/api/v1/jobs", strings.NewReader(body), "Content-Type", kind, "Authorization", adminKey)
		return strings.TrimPrefix(a.header.Get("Location"), "/api/v1/jobs/")
	}
	ids := map[string]string{"done": submit()}
	jobState(t, url+"/api/v1/jobs/"+ids["done"], "done", "Authorization", adminKey)
	most.Store(0)
	for _, of := range []string{"POST /api/v1/jobs/{id}/cancel", "POST /api/v1/jobs/{id}/retry", "DELETE /api/v1/jobs/{id}"} {
		ids[of] = submit()
	}
	do(t, "POST", url+"/api/v1/jobs/"+ids["POST /api/v1/jobs/{id}/retry"]+"/cancel", nil, "Authorization", adminKey).want(t, 200)
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		a := asked(t, url+"/api/v1/uploads", "POST", "/api/v1/uploads", "")
		ids[method+" /api/v1/uploads/{id}"] = strings.TrimPrefix(a.header.Get("Location"), "/api/v1/uploads/")
	}
	return ids
}

// asked asks a door as its users would.
func asked(t *testing.T, url, method, path, body string) answered {
	t.Helper()
	switch {
	case asrPath(path):
		return post(t, url, recording("audio_file"))
	case path == "/transcribe" || path == "/api/transcribe-live":
		return post(t, url, recording("audio"))
	case strings.HasPrefix(path, "/api/v1/uploads"):
		return do(t, method, url, strings.NewReader(strings.Repeat("x", map[string]int{"PATCH": 5}[method])), "Authorization", adminKey, "Tus-Resumable", "1.0.0",
			"Upload-Length", map[string]string{"POST": "10"}[method], "Upload-Offset", "0", "Content-Type", map[string]string{"PATCH": "application/offset+octet-stream"}[method])
	case method == "POST" && path == "/api/v1/jobs":
		return post(t, url, recording("file"))
	case strings.HasPrefix(path, "/v1/audio/") || path == "/api/v1/transcriptions" || path == inferenceDoor:
		return post(t, url, recording("file"), part{name: "model", value: "whisper-1"})
	}
	return do(t, method, url, strings.NewReader(body), "Authorization", adminKey, "Content-Type", "application/json")
}
