//go:build whisper

package whisper

// #include "shim.h"
import "C"

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
	"unsafe"

	"whisper-appliance/internal/engine"
)

// model is a model in memory and the one state its windows are decoded in.
type model struct {
	ctx   *C.struct_whisper_context
	state *C.struct_whisper_state
	cut   bool // the state has seen a window with less than the whole context
}

// contextStep is what flash attention fills an encoder context up to, with
// whatever a context of another size has left there. Contexts are in step with
// it, and as the whole one is not, that gets a state which has seen no other.
// Otherwise a text would depend on the windows before it.
const contextStep = 256

// context is the encoder's for a request, in positions; 0 = the whole one.
func (m *model) context(asked int) int {
	n := (asked + contextStep - 1) / contextStep * contextStep
	if n >= int(C.whisper_n_audio_ctx(m.ctx)) {
		return 0
	}
	return n
}

// ready has a state that is fit for a context.
func (m *model) ready(context int) error {
	if context == 0 && m.cut {
		C.whisper_free_state(m.state)
		C.malloc_trim(0)
		m.state = nil
	}
	if m.state == nil {
		m.cut = false
		C.wa_forget_log()
		if m.state = C.whisper_init_state(m.ctx); m.state == nil {
			return &engine.Failure{Code: engine.CodeNoMemory, Message: "no memory for the model's working state: " + lastLog()}
		}
	}
	m.cut = m.cut || context != 0
	return nil
}

// Info describes the model.
func (m *model) Info() engine.Model {
	return engine.Model{
		Type:         C.GoString(C.whisper_model_type_readable(m.ctx)),
		Multilingual: C.whisper_is_multilingual(m.ctx) != 0,
	}
}

// Close gives the memory back, to the system and not only to C's heap: an
// idle engine should be small.
func (m *model) Close() {
	C.whisper_free_state(m.state) // which may be none
	C.whisper_free(m.ctx)
	C.malloc_trim(0)
	debug.FreeOSMemory()
}

// shortest is what whisper.cpp decodes at all; a shorter window is filled up
// with silence.
const shortest = 1250 * time.Millisecond

// Transcribe decodes one window. emit is called from this goroutine's watcher
// while it works and with every segment before Transcribe returns.
func (m *model) Transcribe(ctx context.Context, req engine.WindowRequest, pcm []float32, emit func(engine.Event)) (engine.Done, error) {
	started := time.Now()
	if need := int(shortest.Seconds() * engine.SampleRate); len(pcm) < need {
		pcm = append(pcm[:len(pcm):len(pcm)], make([]float32, need-len(pcm))...)
	}
	watch := (*C.struct_wa_watch)(C.calloc(1, C.sizeof_struct_wa_watch))
	defer C.free(unsafe.Pointer(watch))
	stop := observe(ctx, watch, emit)
	done, err := m.decode(req, pcm, watch, emit)
	stop()
	if ctx.Err() != nil {
		return done, &engine.Failure{Code: engine.CodeAborted, Message: "the window was given up"}
	}
	done.Took = time.Since(started)
	return done, err
}

// observe carries ctx's end to whisper.cpp and its progress to emit, until stop is called.
func observe(ctx context.Context, watch *C.struct_wa_watch, emit func(engine.Event)) (stop func()) {
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		last, steps := 0, 0
		for {
			select {
			case <-quit:
				return
			case <-ctx.Done():
				C.wa_set_abort(watch)
				return
			case <-tick.C:
				if s := int(C.wa_steps(watch)); s != steps {
					steps = s
					emit(engine.Event{Alive: true})
				}
				if p := int(C.wa_percent(watch)); p > last && p < 100 {
					last = p
					emit(engine.Event{Progress: &engine.Progress{Percent: p}})
				}
			}
		}
	}()
	return func() { close(quit); <-gone }
}

func (m *model) decode(req engine.WindowRequest, pcm []float32, watch *C.struct_wa_watch, emit func(engine.Event)) (engine.Done, error) {
	req.AudioCtx = m.context(req.AudioCtx)
	if err := m.ready(req.AudioCtx); err != nil {
		return engine.Done{}, err
	}
	params, free := m.params(req)
	defer free()
	C.wa_observe(&params, watch)

	done := engine.Done{Language: req.Language}
	if req.Language == "" {
		lang, prob, err := m.detect(params, pcm)
		if err != nil {
			return done, err
		}
		done.Language, done.LanguageProb = lang, prob
		clang := C.CString(lang)
		defer C.free(unsafe.Pointer(clang))
		params.language = clang
	}
	C.wa_forget_log()
	if rc := C.whisper_full_with_state(m.ctx, m.state, params, samples(pcm), C.int(len(pcm))); rc != 0 {
		return done, &engine.Failure{Code: engine.CodeDecode, Message: fmt.Sprintf("whisper.cpp gave up on the window (%d): %s", int(rc), lastLog())}
	}
	end := time.Duration(len(pcm)) * time.Second / engine.SampleRate
	for i := range C.whisper_full_n_segments_from_state(m.state) {
		s := m.segment(i, end, req.Words, done.Language)
		emit(engine.Event{Segment: &s})
	}
	return done, nil
}

