package server

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"whisper-appliance/internal/auth"
)

// dialects registers the doors of other servers, for programs that were written
// for those.
func (d doors) dialects() {
	asr := multipartOp(http.MethodPost, asrDoor, "asr", "Transcribe a recording, as whisper-asr-webservice does", asrForm)
	params := []*huma.Param{
		queryParam("encode", boolean(true), "false: the recording is bare samples, s16le at 16 kHz, mono."),
		queryParam("task", choice("transcribe", "translate"), fieldDocs["task"]),
		queryParam("language", choice(), fieldDocs["language"]),
		queryParam("initial_prompt", choice(), fieldDocs["prompt"]),
		queryParam("vad_filter", boolean(true), "As it may be: only speech is ever decoded."),
		queryParam("word_timestamps", boolean(false), "true: json has each word with its own times."),
		queryParam("output", choice("txt", "vtt", "srt", "tsv", "json"), "The format; txt by itself."),
	}
	asr.Parameters = append(asr.Parameters, params...)
	detect := multipartOp(http.MethodPost, detectDoor, "detectLanguage", "Tell the language of a recording's first speech, as whisper-asr-webservice does", asrForm)
	detect.Parameters = append(detect.Parameters, params[0])
	inference := multipartOp(http.MethodPost, inferenceDoor, "inference", "Transcribe a recording, as whisper.cpp's server does", inferenceForm)
	schema := inference.RequestBody.Content["multipart/form-data"].Schema
	for _, f := range inferenceFields {
		schema.Properties[f.name].Description = f.doc
	}
	for _, op := range []*huma.Operation{&asr, &detect, &inference} {
		op.Tags = []string{"Dialects"}
	}
	d.stream(auth.Transcribe, asr, d.s.asr)
	d.stream(auth.Transcribe, detect, d.s.detectLanguage)
	d.stream(auth.Transcribe, inference, d.s.inference)
}

func queryParam(name string, s *huma.Schema, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: doc, Schema: s}
}

func boolean(unless bool) *huma.Schema { return &huma.Schema{Type: huma.TypeBoolean, Default: unless} }

// choice is a schema of one of those, or of any where there are none.
func choice(these ...string) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, w := range these {
		s.Enum = append(s.Enum, w)
	}
	return s
}
