package transcribe

import (
	"io"
	"math"

	"whisper-appliance/internal/audio"
)

// within is the sink for the sound of a job that asks for a stretch of its
// recording: the rest of it becomes silence, which is not decoded.
func within(job Job, sink io.Writer) io.Writer {
	if job.From == 0 && job.Until == 0 {
		return sink
	}
	m := &muted{sink: sink, from: audio.SamplesIn(job.From) * audio.SampleSize, until: math.MaxInt64}
	if job.Until > 0 {
		m.until = audio.SamplesIn(job.Until) * audio.SampleSize
	}
	return m
}

// muted writes zeros for all bytes but those of a stretch.
type muted struct {
	sink        io.Writer
	at          int64
	from, until int64
}

// Write is io.Writer's.
func (m *muted) Write(p []byte) (int, error) {
	loud := make([]byte, len(p))
	first := min(max(m.from-m.at, 0), int64(len(p)))
	last := max(min(m.until-m.at, int64(len(p))), first)
	copy(loud[first:last], p[first:last])
	n, err := m.sink.Write(loud)
	m.at += int64(n)
	return n, err
}
