//go:build whisper

package whisper

// #include "shim.h"
import "C"

import (
	"context"
	"fmt"
	"time"
	"unsafe"

	"whisper-appliance/internal/engine"
)

// shortest is what whisper.cpp decodes at all; a shorter window is filled up
// with silence.
const shortest = 1250 * time.Millisecond

// Transcribe decodes one window. emit is called from this goroutine's watcher
// while it works and with every segment before Transcribe returns.
func (s *state) Transcribe(ctx context.Context, req engine.WindowRequest, pcm []float32, emit func(engine.Event)) (engine.Done, error) {
	started := time.Now()
	if need := int(shortest.Seconds() * engine.SampleRate); len(pcm) < need {
		pcm = append(pcm[:len(pcm):len(pcm)], make([]float32, need-len(pcm))...)
	}
	watch := (*C.struct_wa_watch)(C.calloc(1, C.sizeof_struct_wa_watch))
	defer C.free(unsafe.Pointer(watch))
	stop := observe(ctx, watch, emit)
	done, err := s.decode(req, pcm, watch, emit)
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

func (s *state) decode(req engine.WindowRequest, pcm []float32, watch *C.struct_wa_watch, emit func(engine.Event)) (engine.Done, error) {
	defer onThread()()
	req.AudioCtx = s.context(req.AudioCtx)
	if err := s.ready(req.AudioCtx); err != nil {
		return engine.Done{}, err
	}
	params, free := s.params(req)
	defer free()
	if req.OnePass {
		watch.one_pass = 1
	}
	C.wa_observe(&params, watch)

	done := engine.Done{Language: req.Language}
	if req.Language == "" {
		lang, prob, err := s.detect(params, pcm)
		if err != nil {
			return done, err
		}
		done.Language, done.LanguageProb = lang, prob
		clang := C.CString(lang)
		defer C.free(unsafe.Pointer(clang))
		params.language = clang
	}
	if rc := C.wa_full(s.ctx, s.c, params, samples(pcm), C.int(len(pcm))); rc != 0 {
		return done, &engine.Failure{Code: engine.CodeDecode, Message: fmt.Sprintf("whisper.cpp gave up on the window (%d): %s", int(rc), lastLog())}
	}
	end := time.Duration(len(pcm)) * time.Second / engine.SampleRate
	for i := range C.whisper_full_n_segments_from_state(s.c) {
		seg := s.segment(i, end, req.Words, done.Language)
		if i < watch.segments {
			seg.NoSpeechProb = float64(watch.no_speech[i])
		}
		emit(engine.Event{Segment: &seg})
		if watch.refused != 0 {
			done.Until = seg.End
		}
	}
	return done, nil
}

func samples(pcm []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(pcm))) }

// params translates the request. The strings in it live until free is called.
func (s *state) params(req engine.WindowRequest) (p C.struct_whisper_full_params, free func()) {
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
func (s *state) detect(params C.struct_whisper_full_params, pcm []float32) (string, float64, error) {
	if C.whisper_is_multilingual(s.ctx) == 0 {
		return "en", 1, nil
	}
	english := C.CString("en")
	defer C.free(unsafe.Pointer(english))
	params.language = english
	if rc := C.wa_prepare(s.ctx, s.c, params, samples(pcm), C.int(len(pcm))); rc != 0 {
		return "", 0, &engine.Failure{Code: engine.CodeDecode, Message: "the window has no spectrum: " + lastLog()}
	}
	probs := make([]C.float, int(C.whisper_lang_max_id())+1)
	id := C.whisper_lang_auto_detect_with_state(s.ctx, s.c, 0, params.n_threads, &probs[0])
	if id < 0 {
		return "", 0, &engine.Failure{Code: engine.CodeDecode, Message: "the language could not be detected: " + lastLog()}
	}
	return C.GoString(C.whisper_lang_str(id)), float64(probs[id]), nil
}

// tick is whisper.cpp's unit of time.
const tick = 10 * time.Millisecond

func (s *state) segment(i C.int, end time.Duration, words bool, language string) engine.Segment {
	seg := engine.Segment{
		Start: min(time.Duration(C.whisper_full_get_segment_t0_from_state(s.c, i))*tick, end),
		End:   min(time.Duration(C.whisper_full_get_segment_t1_from_state(s.c, i))*tick, end),
		Text:  C.GoString(C.whisper_full_get_segment_text_from_state(s.c, i)),
	}
	eot := C.whisper_token_eot(s.ctx)
	sum := 0.0
	for j := range C.whisper_full_n_tokens_from_state(s.c, i) {
		d := C.whisper_full_get_token_data_from_state(s.c, i, j)
		if d.id >= eot { // timestamps and specials
			continue
		}
		t := engine.Token{
			ID: int(d.id), Prob: float64(d.p), LogProb: float64(d.plog),
			Bytes: []byte(C.GoString(C.whisper_token_to_str(s.ctx, d.id))),
		}
		if words {
			t.Start, t.End = time.Duration(d.t0)*tick, time.Duration(d.t1)*tick
		}
		sum += t.LogProb
		seg.Tokens = append(seg.Tokens, t)
	}
	if len(seg.Tokens) > 0 {
		seg.AvgLogProb = sum / float64(len(seg.Tokens))
	}
	if words {
		seg.Words = engine.WordsOf(seg, language)
	}
	return seg
}
