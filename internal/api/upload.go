package api

import "time"

// Upload is a recording that arrives in pieces.
type Upload struct {
	ID      string            `json:"id"`
	Bytes   int64             `json:"bytes" doc:"Of the whole recording."`
	Offset  int64             `json:"offset" doc:"Bytes that are here: where the next piece begins."`
	Fields  map[string]string `json:"fields" doc:"As Upload-Metadata had them."`
	Created time.Time         `json:"created"`
	Expires time.Time         `json:"expires" doc:"When it is removed unless more comes."`
	Job     string            `json:"job,omitempty" doc:"Id of the job that it has become, once all of it is here."`
}
