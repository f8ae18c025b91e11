package clips

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Request is one recording for a recogniser that takes HTML forms with the
// recording in the field "file".
type Request struct {
	URL    string
	Key    string            // API key; "" = none
	Fields map[string]string // beside the recording
	Path   string            // the recording
}

// Transcribe sends the recording and gives the field "text" of the JSON
// answer, and the time from the first byte sent to the last one received. An
// answer with another status than 200 is an error that quotes it.
func (r Request) Transcribe(ctx context.Context) (text string, took time.Duration, err error) {
	body, kind, err := r.Form()
	if err != nil {
		return "", 0, fmt.Errorf("read %s: %w", filepath.Base(r.Path), err)
	}
	start := time.Now()
	answer, err := Do(ctx, http.MethodPost, r.URL, r.Key, kind, body)
	took = time.Since(start)
	if err != nil {
		return "", took, fmt.Errorf("transcribe %s: %w", filepath.Base(r.Path), err)
	}
	var result struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return "", took, fmt.Errorf("transcribe %s: answer %.200q: %w", filepath.Base(r.Path), answer, err)
	}
	return result.Text, took, nil
}

// Form is the request's body, and its type.
func (r Request) Form() (io.Reader, string, error) {
	data, err := os.ReadFile(r.Path)
	if err != nil {
		return nil, "", err
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for name, value := range r.Fields {
		if err := form.WriteField(name, value); err != nil {
			return nil, "", err
		}
	}
	file, err := form.CreateFormFile("file", filepath.Base(r.Path))
	if err != nil {
		return nil, "", err
	}
	if _, err := file.Write(data); err != nil {
		return nil, "", err
	}
	return &body, form.FormDataContentType(), form.Close()
}

// Do sends one request and gives the body of its answer. An answer that is no
// success is an error that quotes it.
func Do(ctx context.Context, method, url, key, contentType string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %.300s", res.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}
