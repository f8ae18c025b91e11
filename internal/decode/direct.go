package decode

import (
	"context"
	"io"
	"os"

	"whisper-appliance/internal/audio"
)

// direct copies the sound of a WAV that fits. It returns audio.ErrNotWAV, and
// has written nothing, where the file needs a decoder.
func direct(ctx context.Context, f *os.File, l Limits, sink io.Writer) (Info, error) {
	st, err := f.Stat()
	if err != nil {
		return Info{}, inWords(err, l)
	}
	w, err := audio.ParseWAV(f, st.Size())
	if err != nil {
		return Info{}, err
	}
	if !audio.FitsWAV(w) {
		return Info{}, audio.ErrNotWAV
	}
	if l.MaxDuration > 0 && w.Duration() > l.MaxDuration {
		return Info{}, inWords(fail(CodeTooLong, "%v", w.Duration()), l)
	}
	if _, err := audio.ReadWAV(f, st.Size(), whileWanted{ctx, sink}); ctx.Err() != nil {
		return Info{}, inWords(stopped(ctx), l)
	} else if err != nil {
		return Info{}, err
	}
	info := Info{Duration: w.Duration(), Format: "wav", Codec: "pcm_s16le", SampleRate: w.SampleRate, Channels: w.Channels, Direct: true}
	if w.Bits == 32 {
		info.Codec = "pcm_f32le"
	}
	if w.Truncated {
		info.Note = endsEarly(info.Duration)
	}
	return info, nil
}

// whileWanted is a sink that fails once nobody waits for it any more.
type whileWanted struct {
	ctx  context.Context
	sink io.Writer
}

func (w whileWanted) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.sink.Write(p)
}
