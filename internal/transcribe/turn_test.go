package transcribe

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
)

// TestJobsTakeTurns: while two jobs have windows left, they alternate.
func TestJobsTakeTurns(t *testing.T) {
	var s *Service
	var left atomic.Int32 // jobs with windows left
	left.Store(2)
	counts := map[string]int{}
	e := &fakeEngine{}
	e.answer = func(ctx context.Context, n int, k call, observe func(engine.Event)) (engine.Done, error) {
		// Nothing is decoded before the other job stands in line.
		eventually(t, "the other job asking for its turn", func() bool { return s.Waiting() > 0 || left.Load() < 2 })
		if counts[k.req.Prompt]++; counts[k.req.Prompt] == 3 {
			left.Add(-1)
		}
		return says("x", "en")(ctx, n, k, observe)
	}
	s = service(t, e, threeWindows())
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		wg.Go(func() {
			if _, err := s.Run(t.Context(), Job{Prompt: name}, ignore); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var order []string
	for _, k := range e.seen() {
		order = append(order, k.req.Prompt)
	}
	first, second := order[0], "ab"[1-int(order[0][0]-'a')]
	want := []string{first, string(second), first, string(second), first, string(second)}
	if !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	wantFree(t, s)
}

// TestCancelledWaiter: one that leaves the line does not hold it up.
func TestCancelledWaiter(t *testing.T) {
	release := make(chan struct{})
	e := &fakeEngine{answer: func(ctx context.Context, n int, k call, observe func(engine.Event)) (engine.Done, error) {
		if k.req.Prompt == "first" {
			<-release
		}
		return says(k.req.Prompt, "en")(ctx, n, k, observe)
	}}
	s := service(t, e, sound(3))
	start := func(ctx context.Context, name string, waiting int) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := s.Run(ctx, Job{Prompt: name}, ignore)
			done <- err
		}()
		eventually(t, name+" standing in line", func() bool { return len(e.seen()) > 0 && s.Waiting() == waiting })
		return done
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := start(t.Context(), "first", 0)
	second := start(ctx, "second", 1)
	third := start(t.Context(), "third", 2)
	cancel()
	wantFault(t, <-second, fault.Canceled, "canceled")
	if n := s.Waiting(); n != 1 {
		t.Errorf("%d wait, want the third alone", n)
	}
	close(release)
	for name, done := range map[string]<-chan error{"first": first, "third": third} {
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(e.seen()); n != 2 {
		t.Errorf("%d windows were decoded, want 2: nobody waits for the second's", n)
	}
	wantFree(t, s)
}
