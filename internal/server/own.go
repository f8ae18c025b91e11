package server

import (
	"net/http"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// ownForm is what the CLI and the page send.
var ownForm = form{file: "file", fields: []string{"model", "language", "prompt", "temperature", "task", "words"}}

// transcribeWithEvents answers with the events of package api.
func (s *Server) transcribeWithEvents(w http.ResponseWriter, r *http.Request) error {
	u, err := s.receive(w, r, ownForm)
	if err != nil {
		return err
	}
	defer u.Close()
	task, err := taskOf(u.get("task"))
	if err != nil {
		return err
	}
	words, err := u.flag("words")
	if err != nil {
		return err
	}
	job, err := s.job(u.request(task, words))
	if err != nil {
		return err
	}
	u.give(&job)
	emit := func(out *sse, up transcribe.Update) {
		out.send(api.EventProgress, api.Progress{
			Phase: string(up.Phase), Done: up.Done.Seconds(), Total: up.Total.Seconds(), Language: up.Language,
		})
		for _, seg := range up.Segments {
			out.send(api.EventSegment, seg)
		}
	}
	return s.stream(w, r, job, emit, func(out *sse, t *transcript.Transcript) {
		out.send(api.EventDone, api.DoneOf(t))
	}, func(out *sse, f *fault.Error) {
		out.send(api.EventError, plainBody(f))
	})
}

func taskOf(s string) (transcript.Task, error) {
	switch t := transcript.Task(s); t {
	case "":
		return transcript.Transcribe, nil
	case transcript.Transcribe, transcript.Translate:
		return t, nil
	}
	return "", fault.New(fault.BadInput, "invalid_value", "task is %s; it must be transcribe or translate", quoted(s)).On("task")
}
