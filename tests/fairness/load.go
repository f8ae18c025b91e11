package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"whisper-appliance/tests/clips"
)

// users is how many come at once. Each has a key of its own; the long files
// have two more.
const users = 10

// load is how much is asked of a server.
type load struct {
	idle   int           // clips while nothing else runs
	clips  int           // clips while two long files run
	every  time.Duration // one of these clips in so long
	rounds int           // times that ten users come at once
}

// server is what is asked: a recogniser that runs.
type server struct {
	name    string
	load    load
	long    file                                      // what runs beside the clips
	request func(user int, path string) clips.Request // user is below users+2
}

// result is how long each request to one server took.
type result struct {
	name     string
	load     load
	long     file
	idle     []time.Duration
	window   []time.Duration // a recording of 10 s, idle
	beside   []time.Duration // clips beside two long files
	crowd    []time.Duration // of all rounds
	differ   int             // clips under load with another text than idle
	finished int             // long files that came to their end meanwhile
}

// measurement is one server being asked.
type measurement struct {
	server server
	sounds sounds
	say    func(format string, args ...any)

	mu     sync.Mutex
	result result
	texts  map[string]string // of each clip, idle
}

// all asks the server for everything, in this order: one clip after the other,
// clips beside two long files, ten users beside one.
func (m *measurement) all(ctx context.Context) (*result, error) {
	m.result = result{name: m.server.name, load: m.server.load, long: m.server.long}
	m.texts = map[string]string{}
	for _, step := range []func(context.Context) error{m.idle, m.beside, m.crowd} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", m.server.name, err)
		}
	}
	return &m.result, nil
}

// idle asks for one clip after the other, and for windows of 10 s. The first
// answers, for which the model is read, are not counted.
func (m *measurement) idle(ctx context.Context) error {
	const windows = 5
	window := func(int) string { return m.sounds.window }
	var warming []time.Duration
	for _, part := range []struct {
		many int
		path func(i int) string
		to   *[]time.Duration
	}{
		{len(m.sounds.clips), m.clip, &warming},
		{1, window, &warming},
		{m.server.load.idle, m.clip, &m.result.idle},
		{windows, window, &m.result.window},
	} {
		for i := range part.many {
			path := part.path(i)
			text, took, err := m.server.request(0, path).Transcribe(ctx)
			if err != nil {
				return err
			}
			m.texts[path] = text
			*part.to = append(*part.to, took)
		}
	}
	m.say("%s, idle: %v", m.server.name, spread(m.result.idle))
	return nil
}

// clip is the i-th clip's path.
func (m *measurement) clip(i int) string { return m.sounds.clips[i%len(m.sounds.clips)] }

// beside asks for a clip every so often while two long files run.
func (m *measurement) beside(ctx context.Context) error {
	return m.whileLong(ctx, 2, func(ctx context.Context) error {
		tick := time.NewTicker(m.server.load.every)
		defer tick.Stop()
		var asked sync.WaitGroup
		failed := make(chan error, m.server.load.clips)
		for i := range m.server.load.clips {
			select {
			case <-tick.C:
			case <-ctx.Done():
				asked.Wait()
				return errors.Join(append(drain(failed), context.Cause(ctx))...)
			}
			asked.Go(func() { failed <- m.one(ctx, i%users, m.clip(i), &m.result.beside) })
		}
		asked.Wait()
		m.say("%s, beside two long files: %v", m.server.name, spread(m.result.beside))
		return errors.Join(drain(failed)...)
	})
}

// crowd has ten users ask at once, again and again, while a long file runs.
func (m *measurement) crowd(ctx context.Context) error {
	return m.whileLong(ctx, 1, func(ctx context.Context) error {
		for range m.server.load.rounds {
			wait(ctx, m.server.load.every) // what the round before has done to the line is over
			var asked sync.WaitGroup
			failed := make(chan error, users)
			for user := range users {
				asked.Go(func() { failed <- m.one(ctx, user, m.clip(user), &m.result.crowd) })
			}
			asked.Wait()
			if err := errors.Join(drain(failed)...); err != nil {
				return err
			}
		}
		m.say("%s, ten at once: %v", m.server.name, spread(m.result.crowd))
		return nil
	})
}

// one asks for one clip and notes how long it took.
func (m *measurement) one(ctx context.Context, user int, path string, to *[]time.Duration) error {
	text, took, err := m.server.request(user, path).Transcribe(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	*to = append(*to, took)
	if text != m.texts[path] {
		m.result.differ++
	}
	m.say("%s: a clip took %.3f s", m.server.name, took.Seconds())
	return nil
}

// whileLong does f while so many long files run, each begun anew when it ends,
// and hangs up on them afterwards. A long file that fails ends f.
func (m *measurement) whileLong(ctx context.Context, many int, f func(context.Context) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	var long sync.WaitGroup
	over, hangUp := context.WithCancel(ctx)
	for i := range many {
		long.Go(func() {
			for over.Err() == nil {
				_, _, err := m.server.request(users+i, m.server.long.path).Transcribe(over)
				if err != nil && over.Err() == nil {
					fail(fmt.Errorf("the long file: %w", err))
				}
				if err == nil {
					m.mu.Lock()
					m.result.finished++
					m.mu.Unlock()
				}
			}
		})
	}
	err := f(ctx)
	hangUp()
	long.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	fail(nil)
	return err
}

// wait waits for so long, or to the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// drain is what was put into a channel so far.
func drain(failed chan error) (list []error) {
	for range len(failed) {
		list = append(list, <-failed)
	}
	return list
}
