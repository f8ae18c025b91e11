package server

import (
	"cmp"
	"io"

	"whisper-appliance/internal/transcript"
)

// inferenceResult is whisper.cpp's verbose_json, keys in its order. The
// languages are told where one was detected: that server detects it once more
// for this, also where it was given. It lists all that are likelier than one in
// a thousand, we the likeliest alone.
type inferenceResult struct {
	Task          string             `json:"task"`
	Language      string             `json:"language"` // spoken, its English name
	Duration      float64            `json:"duration"` // seconds
	Text          string             `json:"text"`
	Segments      []inferenceSegment `json:"segments"`
	Detected      string             `json:"detected_language,omitempty"`
	DetectedProb  float64            `json:"detected_language_probability,omitempty"`
	Probabilities map[string]float64 `json:"language_probabilities,omitempty"` // by code
}

type inferenceSegment struct {
	ID           int             `json:"id"`
	Text         string          `json:"text"`
	Start        *float64        `json:"start,omitempty"` // seconds; not with no_timestamps
	End          *float64        `json:"end,omitempty"`
	Tokens       []int           `json:"tokens"`
	Words        []inferenceWord `json:"words"`
	Temperature  float64         `json:"temperature"`
	AvgLogProb   float64         `json:"avg_logprob"`
	NoSpeechProb float64         `json:"no_speech_prob"`
}

// inferenceWord is a word; whisper.cpp's are tokens, whose texts joined are the
// same.
type inferenceWord struct {
	Word        string   `json:"word"`
	Start       *float64 `json:"start,omitempty"`
	End         *float64 `json:"end,omitempty"`
	DTW         *int     `json:"t_dtw,omitempty"` // -1: there is none, as where that server was started without --dtw
	Probability float64  `json:"probability"`
}

func (q *inferenceRequest) writeVerbose(w io.Writer, t *transcript.Transcript) error {
	result := inferenceResult{
		Task: string(cmp.Or(t.Task, transcript.Transcribe)), Language: transcript.LanguageName(t.Language),
		Duration: secondsOf(t.Duration), Text: inferenceText(t), Segments: []inferenceSegment{},
	}
	if q.sure > 0 && !q.noLanguages && t.Language != "" {
		result.Detected, result.DetectedProb = result.Language, q.sure
		result.Probabilities = map[string]float64{t.Language: q.sure}
	}
	for i, s := range t.Segments {
		result.Segments = append(result.Segments, q.segment(i, s))
	}
	return writeBare(w, result)
}

func (q *inferenceRequest) segment(i int, s transcript.Segment) inferenceSegment {
	seg := inferenceSegment{
		ID: i, Text: transcript.Clean(s.Text), Tokens: append([]int{}, s.Tokens...), Words: []inferenceWord{},
		Temperature: s.Temperature, AvgLogProb: s.AvgLogProb, NoSpeechProb: s.NoSpeechProb,
	}
	if !q.noTimes {
		seg.Start, seg.End = new(secondsOf(s.Start)), new(secondsOf(s.End))
	}
	for _, word := range s.Words {
		out := inferenceWord{Word: transcript.Clean(word.Text), Probability: word.Prob}
		if !q.noTimes && !q.noWordTimes {
			out.Start, out.End, out.DTW = new(secondsOf(word.Start)), new(secondsOf(word.End)), new(-1)
		}
		seg.Words = append(seg.Words, out)
	}
	return seg
}
