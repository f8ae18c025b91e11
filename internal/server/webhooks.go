package server

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/work"
)

// told adds to jobs how their ends were told.
func told(ctx context.Context, desk *work.Desk, jobs []api.Job) error {
	var ids []string
	for _, j := range jobs {
		if j.Webhook != nil && job.State(j.State).Ended() {
			ids = append(ids, j.ID)
		}
	}
	last, err := desk.Store.Deliveries(ctx, ids...)
	for i := range jobs {
		v, there := last[jobs[i].ID]
		if !there {
			continue
		}
		w := jobs[i].Webhook
		w.ID, w.State, w.Attempts, w.Error = v.ID, string(v.State), v.Attempts, v.Error
		if v.State == job.Sending {
			w.Next = v.Due
		}
	}
	return err
}

// JobEvent is what a webhook is sent of a job that has ended.
func (s *Server) JobEvent(j job.Job) ([]byte, error) {
	shown := outline(s.desk(), j)
	shown.Webhook = nil // its state is that of this very message
	if j.Source != "" { // of which no more than the host is the receiver's to know
		shown.URL, shown.Name = outbound.Host(j.Source), outbound.Host(j.Source)
	}
	e := api.Event{Type: "job." + string(j.State), Timestamp: j.Ended, Data: api.EndedJob{Job: shown}}
	if j.State == job.Done {
		e.Data.Transcript = "/api/v1/jobs/" + j.ID + "/transcript"
	}
	return json.Marshal(e)
}

// WebhookSent counts an attempt to tell the end of a job.
func (s *Server) WebhookSent(state string) { s.meter().webhooks.WithLabelValues(state).Inc() }

// webhook documents what receivers of webhooks are sent.
func (d doors) webhook() {
	header := func(name, doc string) *huma.Param { return headerParam(name, true, doc) }
	doc := d.api.OpenAPI()
	doc.Webhooks = map[string]*huma.PathItem{"jobEnded": {Post: &huma.Operation{
		OperationID: "jobEnded", Summary: "A job has ended, as its field webhook asked to be told", Tags: []string{"Jobs"},
		Parameters: []*huma.Param{
			header("webhook-id", "The same at each attempt: what has it again is the same message."),
			header("webhook-timestamp", "Seconds since 1970 of this attempt."),
			header("webhook-signature", "v1, and the base64 of HMAC-SHA256 over id.timestamp.body with the secret; one for each secret."),
		},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: doc.Components.Schemas.Schema(reflect.TypeFor[api.Event](), true, "Event")}}},
		Responses: map[string]*huma.Response{
			"204": {Description: "Taken, as any status of 200 and more below 300."},
			"410": {Description: "Nothing more of it is wanted. Any other status, and none in 20 s: it is sent again."},
		},
		Method: http.MethodPost,
	}}}
}
