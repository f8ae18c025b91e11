package model

import (
	"io"
	"math"
	"time"
)

// Phase is what is being done to a model.
type Phase string

// The phases, in the order they come in.
const (
	Checking    Phase = "checking"
	Downloading Phase = "downloading"
	Copying     Phase = "copying"
	Converting  Phase = "converting"
	Verifying   Phase = "verifying"
	Done        Phase = "done"
)

// Progress is how far a pull, an import or a verification has come.
type Progress struct {
	Phase   Phase         `json:"phase"`
	Bytes   int64         `json:"bytes"`             // of this phase
	Total   int64         `json:"total,omitempty"`   // 0 where it is not known
	Rate    float64       `json:"rate,omitempty"`    // bytes a second, smoothed over a few seconds
	Left    time.Duration `json:"left_ns,omitempty"` // 0 where it is not known
	Source  string        `json:"source,omitempty"`  // address or directory
	Attempt int           `json:"attempt,omitempty"` // 1 for the first
}

const (
	reportEvery = 200 * time.Millisecond
	smoothOver  = 3 * time.Second
)

// meter counts bytes and reports them, not more often than people can read.
type meter struct {
	report func(Progress) // nil = nobody is listening
	now    func() time.Time

	p      Progress
	shown  time.Time
	marked int64 // bytes at the time of shown
}

func newMeter(report func(Progress)) *meter { return &meter{report: report, now: time.Now} }

// phase begins a phase that already has some bytes.
func (m *meter) phase(phase Phase, bytes, total int64) {
	m.p.Phase, m.p.Bytes, m.p.Total = phase, bytes, total
	m.p.Rate, m.p.Left = 0, 0
	m.shown, m.marked = m.now(), bytes
	m.show()
}

func (m *meter) from(source string, attempt int) { m.p.Source, m.p.Attempt = source, attempt }

func (m *meter) add(n int64) {
	m.p.Bytes += n
	since := m.now().Sub(m.shown)
	if since < reportEvery {
		return
	}
	rate := float64(m.p.Bytes-m.marked) / since.Seconds()
	if m.p.Rate == 0 {
		m.p.Rate = rate
	} else {
		m.p.Rate += (rate - m.p.Rate) * (1 - math.Exp(-since.Seconds()/smoothOver.Seconds()))
	}
	m.p.Left = 0
	if m.p.Total > m.p.Bytes && m.p.Rate > 0 {
		m.p.Left = time.Duration(float64(m.p.Total-m.p.Bytes) / m.p.Rate * float64(time.Second))
	}
	m.shown, m.marked = m.now(), m.p.Bytes
	m.show()
}

func (m *meter) show() {
	if m.report != nil {
		m.report(m.p)
	}
}

// Write counts what is written to it, for io.TeeReader and io.MultiWriter.
func (m *meter) Write(b []byte) (int, error) {
	m.add(int64(len(b)))
	return len(b), nil
}

var _ io.Writer = (*meter)(nil)
