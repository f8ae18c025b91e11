package transcribe

import (
	"context"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/transcript"
)

// A short window need not pay for the encoder's 30 s. With less than
// contextFloor positions it loops, and so it does where speech goes on to the
// very end of what it hears. The step is that of whisper.cpp's flash attention,
// which fills a context up to it with what the window before has left there:
// out of step, 28 clips had 76 errors, in step 52.
const (
	contextFloor  = 512
	contextStep   = 256
	contextMargin = 64
	contextMost   = 1024 // beyond that little is to be gained
	position      = 20 * time.Millisecond
)

// encoderContext is the encoder's context for a window, in positions; 0 = all.
func encoderContext(length time.Duration) int {
	need := int((length+position-1)/position) + contextMargin
	steps := (max(contextFloor, need) + contextStep - 1) / contextStep
	if steps*contextStep > contextMost {
		return 0
	}
	return steps * contextStep
}

// noFallback keeps whisper.cpp from trying other temperatures by itself: it
// sees less of what is wrong than we do.
const noFallback = -1

// request is how a window is decoded at first.
func (r *run) request(w audio.Window) engine.WindowRequest {
	req := engine.WindowRequest{
		Model: r.job.ModelFile, Language: r.result.Language, Translate: r.job.Task == transcript.Translate,
		Prompt: r.job.Prompt, Temperature: float32(r.job.Temperature), Words: r.job.Words,
		BeamSize: r.job.BeamSize, BestOf: r.job.BestOf, Threads: r.job.Threads,
		OnePass: !r.job.OneLook && !r.job.EachLanguage, // of the rest nobody could tell the language
	}
	if r.job.EachLanguage {
		req.Language = r.job.Language
	}
	if r.job.PreviousText {
		req.Prompt = strings.TrimSpace(req.Prompt + " " + r.prompt)
	}
	if !r.job.FullContext {
		req.AudioCtx = encoderContext(w.Length())
	}
	if !r.job.OneLook {
		req.TemperatureInc = noFallback
	}
	return req
}

// hear decodes a window, and once more where somebody spoke and no text is. It
// gives the part of the window that the result is of, too.
func (r *run) hear(ctx context.Context, w audio.Window, pcm []float32) (heard, audio.Window, error) {
	req := r.request(w)
	if r.job.OneLook {
		h, err := r.attempt(ctx, w, pcm, req)
		return h, w, err
	}
	h, err := r.listen(ctx, w, pcm, req)
	if err != nil {
		return h, w, err
	}
	part := h.reached(w)
	if part.Spoken() < min(w.Spoken(), leastSpeech) { // too little to go on from
		req.OnePass, part = false, w
		if h, err = r.listen(ctx, w, pcm, req); err != nil {
			return h, w, err
		}
	}
	if r.detected && h.flaw.mild() {
		req.Language = h.language
		h, err = r.complete(ctx, part, pcm, req, h)
	}
	r.prompt = r.believed(h)
	return h, part, err
}

// listen decodes a window, again where the result looks wrong.
func (r *run) listen(ctx context.Context, w audio.Window, pcm []float32, req engine.WindowRequest) (heard, error) {
	h, err := r.attempt(ctx, w, pcm, req)
	if err != nil {
		return h, err
	}
	req.Language = h.language // what was detected once holds for the window
	return r.again(ctx, w, pcm, req, h.look(r.spoken(w)))
}

// reached is the part of w that the text reaches. What the model has left at the
// end, often a sentence that goes on, is heard better and sooner in the next
// window than in an encoder's pass of its own.
func (h heard) reached(w audio.Window) audio.Window {
	if h.until == 0 {
		return w
	}
	part := w.Before(w.Start+h.until, leastRest)
	if w.Spoken()-part.Spoken() < leastRest {
		return w
	}
	return part
}

// again decodes a window anew as long as the result looks wrong: with the whole
// context, then at rising temperatures, as Whisper defines it. It gives the best.
func (r *run) again(ctx context.Context, w audio.Window, pcm []float32, req engine.WindowRequest, best heard) (heard, error) {
	for _, next := range fallbacks(req) {
		// A higher temperature makes words up where none were heard.
		hotter := next.Temperature > req.Temperature
		if best.flaw == fine || hotter && (r.job.Steady || best.flaw == wordless || best.flaw.mild()) {
			break
		}
		r.Log.Debug("window looks wrong; decoding it anew", "job", r.job.ID, "start", w.Start,
			"flaw", string(best.flaw), "context", next.AudioCtx, "temperature", next.Temperature)
		h, err := r.attempt(ctx, w, pcm, next)
		if err != nil {
			return h, err
		}
		h = h.look(r.spoken(w))
		if next.Prompt == "" && h.confirms(best, r.spoken(w)) { // the prompt may be what it repeats
			best.flaw = fine
		} else if h.better(best) {
			best = h
		}
	}
	return best, nil
}

