package server

import (
	"io"
	"net/http"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// The original appliance's two doors. Its page sent model with an upload and
// ignored it; here it is honoured.
var legacyForm = form{file: "audio", fields: []string{"model", "language", "prompt", "temperature"}}

// legacyAnswer has the original's keys.
type legacyAnswer struct {
	Text      string `json:"text"`
	Language  string `json:"language"`
	ModelUsed string `json:"model_used,omitempty"`
	Timestamp string `json:"timestamp"`
}

func (s *Server) legacyUpload(w http.ResponseWriter, r *http.Request) error {
	return s.legacy(w, r, true)
}

func (s *Server) legacyLive(w http.ResponseWriter, r *http.Request) error {
	return s.legacy(w, r, false)
}

func (s *Server) legacy(w http.ResponseWriter, r *http.Request, namesModel bool) (err error) {
	defer func() {
		// The decoder calls the recording by the name that OpenAI gives it.
		if e, ok := err.(*fault.Error); ok && e.Field == "file" {
			err = e.On(legacyForm.file)
		}
	}()
	u, err := s.receive(w, r, legacyForm)
	if err != nil {
		return err
	}
	defer u.Close()
	job, err := s.job(u.request(transcript.Transcribe, false))
	if err != nil {
		return err
	}
	u.give(&job)
	w.Header().Set("Deprecation", replaced)
	w.Header().Set("Link", `</v1/audio/transcriptions>; rel="successor-version"`)
	return s.answer(w, r, job, renderer{
		contentType: transcript.ContentType(transcript.JSON),
		whole: func(w io.Writer, t *transcript.Transcript) error {
			a := legacyAnswer{Text: t.Text(), Language: t.Language, Timestamp: time.Now().UTC().Format(time.RFC3339)}
			if namesModel {
				a.ModelUsed = t.Model
			}
			return transcript.Encode(w, a)
		},
	})
}
