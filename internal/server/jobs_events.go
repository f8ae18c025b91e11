package server

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
	"whisper-appliance/internal/work"
)

// followsOfOne is how many streams of jobs one caller may follow at once. The
// updates' are counted apart: nobody shuts out who watches those.
const followsOfOne = 16

// follows is the streams of jobs, by whose they are. The zero value is ready.
type follows struct {
	mu sync.Mutex
	by map[string]int
}

// enter counts a stream in, where there is room; leave is called once.
func (f *follows) enter(share string) (leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.by[share]; n >= followsOfOne {
		return nil, fault.New(fault.Busy, "too_many_streams", "you follow %d jobs already, and one caller can follow no more at once", n).
			Try("close one of the streams, such as a page that is open elsewhere; GET /api/v1/jobs/ID tells the same when asked")
	}
	if f.by == nil {
		f.by = map[string]int{}
	}
	f.by[share]++
	return func() { f.leave(share) }, nil
}

func (f *follows) leave(share string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by[share]--; f.by[share] == 0 {
		delete(f.by, share)
	}
}

// jobEvents follows a job from its first segment, or from the one after
// Last-Event-ID, to its end. Who comes back after that gets the end again.
func (s *Server) jobEvents(w http.ResponseWriter, r *http.Request) error {
	desk, j, err := s.mine(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if onlyHead(r) {
		beginSSE(w)
		return nil
	}
	leave, err := s.follows.enter(accessOf(r.Context()).Share())
	if err != nil {
		return err
	}
	defer leave()
	skip, _ := strconv.Atoi(r.Header.Get(lastEventHeader)) //nolint:errcheck // anything else is from the beginning
	ctx, cancel := context.WithCancel(r.Context())
	run := following(func(observe func(transcribe.Update)) (*transcript.Transcript, error) {
		return desk.Attend(ctx, j.ID, observe)
	})
	defer run.wait()
	defer cancel()
	out := &jobStream{sse: beginSSE(w), server: s, desk: desk, id: j.ID, skip: skip}
	alive, look := time.NewTicker(aliveEvery), time.NewTicker(statusEvery)
	defer alive.Stop()
	defer look.Stop()
	for {
		select {
		case <-run.news:
			out.take(ctx, run.updates())
		case <-alive.C:
			out.keepAlive()
		case <-look.C:
			if out.job(ctx); s.draining.Load() {
				return nil // who follows comes back to the next server
			}
		case <-run.ended:
			out.take(ctx, run.updates())
			out.end(s, r, run)
			return nil
		}
	}
}

// jobStream writes a job's events.
type jobStream struct {
	*sse
	server *Server
	desk   *work.Desk
	id     string
	skip   int // segments that the client has
	sent   int // segments, those that it had included
	state  string
}

func (o *jobStream) take(ctx context.Context, updates []transcribe.Update) {
	o.job(ctx)
	for _, u := range updates {
		if u.Phase != "" {
			p := api.Progress{Phase: string(u.Phase), Done: u.Done.Seconds(), Total: u.Total.Seconds(), Language: u.Language}
			if now, here := o.desk.Progress(o.id); here && u.Phase == work.Fetching {
				p.Fetched, p.Size = now.Fetched, now.Size
			}
			o.send(api.EventProgress, p)
		}
		for _, seg := range u.Segments {
			if o.sent++; o.sent > o.skip {
				o.sendAs(strconv.Itoa(o.sent), api.EventSegment, seg)
			}
		}
	}
}

// job tells of the job where its state has changed.
func (o *jobStream) job(ctx context.Context) {
	j, err := o.desk.Store.Glance(ctx, o.id)
	if err != nil || string(j.State) == o.state {
		return
	}
	shown, err := o.server.show(ctx, o.desk, j)
	if err != nil {
		return // the next look brings it
	}
	o.state = shown.State
	o.send(api.EventJob, shown)
}

func (o *jobStream) end(s *Server, r *http.Request, run *underway) {
	if run.err != nil {
		o.send(api.EventError, plainBody(wordsOf(run.err)))
		return
	}
	o.send(api.EventDone, api.DoneOf(run.result))
}
