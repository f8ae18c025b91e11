// The few lines of C that Go cannot write: callbacks. None calls back into Go;
// they share a struct that lives in C's memory.
#pragma once

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>

#include "ggml-backend.h"
#include "whisper.h"

// WA_SEGMENTS is more than 30 s of speech have.
#define WA_SEGMENTS 512

// wa_watch is shared between a window's decoding and the goroutine that
// watches it. Both sides use atomic access.
struct wa_watch {
	int abort;   // set by Go: give up
	int steps;   // how often whisper.cpp has asked whether to: it lives
	int percent; // set by whisper.cpp: how far
	int threads; // that compute

	// These are looked at on the thread that decodes alone.
	int one_pass; // set by Go: encode no more once something was heard
	int refused;  // set by whisper.cpp: it would have

	// Of each segment in its order, to be read when whisper.cpp has returned: how
	// probable it is that nobody speaks in what the segment was heard in. What
	// whisper.cpp 1.9.5 itself gives is read from logits of the window before.
	int   segments;
	float no_speech[WA_SEGMENTS];
};

void wa_set_abort(struct wa_watch *w);
int wa_steps(struct wa_watch *w);
int  wa_percent(struct wa_watch *w);

// wa_observe makes params report to w and obey it.
void wa_observe(struct whisper_full_params *params, struct wa_watch *w);

// wa_full decodes samples.
int wa_full(struct whisper_context *ctx, struct whisper_state *state, struct whisper_full_params params,
	    const float *samples, int n);

// wa_prepare makes state have the spectrum of samples and params' encoder
// context, and decodes nothing: there is no other way to set that context.
int wa_prepare(struct whisper_context *ctx, struct whisper_state *state, struct whisper_full_params params,
	       const float *samples, int n);

// Log lines of whisper.cpp and ggml: errors and warnings go to standard error,
// the last error is kept for the thread's wa_last_log, and everything else is
// dropped.
void        wa_quiet(void);

// wa_return_large_buffers has freed memory go back to the system, as states are
// made anew.
void wa_return_large_buffers(void);

// wa_init_state makes a state, NULL where there is no memory, and says what its
// buffers take, 0 where whisper.cpp does not say.
struct whisper_state *wa_init_state(struct whisper_context *ctx, int64_t *bytes);

void        wa_forget_log(void);
const char *wa_last_log(void);
