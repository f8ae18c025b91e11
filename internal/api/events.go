package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// events takes the events of a transcription or a job in, also where they come
// in several answers.
type events struct {
	t        transcript.Transcript
	seen     string // id of the last event that had one
	progress func(Progress)
	job      func(Job)
}

// follow reads events until done or error.
func follow(r io.Reader, progress func(Progress)) (*transcript.Transcript, error) {
	e := &events{progress: progress}
	_, err := e.read(r)
	return &e.t, err
}

// read reads events until done or error; told is that one of these came. The
// error of an answer that ends before is ErrCutOff.
func (e *events) read(r io.Reader) (told bool, err error) {
	lines := bufio.NewReader(r)
	name, id := "", ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrCutOff, err)
		}
		line = strings.TrimSuffix(line, "\n")
		if given, ok := strings.CutPrefix(line, "id: "); ok {
			id = given
		}
		if given, ok := strings.CutPrefix(line, "event: "); ok {
			name = given
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		if told, err := e.take(name, []byte(data)); told || err != nil {
			return told, err
		}
		if id != "" {
			e.seen, id = id, ""
		}
	}
}

// take takes one event in; told after the last.
func (e *events) take(name string, data []byte) (told bool, err error) {
	switch name {
	case EventJob:
		var j Job
		if err = json.Unmarshal(data, &j); err == nil && e.job != nil {
			e.job(j)
		}
	case EventProgress:
		var p Progress
		if err = json.Unmarshal(data, &p); err == nil && e.progress != nil {
			e.progress(p)
		}
	case EventSegment:
		var s transcript.Segment
		if err = json.Unmarshal(data, &s); err == nil {
			e.t.Segments = append(e.t.Segments, s)
		}
	case EventDone:
		var d Done
		err = json.Unmarshal(data, &d)
		e.t.Task, e.t.Language, e.t.Duration, e.t.Model, e.t.Notes = transcript.Task(d.Task), d.Language, time.Duration(d.Duration), d.Model, d.Notes
		return true, err
	case EventError:
		var failed Error
		if err = json.Unmarshal(data, &failed); err == nil {
			err = failed.ended()
		}
		return true, err
	}
	return false, err
}

// ended is the fault that a transcription ended with.
func (e Error) ended() error {
	f := e.fault(http.StatusInternalServerError)
	if e.Code == "canceled" {
		return &fault.Error{Kind: fault.Canceled, Code: e.Code, Message: e.Error, Hint: e.Hint}
	}
	return f
}
