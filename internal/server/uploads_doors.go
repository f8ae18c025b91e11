package server

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/auth"
)

// uploads registers the doors of the tus protocol. HEAD comes as GET, as at every
// door; OPTIONS is not documented, as at none.
func (d doors) uploads() {
	one := uploadsPath + "/{id}"
	version := headerParam("Tus-Resumable", true, "1.0.0")
	shown := func(status, says string, headers ...string) map[string]*huma.Response {
		answers := answerWithHeaders(status, says, headers...)
		answers[status].Content = map[string]*huma.MediaType{"application/json": {
			Schema: d.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.Upload](), true, "Upload")}}
		return answers
	}
	d.stream(auth.Transcribe, huma.Operation{Method: http.MethodOptions, Path: uploadsPath, OperationID: "uploadsOptions", Hidden: true}, d.s.uploadOptions)
	d.stream(auth.Transcribe, huma.Operation{Method: http.MethodOptions, Path: one, OperationID: "uploadOptions", Hidden: true}, d.s.uploadOptions)

	d.stream(auth.Transcribe, huma.Operation{Method: http.MethodPost, Path: uploadsPath, OperationID: "createUpload", Tags: []string{"Jobs"},
		Summary: "Begin a recording that comes in pieces, by the tus protocol, and becomes a job when it is whole",
		Parameters: []*huma.Param{version, headerParam("Upload-Length", true, "Bytes of the recording."),
			headerParam("Upload-Metadata", false, "filename and the fields of POST /api/v1/jobs: names with values in base64, separated by commas."),
			headerParam(idempotencyHeader, false, "As for POST /api/v1/jobs.")},
		Responses: shown("201", "Begun. Location is where the pieces go.", "Location", expiresHeader)}, d.s.createUpload)

	d.stream(auth.Transcribe, huma.Operation{Method: http.MethodGet, Path: one, OperationID: "getUpload", Tags: []string{"Jobs"},
		Summary: "Where an upload is; HEAD tells the same in headers", Parameters: []*huma.Param{pathParam("id", "Of the upload.")}, Responses: shown("200", "The upload.", "Upload-Offset", "Upload-Length", "Upload-Metadata", expiresHeader, jobHeader, jobLocationHeader)}, d.s.oneUpload)

	d.stream(auth.Transcribe, huma.Operation{Method: http.MethodPatch, Path: one, OperationID: "addToUpload", Tags: []string{"Jobs"},
		Summary: "Send the next piece of a recording",
		Parameters: []*huma.Param{pathParam("id", "Of the upload."), version,
			headerParam("Upload-Offset", true, "Where the piece begins: what HEAD tells.")},
		Responses: answerWithHeaders("204", "Taken. After the last piece, Job-ID and Job-Location name the job.", "Upload-Offset", expiresHeader, jobHeader, jobLocationHeader),
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/offset+octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}}, d.s.oneUpload)

	d.stream(auth.Transcribe, huma.Operation{Method: http.MethodDelete, Path: one, OperationID: "removeUpload", Tags: []string{"Jobs"},
		Summary: "Give an upload up; the job that it has become stays", Parameters: []*huma.Param{pathParam("id", "Of the upload."), version},
		Responses: answerWithHeaders("204", "Removed.")}, d.s.oneUpload)
}

// answerWithHeaders documents an answer that is in its headers.
func answerWithHeaders(status, says string, headers ...string) map[string]*huma.Response {
	answer := &huma.Response{Description: says, Headers: map[string]*huma.Param{}}
	for _, name := range headers {
		answer.Headers[name] = &huma.Param{Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return map[string]*huma.Response{status: answer}
}
