package server

import (
	"maps"
	"sync"
	"time"
)

// Bounds of what is remembered of errors.
const (
	recentErrors = 20
	errorCodes   = 100 // codes that are counted apart; ours are fewer
	errorWindow  = 5 * time.Minute
	errorSlot    = 10 * time.Second // of the rolling rate
)

// Mistakes is what went wrong since the start, without anything that a client sent.
type Mistakes struct {
	Recent []Mistake        `json:"recent" doc:"The last answers with a status of 500 and above, the newest first; at most 20."`
	Rate   float64          `json:"rate" doc:"Answers with a status of 500 and above, a minute, over the last 5 minutes."`
	Counts map[string]int64 `json:"counts" doc:"Errors by their code since the start, those of clients included."`
}

// Mistake is one answer that was an error.
type Mistake struct {
	Time   time.Time `json:"time"`
	Code   string    `json:"code"`
	Status int       `json:"status"`
	Door   string    `json:"door" doc:"The door's pattern, not the path that was asked for."`
}

// mistakes counts. The zero value is ready.
type mistakes struct {
	mu     sync.Mutex
	counts map[string]int64
	recent []Mistake // the newest last
	slots  [errorWindow / errorSlot]struct{ at, n int64 }
}

// note counts an error with the status it is answered with.
func (m *mistakes) note(now time.Time, code string, status int, door string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counts == nil {
		m.counts = map[string]int64{}
	}
	if _, known := m.counts[code]; !known && len(m.counts) >= errorCodes {
		code = otherRoute
	}
	m.counts[code]++
	if status < 500 {
		return
	}
	if len(m.recent) == recentErrors {
		m.recent = m.recent[1:]
	}
	m.recent = append(m.recent, Mistake{Time: now.UTC(), Code: code, Status: status, Door: door})
	at := now.UnixNano() / int64(errorSlot)
	slot := &m.slots[at%int64(len(m.slots))]
	if slot.at != at {
		slot.at, slot.n = at, 0
	}
	slot.n++
}

// sum is all there is to tell.
func (m *mistakes) sum(now time.Time) Mistakes {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := Mistakes{Recent: make([]Mistake, 0, len(m.recent)), Counts: map[string]int64{}}
	maps.Copy(out.Counts, m.counts)
	for i := len(m.recent) - 1; i >= 0; i-- {
		out.Recent = append(out.Recent, m.recent[i])
	}
	oldest := now.UnixNano()/int64(errorSlot) - int64(len(m.slots))
	n := int64(0)
	for _, slot := range m.slots {
		if slot.at > oldest {
			n += slot.n
		}
	}
	out.Rate = float64(n) / errorWindow.Minutes()
	return out
}
