package server

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// answersOf documents what a door for recordings answers, which no type of ours
// says: it depends on what is asked for.
func answersOf(path string) map[string]*huma.Response {
	content := map[string]*huma.MediaType{}
	switch {
	case strings.HasPrefix(path, "/v1/"):
		content["application/json"] = &huma.MediaType{Schema: object([]string{"text"}, map[string]string{
			"text": huma.TypeString, "usage": huma.TypeObject, "logprobs": huma.TypeArray, "task": huma.TypeString, "language": huma.TypeString,
			"duration": huma.TypeNumber, "segments": huma.TypeArray, "words": huma.TypeArray,
		})}
		for _, kind := range []string{"text/plain", "text/vtt", "text/tab-separated-values", "text/event-stream"} {
			content[kind] = &huma.MediaType{}
		}
	case path == asrDoor:
		content["text/plain"] = &huma.MediaType{}
	case path == detectDoor:
		content["application/json"] = &huma.MediaType{Schema: object([]string{"detected_language", "language_code", "confidence"}, map[string]string{
			"detected_language": huma.TypeString, "language_code": huma.TypeString, "confidence": huma.TypeNumber,
		})}
	case path == inferenceDoor:
		content["application/json"] = &huma.MediaType{Schema: object([]string{"text"}, map[string]string{
			"text": huma.TypeString, "task": huma.TypeString, "language": huma.TypeString, "duration": huma.TypeNumber, "segments": huma.TypeArray,
			"detected_language": huma.TypeString, "detected_language_probability": huma.TypeNumber, "language_probabilities": huma.TypeObject,
		})}
		for _, kind := range []string{"text/plain", "text/vtt", "application/x-subrip"} {
			content[kind] = &huma.MediaType{}
		}
	case strings.HasPrefix(path, "/api/v1/"):
		content["text/event-stream"] = &huma.MediaType{}
	default:
		content["application/json"] = &huma.MediaType{Schema: object([]string{"text", "language", "timestamp"}, map[string]string{
			"text": huma.TypeString, "language": huma.TypeString, "model_used": huma.TypeString, "timestamp": huma.TypeString,
		})}
	}
	return map[string]*huma.Response{strconv.Itoa(http.StatusOK): {Description: "What was said.", Content: content}}
}

// object is a schema of names and types, with no other names.
func object(required []string, types map[string]string) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, Required: required, AdditionalProperties: false}
	for name, kind := range types {
		s.Properties[name] = &huma.Schema{Type: kind}
	}
	return s
}

// plain documents an answer that is a word or a line.
func plain(says string) map[string]*huma.Response {
	return map[string]*huma.Response{strconv.Itoa(http.StatusOK): {Description: says, Content: map[string]*huma.MediaType{"text/plain": {}}}}
}
