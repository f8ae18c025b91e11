//go:build whisper

package whisper

// #include "shim.h"
import "C"

import (
	"runtime/debug"

	"whisper-appliance/internal/engine"
)

// model is a model in memory, without a state.
type model struct {
	ctx *C.struct_whisper_context
}

// Info describes the model.
func (m *model) Info() engine.Model {
	return engine.Model{
		Type:         C.GoString(C.whisper_model_type_readable(m.ctx)),
		Multilingual: C.whisper_is_multilingual(m.ctx) != 0,
	}
}

// NewState makes a state for windows to be decoded in.
func (m *model) NewState() (engine.State, error) {
	s := &state{ctx: m.ctx}
	if err := s.ready(0); err != nil {
		return nil, err
	}
	return s, nil
}

// Close gives the memory back, to the system and not only to C's heap: an
// idle engine should be small.
func (m *model) Close() {
	C.whisper_free(m.ctx)
	C.malloc_trim(0)
	debug.FreeOSMemory()
}

// state is a state of the model at ctx.
type state struct {
	ctx   *C.struct_whisper_context
	c     *C.struct_whisper_state // nil where memory lacked to make it anew
	cut   bool                    // it has seen a window with less than the whole context
	bytes int64
}

// contextStep is what flash attention fills an encoder context up to, with
// whatever a context of another size has left there. Contexts are in step with
// it, and as the whole one is not, that gets a state which has seen no other.
// Otherwise a text would depend on the windows before it.
const contextStep = 256

// context is the encoder's for a request, in positions; 0 = the whole one.
func (s *state) context(asked int) int {
	n := (asked + contextStep - 1) / contextStep * contextStep
	if n >= int(C.whisper_n_audio_ctx(s.ctx)) {
		return 0
	}
	return n
}

// ready has a state that is fit for a context.
func (s *state) ready(context int) error {
	if context == 0 && s.cut {
		s.Close()
	}
	if s.c == nil {
		defer onThread()()
		s.cut = false
		var bytes C.int64_t
		if s.c = C.wa_init_state(s.ctx, &bytes); s.c == nil {
			return &engine.Failure{Code: engine.CodeNoMemory, Message: "no memory for the model's working state: " + lastLog()}
		}
		s.bytes = int64(bytes)
	}
	s.cut = s.cut || context != 0
	return nil
}

// Bytes is what its buffers take, by what whisper.cpp says.
func (s *state) Bytes() int64 { return s.bytes }

// Close gives the memory back.
func (s *state) Close() {
	C.whisper_free_state(s.c) // which may be none
	C.malloc_trim(0)
	s.c = nil
}
