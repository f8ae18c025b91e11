package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// doorList is every door that the OpenAPI document must have, and no other.
func doorList() map[string][]string {
	return map[string][]string{
		"/v1/audio/transcriptions": {"POST"}, "/v1/audio/translations": {"POST"},
		"/v1/models": {"GET"}, "/v1/models/{model}": {"GET"},
		"/transcribe": {"POST"}, "/api/transcribe-live": {"POST"}, "/api/status": {"GET"},
		"/health/detailed": {"GET"}, "/metrics": {"GET"}, "/api/v1/components": {"GET"}, "/api/enterprise/deployment-info": {"GET"},
		"/health": {"GET"}, "/livez": {"GET"}, "/readyz": {"GET"},
		"/api/v1/transcriptions": {"POST"}, "/api/v1/models/current": {"PUT"}, "/api/v1/engine/unload": {"POST"},
		"/api/v1/jobs": {"GET", "POST"}, "/api/v1/jobs/{id}": {"DELETE", "GET"}, "/api/v1/jobs/{id}/cancel": {"POST"},
		"/api/v1/jobs/{id}/retry": {"POST"}, "/api/v1/jobs/{id}/transcript": {"GET"}, "/api/v1/jobs/{id}/events": {"GET"},
		"/api/v1/uploads": {"POST"}, "/api/v1/uploads/{id}": {"DELETE", "GET", "PATCH"},

		"/asr": {"POST"}, "/detect-language": {"POST"}, "/inference": {"POST"},

		"/api/v1/updates": {"GET"}, "/api/v1/updates/events": {"GET"}, "/api/v1/updates/history": {"GET"}, "/api/v1/deployments": {"GET"},
		"/api/v1/updates/check": {"POST"}, "/api/v1/updates/download": {"POST"}, "/api/v1/updates/apply": {"POST"}, "/api/v1/updates/rollback": {"POST"},
		"/api/v1/updates/cancel": {"POST"}, "/api/v1/updates/restart": {"POST"}, "/api/v1/updates/last-restart": {"GET"}, "/api/v1/updates/policy": {"PUT"},
		"/api/enterprise/check-updates": {"GET"}, "/api/enterprise/start-update": {"POST"}, "/api/enterprise/update-status": {"GET"},
		"/api/update/check": {"GET"}, "/api/update/install": {"POST"}, "/api/update/status": {"GET"}, "/api/update/history": {"GET"},
		"/api/update/backups": {"GET"}, "/api/update/rollback": {"POST"}, "/api/update/restart": {"POST"},
		"/api/updates/check": {"POST"}, "/api/updates/apply": {"POST"}, "/api/updates/rollback": {"POST"}, "/api/updates/status": {"GET"},
		"/api/simple-update": {"POST"}, "/api/check-git-updates": {"GET"}, "/api/restart-service": {"POST"},
	}
}

func TestOpenAPI(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Deprecated  bool
			Responses   map[string]json.RawMessage
			RequestBody struct {
				Content map[string]struct {
					Schema struct {
						Properties map[string]struct{ Format, Description string }
						Required   []string
					}
				}
			}
		}
	}
	a := do(t, "GET", srv.URL+"/openapi.json", nil)
	a.want(t, 200)
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("version %q, %v", doc.OpenAPI, err)
	}
	documented := map[string][]string{}
	for path, methods := range doc.Paths {
		for m := range methods {
			documented[path] = append(documented[path], strings.ToUpper(m))
		}
		slices.Sort(documented[path])
	}
	if want := doorList(); fmt.Sprint(documented) != fmt.Sprint(want) {
		t.Errorf("documented %v\nwant       %v", documented, want)
	}
	for path, methods := range documented {
		// The router says what it really has.
		allow := do(t, "OPTIONS", srv.URL+strings.ReplaceAll(path, "{model}", "x"), nil).header.Get("Allow")
		if want := strings.Join(append(methods, "OPTIONS"), ", "); sorted(allow) != sorted(want) {
			t.Errorf("%s allows %q, documented is %q", path, allow, want)
		}
	}
	for path, methods := range doc.Paths {
		for m, op := range methods {
			if originalUpdatePath(path) && !op.Deprecated {
				t.Errorf("%s %s is not marked as deprecated", m, path)
			}
		}
	}
	if health := doc.Paths["/health"]["get"].Responses; !strings.Contains(string(health["503"]), "schemas/Health") {
		t.Errorf("/health answers %s", health)
	}
	if detailed := doc.Paths["/health/detailed"]["get"].Responses; !strings.Contains(string(detailed["503"]), "schemas/Detailed") {
		t.Errorf("/health/detailed answers %s", detailed)
	}
	if metrics := doc.Paths["/metrics"]["get"].Responses; !strings.Contains(string(metrics["200"]), "text/plain") {
		t.Errorf("/metrics answers %s", metrics)
	}
	for path, f := range map[string]form{"/v1/audio/transcriptions": transcriptionForm, "/v1/audio/translations": translationForm,
		"/asr": asrForm, "/detect-language": asrForm, "/inference": inferenceForm, "/transcribe": legacyForm, "/api/transcribe-live": legacyForm, "/api/v1/transcriptions": ownForm} {
		schema := doc.Paths[path]["post"].RequestBody.Content["multipart/form-data"].Schema
		if schema.Properties[f.file].Format != "binary" || !slices.Contains(schema.Required, f.file) {
			t.Errorf("%s does not document its recording: %+v", path, schema)
		}
		for _, field := range f.fields {
			if schema.Properties[field].Description == "" {
				t.Errorf("%s does not document %s", path, field)
			}
		}
	}
}

// TestHeadersAreDocumented: what a client may send beside the body.
func TestHeadersAreDocumented(t *testing.T) {
	r := newRig(t, talks)
	doc := decoded[struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In, Description string }
		}
	}](t, do(t, "GET", r.start(t).URL+"/openapi.json", nil))
	for door, header := range map[string]string{
		"post /v1/audio/transcriptions": "Idempotency-Key", "post /asr": "Idempotency-Key", "post /detect-language": "Idempotency-Key",
		"post /inference": "Idempotency-Key", "post /api/v1/jobs": "Idempotency-Key", "post /api/v1/transcriptions": "Idempotency-Key",
		"get /api/v1/jobs/{id}/events": "Last-Event-ID", "get /api/v1/updates/events": "Last-Event-ID",
	} {
		method, path, _ := strings.Cut(door, " ")
		found := false
		for _, p := range doc.Paths[path][method].Parameters {
			found = found || p.Name == header && p.In == "header" && p.Description != ""
		}
		if !found {
			t.Errorf("%s does not document %s", door, header)
		}
	}
}

// sorted is a comma separated list in order.
func sorted(list string) string {
	items := strings.Split(list, ", ")
	slices.Sort(items)
	return strings.Join(items, " ")
}
