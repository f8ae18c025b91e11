package schedule

import (
	"math"
	"time"

	"whisper-appliance/internal/fault"
)

// Enter takes one of the places for recordings. leave gives it back and is
// called once. Where there is none left the error is a fault that says how many
// are before, and when to try again.
func (q *Queue) Enter(owner string) (leave func(), err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	total := q.total()
	switch {
	case full(q.Most, total):
		return nil, q.refused(fault.New(fault.Busy, "queue_full", "%d recordings are being transcribed or wait for it; no more are taken at once", total))
	case full(q.OwnersMost, q.inside[owner]):
		return nil, q.refused(fault.New(fault.Busy, "queue_full_for_you", "%d recordings of yours are being transcribed or wait for it; no more of one caller's are taken at once", q.inside[owner]))
	}
	if q.inside == nil {
		q.inside = map[string]int{}
	}
	q.inside[owner]++
	entered := time.Now()
	return func() { q.left(owner, time.Since(entered)) }, nil
}

func full(most func() int, n int) bool {
	return most != nil && most() > 0 && n >= most()
}

// Inside is how many recordings are being transcribed or wait for it.
func (q *Queue) Inside() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total()
}

func (q *Queue) total() (total int) {
	for _, n := range q.inside {
		total += n
	}
	return total
}

// left gives a place back, and learns how fast places become free.
func (q *Queue) left(owner string, took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	total := q.total()
	if q.inside[owner]--; q.inside[owner] == 0 {
		delete(q.inside, owner)
	}
	const weight = 8 // the last of so many counts as much as those before it
	each := took / time.Duration(total)
	if q.pace == 0 {
		q.pace = each
	}
	q.pace += (each - q.pace) / weight
}

// Bounds of the time after which a caller is told to try again.
const (
	againLeast = time.Second
	againMost  = 5 * time.Minute
)

// refused tells when a place will be free, going by how fast they became so.
func (q *Queue) refused(f *fault.Error) error {
	again := min(max(q.pace, againLeast), againMost)
	seconds := int(math.Ceil(again.Seconds()))
	f.After = time.Duration(seconds) * time.Second
	return f.Try("send it again in %d s", seconds)
}