// fallbacks are the requests to follow req, in order.
func fallbacks(req engine.WindowRequest) []engine.WindowRequest {
	var list []engine.WindowRequest
	if req.AudioCtx != 0 {
		req.AudioCtx = 0
		list = append(list, req)
	}
	req.Prompt = "" // whose words may be what it repeats
	const step, most = 0.2, 1.0
	for t := req.Temperature + step; t < most+1e-3; t += step { // they do not add up exactly
		req.Temperature = min(t, most)
		list = append(list, req)
	}
	return list
}

// complete decodes what of a window's speech brought no text as windows of
// their own, and puts what comes between the rest.
func (r *run) complete(ctx context.Context, w audio.Window, pcm []float32, req engine.WindowRequest, h heard) (heard, error) {
	const margin = 200 * time.Millisecond
	req.AudioCtx, req.OnePass = 0, false
	for _, s := range missed(w, h.segments) {
		part := audio.Window{Start: max(w.Start, s.Start-margin), End: min(w.End, s.End+margin), Speech: []audio.Span{s}}
		from := part.Start - w.Start
		got, err := r.attempt(ctx, part, pcm[audio.SamplesIn(from):min(audio.SamplesIn(part.End-w.Start), int64(len(pcm)))], req)
		if err != nil {
			return h, err
		}
		h.segments = h.with(got.look(s.Length()), from)
	}
	return h, nil
}

// with is h's segments and those of a part that begins from in its window, where
// they can be believed and are not there already.
func (h heard) with(part heard, from time.Duration) []piece {
	if part.flaw != fine || strings.TrimSpace(part.plain()) == "" || h.says(part) {
		return h.segments
	}
	segments := slices.Clone(h.segments)
	at := slices.IndexFunc(segments, func(s piece) bool { return s.Start >= from })
	if at < 0 {
		at = len(segments)
	} else {
		segments[at].seam = true
	}
	part.segments[0].seam = true
	for i := range part.segments {
		part.segments[i].shift(from)
	}
	return slices.Insert(segments, at, part.segments...)
}

// shift moves all times of s.
func (s *piece) shift(by time.Duration) {
	s.Start, s.End = s.Start+by, s.End+by
	for i := range s.Words {
		s.Words[i].Start, s.Words[i].End = s.Words[i].Start+by, s.Words[i].End+by
	}
	for i := range s.Tokens {
		s.Tokens[i].Start, s.Tokens[i].End = s.Tokens[i].Start+by, s.Tokens[i].End+by
	}
}

// says tells whether the words of part are h's already: the times of its
// segments were wrong then, not its text.
func (h heard) says(part heard) bool {
	all, more := h.plain(), part.plain()
	if strings.ContainsFunc(more, transcript.UnspacedRune) {
		more = strings.TrimSpace(more)
	}
	return strings.Contains(all, more)
}

// plain is the text in small letters, with a space around each word.
func (h heard) plain() string {
	var b strings.Builder
	for _, s := range h.segments {
		b.WriteString(s.Text)
	}
	words := strings.FieldsFunc(strings.ToLower(b.String()), func(r rune) bool { return !wordRune(r) })
	return " " + strings.Join(words, " ") + " "
}

// spoken is how much speech is known to be in w: what is loud may be anything.
func (r *run) spoken(w audio.Window) time.Duration {
	if !r.detected {
		return 0
	}
	return w.Spoken()
}

// promptRunes is how much of a window's text the next one is prompted with.
const promptRunes = 200

// believed is what the next window is prompted with: the end of a text that can be
// believed. What was made up must not spread.
func (r *run) believed(h heard) string {
	if !h.flaw.mild() || h.temperature > 0.5 {
		return ""
	}
	var b strings.Builder
	for _, s := range h.segments {
		b.WriteString(s.Text)
	}
	runes := []rune(strings.TrimSpace(b.String()))
	return string(runes[max(0, len(runes)-promptRunes):])
}