func samples(pcm []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(pcm))) }

// params translates the request. The strings in it live until free is called.
func (m *model) params(req engine.WindowRequest) (p C.struct_whisper_full_params, free func()) {
	strategy := C.enum_whisper_sampling_strategy(C.WHISPER_SAMPLING_GREEDY)
	if req.BeamSize > 1 {
		strategy = C.WHISPER_SAMPLING_BEAM_SEARCH
	}
	p = C.whisper_full_default_params(strategy)
	p.print_progress, p.print_timestamps, p.print_realtime, p.print_special = false, false, false, false
	// Each window stands alone: text of an earlier one comes in as the prompt or not at all.
	p.no_context = true
	p.n_threads = C.int(req.Threads)
	p.translate = C.bool(req.Translate)
	p.token_timestamps = C.bool(req.Words)
	p.audio_ctx = C.int(req.AudioCtx)
	p.temperature = C.float(req.Temperature)
	switch {
	case req.TemperatureInc < 0:
		p.temperature_inc = 0
	case req.TemperatureInc > 0:
		p.temperature_inc = C.float(req.TemperatureInc)
	}
	p.greedy.best_of = C.int(req.BestOf)
	p.beam_search.beam_size = C.int(req.BeamSize)
	language, prompt := C.CString(req.Language), C.CString(req.Prompt)
	p.language = language
	if req.Prompt != "" {
		p.initial_prompt = prompt
	}
	return p, func() {
		C.free(unsafe.Pointer(language))
		C.free(unsafe.Pointer(prompt))
	}
}

// detect tells the language spoken and its probability. whisper.cpp would
// encode with the context of the window before.
func (m *model) detect(params C.struct_whisper_full_params, pcm []float32) (string, float64, error) {
	if C.whisper_is_multilingual(m.ctx) == 0 {
		return "en", 1, nil
	}
	english := C.CString("en")
	defer C.free(unsafe.Pointer(english))
	params.language = english
	if rc := C.wa_prepare(m.ctx, m.state, params, samples(pcm), C.int(len(pcm))); rc != 0 {
		return "", 0, &engine.Failure{Code: engine.CodeDecode, Message: "the window has no spectrum: " + lastLog()}
	}
	probs := make([]C.float, int(C.whisper_lang_max_id())+1)
	id := C.whisper_lang_auto_detect_with_state(m.ctx, m.state, 0, params.n_threads, &probs[0])
	if id < 0 {
		return "", 0, &engine.Failure{Code: engine.CodeDecode, Message: "the language could not be detected: " + lastLog()}
	}
	return C.GoString(C.whisper_lang_str(id)), float64(probs[id]), nil
}

// tick is whisper.cpp's unit of time.
const tick = 10 * time.Millisecond

func (m *model) segment(i C.int, end time.Duration, words bool, language string) engine.Segment {
	s := engine.Segment{
		Start:        min(time.Duration(C.whisper_full_get_segment_t0_from_state(m.state, i))*tick, end),
		End:          min(time.Duration(C.whisper_full_get_segment_t1_from_state(m.state, i))*tick, end),
		Text:         C.GoString(C.whisper_full_get_segment_text_from_state(m.state, i)),
		NoSpeechProb: float64(C.whisper_full_get_segment_no_speech_prob_from_state(m.state, i)),
	}
	eot := C.whisper_token_eot(m.ctx)
	sum := 0.0
	for j := range C.whisper_full_n_tokens_from_state(m.state, i) {
		d := C.whisper_full_get_token_data_from_state(m.state, i, j)
		if d.id >= eot { // timestamps and specials
			continue
		}
		t := engine.Token{
			ID: int(d.id), Prob: float64(d.p), LogProb: float64(d.plog),
			Bytes: []byte(C.GoString(C.whisper_token_to_str(m.ctx, d.id))),
		}
		if words {
			t.Start, t.End = time.Duration(d.t0)*tick, time.Duration(d.t1)*tick
		}
		sum += t.LogProb
		s.Tokens = append(s.Tokens, t)
	}
	if len(s.Tokens) > 0 {
		s.AvgLogProb = sum / float64(len(s.Tokens))
	}
	if words {
		s.Words = engine.WordsOf(s, language)
	}
	return s
}

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
	C.wa_forget_log()
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
