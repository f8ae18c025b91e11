//go:build whisper

#include "shim.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void wa_set_abort(struct wa_watch *w) { __atomic_store_n(&w->abort, 1, __ATOMIC_RELAXED); }
int  wa_percent(struct wa_watch *w) { return __atomic_load_n(&w->percent, __ATOMIC_RELAXED); }

int wa_steps(struct wa_watch *w) { return __atomic_load_n(&w->steps, __ATOMIC_RELAXED); }

static bool must_abort(void *data) {
	__atomic_fetch_add(&((struct wa_watch *)data)->steps, 1, __ATOMIC_RELAXED);
	return __atomic_load_n(&((struct wa_watch *)data)->abort, __ATOMIC_RELAXED) != 0;
}

static _Thread_local bool muted; // what is given up on purpose is no error

static bool may_encode(struct whisper_context *ctx, struct whisper_state *state, void *data) {
	(void)ctx;
	struct wa_watch *w = data;
	if (w->one_pass && whisper_full_n_segments_from_state(state) > 0) {
		w->refused = 1;
		muted = true;
		return false;
	}
	return !must_abort(data);
}

static void progress(struct whisper_context *ctx, struct whisper_state *state, int percent, void *data) {
	(void)ctx;
	(void)state;
	__atomic_store_n(&((struct wa_watch *)data)->percent, percent, __ATOMIC_RELAXED);
}

// no_speech is what the model holds of <|nospeech|> right after the token that
// begins a transcript, as Whisper defines it.
static float no_speech(struct whisper_context *ctx, struct whisper_state *state, int threads) {
	const whisper_token sot = whisper_token_sot(ctx);
	if (whisper_decode_with_state(ctx, state, &sot, 1, 0, threads) != 0) {
		return 0;
	}
	const float *logits = whisper_get_logits_from_state(state);
	const int    n = whisper_n_vocab(ctx);
	float        most = logits[0];
	for (int i = 1; i < n; i++) {
		most = logits[i] > most ? logits[i] : most;
	}
	double sum = 0;
	for (int i = 0; i < n; i++) {
		sum += exp(logits[i] - most);
	}
	return (float)(exp(logits[whisper_token_nosp(ctx)] - most) / sum);
}

static void new_segments(struct whisper_context *ctx, struct whisper_state *state, int n, void *data) {
	struct wa_watch *w = data;
	const float      p = no_speech(ctx, state, w->threads);
	for (; n > 0 && w->segments < WA_SEGMENTS; n--) {
		w->no_speech[w->segments++] = p;
	}
}

void wa_observe(struct whisper_full_params *p, struct wa_watch *w) {
	w->threads = p->n_threads;
	p->abort_callback = must_abort;
	p->abort_callback_user_data = w;
	p->encoder_begin_callback = may_encode;
	p->encoder_begin_callback_user_data = w;
	p->progress_callback = progress;
	p->progress_callback_user_data = w;
	p->new_segment_callback = new_segments;
	p->new_segment_callback_user_data = w;
}

// What whisper.cpp says is of the call that it is said in, and two may be under
// way, each on a thread of its own.
static _Thread_local char   kept[512];
static _Thread_local double state_bytes;

// count adds up what a new state says it takes: "whisper_init_state: kv self size = 3.15 MB".
static void count(const char *text) {
	const char *equals = strrchr(text, '=');
	double      megabytes;
	if (equals && strncmp(text, "whisper_init_state:", 19) == 0 && sscanf(equals, "= %lf MB", &megabytes) == 1) {
		state_bytes += megabytes * 1e6;
	}
}

static void keep(enum ggml_log_level level, const char *text, void *data) {
	(void)data;
	count(text);
	if (muted || (level != GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_WARN)) {
		return;
	}
	fputs(text, stderr);
	if (level == GGML_LOG_LEVEL_ERROR) {
		strncpy(kept, text, sizeof kept - 1);
	}
}

// C's heap would keep a freed buffer of this size, and the next one not fit into it.
void wa_return_large_buffers(void) { mallopt(M_MMAP_THRESHOLD, 1 << 20); }

void wa_quiet(void) {
	whisper_log_set(keep, NULL);
	ggml_log_set(keep, NULL);
}

void        wa_forget_log(void) { kept[0] = 0; }
const char *wa_last_log(void) { return kept; }

struct whisper_state *wa_init_state(struct whisper_context *ctx, int64_t *bytes) {
	state_bytes = 0;
	struct whisper_state *state = whisper_init_state(ctx);
	*bytes = (int64_t)state_bytes;
	return state;
}

int wa_full(struct whisper_context *ctx, struct whisper_state *state, struct whisper_full_params params,
	    const float *samples, int n) {
	int rc = whisper_full_with_state(ctx, state, params, samples, n);
	muted = false;
	return rc;
}

static bool never(struct whisper_context *ctx, struct whisper_state *state, void *data) {
	(void)ctx;
	(void)state;
	(void)data;
	return false;
}

int wa_prepare(struct whisper_context *ctx, struct whisper_state *state, struct whisper_full_params params,
	       const float *samples, int n) {
	params.encoder_begin_callback = never;
	params.progress_callback = NULL;
	muted = true;
	int rc = whisper_full_with_state(ctx, state, params, samples, n);
	muted = false;
	return rc;
}
