//go:build whisper

package whisper

// #include "shim.h"
import "C"

import (
	"time"

	"whisper-appliance/internal/engine"
)

// vad is a Silero detector in memory.
type vad struct {
	ctx *C.struct_whisper_vad_context
}

// Close gives the memory back.
func (v *vad) Close() { C.whisper_vad_free(v.ctx) }

// Detect lists the stretches of speech in pcm.
func (v *vad) Detect(req engine.VADRequest, pcm []float32) ([]engine.Span, error) {
	p := C.whisper_vad_default_params()
	if req.Threshold > 0 {
		p.threshold = C.float(req.Threshold)
	}
	if req.MinSpeech > 0 {
		p.min_speech_duration_ms = C.int(req.MinSpeech.Milliseconds())
	}
	if req.MinSilence > 0 {
		p.min_silence_duration_ms = C.int(req.MinSilence.Milliseconds())
	}
	if req.Pad > 0 {
		p.speech_pad_ms = C.int(req.Pad.Milliseconds())
	}
	defer onThread()()
	found := C.whisper_vad_segments_from_samples(v.ctx, p, samples(pcm), C.int(len(pcm)))
	if found == nil {
		return nil, &engine.Failure{Code: engine.CodeDecode, Message: "speech detection failed: " + lastLog()}
	}
	defer C.whisper_vad_free_segments(found)
	spans := make([]engine.Span, 0, int(C.whisper_vad_segments_n_segments(found)))
	for i := range C.whisper_vad_segments_n_segments(found) {
		spans = append(spans, engine.Span{
			Start: centiseconds(C.whisper_vad_segments_get_segment_t0(found, i)),
			End:   centiseconds(C.whisper_vad_segments_get_segment_t1(found, i)),
		})
	}
	return spans, nil
}

func centiseconds(t C.float) time.Duration { return time.Duration(float64(t) * float64(tick)) }
