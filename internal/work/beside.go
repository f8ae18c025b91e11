package work

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/transcribe"
)

// besideMost is how many writes may wait for the store. A request does not wait
// for it: what comes when the list is full is left out, and with it the rest.
const besideMost = 64

// beside stores a request's own job while it is being done. Where the store
// fails, the request goes on without: it would only be missed after a crash.
type beside struct {
	desk  *Desk
	todo  chan func() error // in order
	id    atomic.Pointer[string]
	media string // set before id
	leave func()
	next  int
	begun chan struct{} // closed when the recording is no longer needed here
	gone  chan struct{} // closed when the last write is done
	full  bool
}

// job is the id, "" until it is known.
func (b *beside) job() string {
	if id := b.id.Load(); id != nil {
		return *id
	}
	return ""
}

// begin stores the job. The work does not wait for that.
func (b *beside) begin(ctx context.Context, w Wish, cancel context.CancelCauseFunc) {
	b.begun, b.gone, b.leave = make(chan struct{}), make(chan struct{}), func() {}
	stored := context.WithoutCancel(ctx) // what is begun is removed at the end
	b.put(func() error {
		n, err := b.recorded(ctx, w)
		close(b.begun)
		if err != nil {
			return err
		}
		n.Claim = b.desk.Self
		j, _, err := b.desk.Store.Add(stored, n)
		if err != nil {
			b.desk.remove(n.Media) //nolint:errcheck // the sweep finds it
			return err
		}
		b.media = n.Media
		b.leave = b.desk.enter(j.ID, true, cancel)
		b.id.Store(&j.ID)
		return nil
	})
	go b.write(w.Job.ID)
}

// recorded keeps the recording, unless the request is over already.
func (b *beside) recorded(ctx context.Context, w Wish) (job.New, error) {
	if ctx.Err() != nil {
		return job.New{}, context.Cause(ctx)
	}
	n, err := b.desk.new(w)
	if err == nil {
		n.Media, err = b.desk.keep(w.Job.Audio)
	}
	return n, err
}

// write does what is to be stored, in order, up to the first failure.
func (b *beside) write(request string) {
	defer close(b.gone)
	var failed error
	beatAt := time.NewTicker(beat)
	defer beatAt.Stop()
	for {
		select {
		case f, more := <-b.todo:
			if !more {
				return
			}
			if failed == nil {
				if failed = f(); failed != nil {
					b.desk.Log.Warn("the request's job is not stored; after a crash it would have to be sent again", "request", request, "error", failed)
				}
			}
		case <-beatAt.C:
			if id := b.job(); id != "" && failed == nil {
				_, failed = b.desk.Store.Renew(context.Background(), id, b.desk.Self)
			}
		}
	}
}

func (b *beside) put(f func() error) {
	if b.full {
		return
	}
	select {
	case b.todo <- f:
	default:
		b.full = true
	}
}

// end removes the job: its caller has the transcript, or has left, and may
// close the recording once this returns.
func (b *beside) end() {
	close(b.todo)
	<-b.begun
	b.desk.doing.Go(func() {
		<-b.gone
		b.leave()
		if id := b.job(); id != "" {
			b.drop(id)
		}
	})
}

func (b *beside) drop(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	err := b.desk.Store.Drop(ctx, id, b.desk.Self)
	if err == nil {
		err = b.desk.remove(b.media)
	}
	if err != nil {
		b.desk.Log.Warn("the request's job cannot be removed", "job", id, "error", err)
	}
}

// Plan is transcribe.Keeper's.
func (b *beside) Plan(p transcribe.Plan) error {
	b.put(func() error {
		data, err := json.Marshal(p)
		if err == nil {
			_, err = b.desk.Store.Plan(context.Background(), b.job(), b.desk.Self, job.Plan{Duration: p.Duration, Plan: data})
		}
		return err
	})
	return nil
}

// Window is transcribe.Keeper's.
func (b *beside) Window(f transcribe.Finished) error {
	index := b.next
	b.next++
	b.put(func() error {
		data, err := json.Marshal(f)
		if err == nil {
			_, err = b.desk.Store.Window(context.Background(), b.job(), b.desk.Self,
				job.Window{Index: index, Start: f.Start, End: f.End, Result: data}, f.Language)
		}
		return err
	})
	return nil
}

func canceled() *fault.Error {
	return fault.New(fault.Canceled, "canceled", "the transcription was cancelled")
}
