package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
	"whisper-appliance/internal/work"
)

// underway is a job beside its request. The job never waits for the request: a
// client that reads slowly would hold the engine for everybody.
type underway struct {
	news  chan struct{} // has a token while there are updates
	ended chan struct{} // closed at the end; result and err are set then

	result *transcript.Transcript
	err    error

	decoded bool // of run's goroutine alone

	mu   sync.Mutex
	todo []transcribe.Update
}

// follow starts a job, which ends with ctx. The caller waits for it.
func (s *Server) follow(ctx context.Context, job transcribe.Job) *underway {
	job.ID = requestOf(ctx)
	u := &underway{news: make(chan struct{}, 1), ended: make(chan struct{})}
	go u.run(ctx, s, job)
	return u
}

// following starts what tells of a job that is done elsewhere.
func following(tell func(observe func(transcribe.Update)) (*transcript.Transcript, error)) *underway {
	u := &underway{news: make(chan struct{}, 1), ended: make(chan struct{})}
	go func() {
		defer close(u.ended)
		u.result, u.err = tell(u.put)
	}()
	return u
}

// run does the job. A panic is this job's failure and not the server's end.
func (u *underway) run(ctx context.Context, s *Server, job transcribe.Job) {
	defer close(u.ended)
	began := time.Now()
	elsewhere := s.desk() != nil && keyOf(ctx) != "" // the desk counts it
	if !elsewhere {
		s.jobs.Add(1)
		defer s.jobs.Add(-1)
	}
	defer func() {
		if p := recover(); p != nil {
			u.err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		if !elsewhere {
			s.count(job, time.Since(began), u.result, u.err)
		}
	}()
	u.result, u.err = s.transcribe(ctx, job, u.put)
	if u.err != nil && !u.decoded {
		u.err = s.blamed(u.err)
	}
}

// transcribe does a request's job, at the desk where there is one.
func (s *Server) transcribe(ctx context.Context, job transcribe.Job, observe func(transcribe.Update)) (*transcript.Transcript, error) {
	if desk := s.desk(); desk != nil {
		return desk.Do(ctx, work.Wish{Job: job, Key: keyOf(ctx)}, observe)
	}
	return s.Service.Run(ctx, job, observe)
}

func (s *Server) desk() *work.Desk {
	if s.Desk == nil {
		return nil
	}
	return s.Desk()
}

// put adds an update. One that brings no text takes the place of the one
// before it where that brought none either, so that what waits is bounded by
// the transcript.
func (u *underway) put(next transcribe.Update) {
	u.decoded = u.decoded || next.Phase != transcribe.Decoding
	u.mu.Lock()
	last := len(u.todo) - 1
	if last >= 0 && len(u.todo[last].Segments) == 0 && u.todo[last].Phase == next.Phase {
		u.todo[last] = next
	} else {
		u.todo = append(u.todo, next)
	}
	u.mu.Unlock()
	select {
	case u.news <- struct{}{}:
	default:
	}
}

// updates takes what has come since the last call, in order.
func (u *underway) updates() []transcribe.Update {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.todo
	u.todo = nil
	return all
}

// wait waits until the job has gone: its files and its turn are then free.
func (u *underway) wait() { <-u.ended }
