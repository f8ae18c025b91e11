package engine

import "context"

// Backend is what the engine's server needs from a speech recogniser. The real
// one is package whisper; tests have one whose text derives from the PCM.
type Backend interface {
	// Describe says what computes.
	Describe() Description
	// Load reads the model file at path into memory. An error is a *Failure.
	Load(path string) (LoadedModel, error)
	// LoadVAD reads the speech detector at path.
	LoadVAD(path string, threads int) (LoadedVAD, error)
}

// LoadedModel is a model in memory.
type LoadedModel interface {
	// Info gives type and languages; the server adds file, size and load time.
	Info() Model
	// NewState makes room to decode in. It may be called while another state
	// decodes. An error is a *Failure, CodeNoMemory where that is what lacks.
	NewState() (State, error)
	// Close frees the memory. Every state was closed before.
	Close()
}

// State is the room in which a model decodes one window after another. States
// of one model work at the same time, each on one thread; what one has decoded
// changes nothing in what another decodes.
type State interface {
	// Transcribe decodes one window of at most MaxWindow. It hands each
	// segment to emit before it returns; emit may be called from another
	// goroutine for progress, never at the same time. It returns soon after
	// ctx ends.
	Transcribe(ctx context.Context, req WindowRequest, pcm []float32, emit func(Event)) (Done, error)
	// Bytes is what it takes, 0 = not known; decoding may add to it.
	Bytes() int64
	// Close frees the memory.
	Close()
}

// LoadedVAD is a speech detector in memory.
type LoadedVAD interface {
	// Detect lists the stretches of speech in order.
	Detect(req VADRequest, pcm []float32) ([]Span, error)
	// Close frees the memory.
	Close()
}

// Description is what a Backend says of itself.
type Description struct {
	Whisper string // version of whisper.cpp
	Backend string // devices, and the CPU level chosen
	System  string // CPU features in use
}
