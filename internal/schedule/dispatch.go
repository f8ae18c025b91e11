package schedule

import (
	"cmp"
	"slices"
	"time"
)

// rank orders who waits, across the classes. Who has waited too long goes before
// everybody but who speaks just now.
type rank int

const (
	overdue rank = rank(Short) + 1
	live    rank = overdue + 1
)

// ageing is how long nobody of a class may be served until those who wait in it
// count as one rank higher, at most as overdue. Within a class it changes nothing:
// there, who waits long does so because he had much. Without it a stream of short
// recordings would be the end of a long one.
func ageing(c Class) time.Duration {
	if c == Background {
		return 20 * time.Second
	}
	return 2 * time.Second
}

// rank is that of t's class, raised by its waiting.
func (q *Queue) rank(t *Turn, now time.Time) rank {
	class := t.ask.Class
	if class == Live {
		return live
	}
	since := t.asked
	if last := q.served[class]; last.After(since) {
		since = last
	}
	return min(overdue, rank(class)+rank(now.Sub(since)/ageing(class)))
}

// inOrder lists who waits, the next one first; mu is held.
func (q *Queue) inOrder(now time.Time) []*Turn {
	list := slices.Clone(q.waiting)
	slices.SortStableFunc(list, func(a, b *Turn) int {
		aOwner, aJob := q.shares(a.ask, now)
		bOwner, bJob := q.shares(b.ask, now)
		return cmp.Or(cmp.Compare(q.rank(b, now), q.rank(a, now)), cmp.Compare(aOwner, bOwner), cmp.Compare(aJob, bJob))
	})
	return list
}

// dispatch gives turns as long as somebody can have one; mu is held.
func (q *Queue) dispatch() {
	for q.grant(time.Now()) {
	}
}

// grant gives one turn, to the first in order who finds a free lane. Who needs
// another model is passed over while that may not be changed, and holds
// everybody up once it may: the lanes must come to rest for it.
func (q *Queue) grant(now time.Time) bool {
	for _, t := range q.inOrder(now) {
		if q.loaded.other(t.ask.Model) {
			if q.stays(t, now) > 0 { // the end of a turn with that model looks again
				continue
			}
			if q.busy() {
				return false
			}
		}
		lane := q.laneOf(t.ask)
		if q.running[lane] == nil {
			q.begin(t, lane, now)
			return true
		}
	}
	return false
}

// begin gives t its turn.
func (q *Queue) begin(t *Turn, lane Lane, now time.Time) {
	q.waiting = slices.DeleteFunc(q.waiting, func(w *Turn) bool { return w == t })
	if t.ask.Model != "" && t.ask.Model != q.loaded.model {
		q.loaded = residence{model: t.ask.Model, since: now}
	}
	if t.ask.Class >= Short && !q.twoLanes(t.ask.Model) {
		q.shorts = now
	}
	q.served[t.ask.Class] = now
	q.began(t.ask)
	t.lane, t.began = lane, now
	q.running[lane] = t
	close(t.ready)
}

func (q *Queue) busy() bool {
	return q.running[LongLane] != nil || q.running[ShortLane] != nil
}

// laneOf is the lane that an ask goes to. A short window keeps to the short lane
// even while the long one is free: there, beside it, it would hardly get on.
func (q *Queue) laneOf(ask Ask) Lane {
	if ask.Class >= Short && ask.Length <= ShortWindow && q.twoLanes(ask.Model) {
		return ShortLane
	}
	return LongLane
}

func (q *Queue) twoLanes(model string) bool {
	return q.TwoLanes != nil && time.Now().After(q.oneLane) && q.TwoLanes(model)
}

// residence is the model in memory.
type residence struct {
	model string
	since time.Time
	took  time.Duration // to load it, 0 where that is not known
}

func (r residence) other(model string) bool { return model != "" && r.model != "" && r.model != model }

// How long a model stays while others wait for it, in times of what loading it
// took: for as urgent a window of another model, and for a more urgent one.
const (
	stayForEqual  = 10
	stayForUrgent = 3
)

// stays is how long the model in memory stays before t may have its own. Where
// nobody else needs it, it does not.
func (q *Queue) stays(t *Turn, now time.Time) time.Duration {
	most, needed := rank(Background), false
	for _, other := range slices.Concat(q.waiting, q.running[:]) {
		if other != nil && !q.loaded.other(other.ask.Model) {
			most, needed = max(most, q.rank(other, now)), true
		}
	}
	if !needed {
		return 0
	}
	factor := time.Duration(stayForEqual)
	if q.rank(t, now) > most {
		factor = stayForUrgent
	}
	return factor*q.loaded.took - now.Sub(q.loaded.since)
}
