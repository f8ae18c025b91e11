package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What a WAV file of 16 kHz mono holds, which is all that is sent here.
const (
	wavHeader     = 44
	bytesOfSecond = 32_000
	mostUpload    = 256 << 20
)

// hear is the text of a recording: what share/known/SHA256 holds, or else eight
// words that derive from its bytes.
func (s *server) hear(recording []byte) string {
	sum := sha256.Sum256(recording)
	if text, err := os.ReadFile(filepath.Join(s.own.dir, "share", "known", hex.EncodeToString(sum[:]))); err == nil {
		return strings.TrimSpace(string(text))
	}
	words := strings.Fields("open close the window door and bring seven blue red green letters home tonight please slowly")
	var text []string
	for _, b := range sum[:8] {
		text = append(text, words[int(b)%len(words)])
	}
	return strings.Join(text, " ")
}

// refusal is why there is no text.
type refusal struct {
	status        int
	code, message string
}

func (r refusal) Error() string { return r.message }

// heard is a recording's text and length.
type heard struct {
	text  string
	sound time.Duration
	form  func(name string) string
}

// work takes a recording, and as long as the mode wants.
func (s *server) work(r *http.Request) (heard, error) {
	data, err := recording(r)
	if err != nil {
		return heard{}, err
	}
	if why := s.missing(); why != "" {
		return heard{}, refusal{http.StatusServiceUnavailable, "engine_down", why}
	}
	if s.unlucky() {
		return heard{}, refusal{http.StatusInternalServerError, "internal_error", "something went wrong inside the appliance"}
	}
	takes := s.first.takes
	if m := s.mode.Load(); m.name == slow {
		takes = time.Duration(float64(takes) * m.value)
	}
	select {
	case <-r.Context().Done():
		return heard{}, r.Context().Err()
	case <-time.After(takes):
	}
	h := heard{text: s.hear(data), sound: time.Duration(max(0, len(data)-wavHeader)) * time.Second / bytesOfSecond, form: r.FormValue}
	s.transcribed.Add(1)
	s.workNanos.Add(int64(takes))
	s.soundNanos.Add(int64(h.sound))
	return h, nil
}

func recording(r *http.Request) ([]byte, error) {
	file, _, err := r.FormFile("file")
	if err != nil {
		return nil, refusal{http.StatusBadRequest, "missing_file", "no recording was sent: " + err.Error()}
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, mostUpload))
	if err == nil && len(data) == 0 {
		err = refusal{http.StatusBadRequest, "empty_file", "the recording is empty"}
	}
	return data, err
}

// openAI answers as OpenAI's API does.
func (s *server) openAI(w http.ResponseWriter, r *http.Request) {
	h, err := s.work(r)
	if err != nil {
		why := s.refused(err)
		kind := "invalid_request_error"
		if why.status >= 500 {
			kind = "server_error"
		}
		write(w, why.status, object{"error": object{"message": why.message, "type": kind, "param": nil, "code": why.code}})
		return
	}
	switch seconds := h.sound.Seconds(); h.form("response_format") {
	case "text":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, h.text)
	case "verbose_json":
		write(w, http.StatusOK, object{"task": "transcribe", "language": "english", "duration": seconds, "text": h.text,
			"segments": []object{{"id": 0, "start": 0, "end": seconds, "text": h.text}}})
	default:
		write(w, http.StatusOK, object{"text": h.text, "usage": object{"type": "duration", "seconds": seconds}})
	}
}

// events answers as the appliance's own door does.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	h, err := s.work(r)
	if err != nil {
		why := s.refused(err)
		write(w, why.status, object{"error": why.message, "code": why.code})
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	segment, _ := json.Marshal(object{"text": h.text, "start": 0, "end": h.sound.Seconds()}) //nolint:errcheck // words and numbers
	done, _ := json.Marshal(object{"language": "en", "duration": h.sound.Seconds()})         //nolint:errcheck // the same
	fmt.Fprintf(w, "event: segment\ndata: %s\n\nevent: done\ndata: %s\n\n", segment, done)
}

func (s *server) refused(err error) refusal {
	s.failed.Add(1)
	var why refusal
	if !errors.As(err, &why) {
		why = refusal{499, "canceled", err.Error()}
	}
	return why
}
