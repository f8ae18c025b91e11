package transcribe

import (
	"context"
	"time"

	"whisper-appliance/internal/audio"
)

// language tells the language of the first speech, 30 s of it at most. Where
// nobody speaks there is none. It is kept as a window without text, for those
// who ask for the job's result later.
func (r *run) language(ctx context.Context) error {
	if r.at > 0 {
		return nil // it is known from before
	}
	w, ok, err := r.next()
	if err != nil || !ok {
		return err
	}
	pcm, err := r.pcm.ReadWindow(w.Start, w.End)
	if err != nil {
		return err
	}
	h, err := r.attempt(ctx, w, pcm, r.request(w))
	if err != nil {
		return describe(ctx, err, r.job, w)
	}
	r.result.Language = h.language
	r.at, r.done = w.Speech[len(w.Speech)-1].End, w.End
	if err := r.keep(w, nil, nil); err != nil {
		return err
	}
	r.observe(Update{Phase: Recognising, Done: r.done, Total: r.result.Duration, Language: h.language, LanguageProb: r.sure})
	return nil
}

// enough tells whether the first window is known: speech was found, and what
// follows for as long as a window may last was heard.
func enough(spans []audio.Span, heard time.Duration) bool {
	return len(spans) > 0 && heard >= spans[0].Start+audio.MaxWindow
}
