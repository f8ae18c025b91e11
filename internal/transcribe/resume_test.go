package transcribe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcript"
)

// keeper keeps what it is told as JSON, as a database would, and fails from the
// nth window on.
type keeper struct {
	plan    []byte
	windows [][]byte
	fails   int // < 0 = never
}

var errKeeper = errors.New("the disk is full")

func (k *keeper) Plan(p Plan) (err error) {
	k.plan, err = json.Marshal(p)
	return err
}

func (k *keeper) Window(f Finished) error {
	if len(k.windows) == k.fails {
		return errKeeper
	}
	data, err := json.Marshal(f)
	k.windows = append(k.windows, data)
	return err
}

// kept is what the next process reads.
func (k *keeper) kept(t *testing.T) *Resume {
	t.Helper()
	if k.plan == nil {
		return nil
	}
	r := &Resume{Finished: make([]Finished, len(k.windows))}
	err := json.Unmarshal(k.plan, &r.Plan)
	for i, data := range k.windows {
		err = errors.Join(err, json.Unmarshal(data, &r.Finished[i]))
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// reports answers each window with a text that depends on where its speech is and
// on what it was asked with, in two segments with words
// that leave nothing out.
func reports(_ context.Context, _ int, c call, observe func(engine.Event)) (engine.Done, error) {
	text := fmt.Sprintf("%d samples after %08x.", len(c.pcm), crc32.ChecksumIEEE([]byte(c.req.Prompt)))
	half := audio.Duration(int64(len(c.pcm))) / 2
	for i, s := range []string{" Ä " + text, "日本"} {
		at := time.Duration(i) * half
		observe(engine.Event{Segment: &engine.Segment{
			Start: at, End: at + half, Text: s, AvgLogProb: -0.1 / 3, NoSpeechProb: 1e-9,
			Words:  []engine.Word{{Start: at, End: at + time.Second/3, Text: s, Prob: 1.0 / 3}},
			Tokens: []engine.Token{{ID: i}, {ID: 2}},
		}})
	}
	return engine.Done{Language: "de"}, nil
}

// TestResume interrupts a job after each number of windows, and before the
// first: it goes on there, and comes to the same transcript.
func TestResume(t *testing.T) {
	pcm := sound(10, -15, 10, -15, 10, -15, 45, -6, 3)
	job := func(k Keeper, from *Resume) Job {
		return Job{Model: "tiny", PreviousText: true, Words: true, Keep: k, Resume: from}
	}
	whole := &keeper{fails: -1}
	e := &fakeEngine{answer: reports}
	want, err := detecting(t, e, &fakeDetector{}, pcm).Run(t.Context(), job(whole, nil), ignore)
	if err != nil {
		t.Fatal(err)
	}
	total := len(e.seen())
	if total != len(whole.windows) || total < 6 {
		t.Fatalf("%d windows, %d kept", total, len(whole.windows))
	}
	for n := range total + 1 {
		k := &keeper{fails: n}
		if _, err := detecting(t, &fakeEngine{answer: reports}, &fakeDetector{}, pcm).Run(t.Context(), job(k, nil), ignore); n < total && !errors.Is(err, errKeeper) {
			t.Fatalf("the keeper's error got lost: %v", err)
		}
		from := k.kept(t)
		k.fails = -1
		e, d := &fakeEngine{answer: reports}, &fakeDetector{}
		var segments []transcript.Segment
		got, err := detecting(t, e, d, pcm).Run(t.Context(), job(k, from), func(u Update) { segments = append(segments, u.Segments...) })
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("after %d windows: got %+v\nwant %+v", n, got, want)
		}
		if !reflect.DeepEqual(segments, want.Segments) {
			t.Errorf("after %d windows the updates brought other segments", n)
		}
		if calls := len(e.seen()); calls != total-n || len(d.calls) != 0 {
			t.Errorf("after %d windows %d were decoded, and speech was looked for %d times; want %d and 0", n, calls, len(d.calls), total-n)
		}
		if !reflect.DeepEqual(k.windows, whole.windows) {
			t.Errorf("after %d windows something else was kept", n)
		}
	}
}

// TestKeeperFails: what cannot be kept is nobody's to see.
func TestKeeperFails(t *testing.T) {
	k := &keeper{fails: 1}
	s := service(t, &fakeEngine{answer: reports}, threeWindows())
	n := 0
	_, err := s.Run(t.Context(), Job{Keep: k}, func(u Update) {
		if len(u.Segments) > 0 {
			n++
		}
	})
	if !errors.Is(err, errKeeper) || n != 1 {
		t.Errorf("got %v after %d windows were seen", err, n)
	}
	wantFree(t, s)
}

// TestShortLaneWithoutMemory: the window is decoded in the long one.
func TestShortLaneWithoutMemory(t *testing.T) {
	e := &fakeEngine{}
	e.answer = func(ctx context.Context, n int, c call, observe func(engine.Event)) (engine.Done, error) {
		if n == 0 {
			return engine.Done{}, &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
		}
		return says("x", "en")(ctx, n, c, observe)
	}
	s := service(t, e, sound(3))
	s.Queue.TwoLanes = func(string) bool { return true }
	got, err := s.Run(t.Context(), Job{Class: schedule.Short}, ignore)
	if err != nil || got.Text() != "x" || len(e.seen()) != 2 {
		t.Errorf("got %+v, %v after %d calls", got, err, len(e.seen()))
	}
	e.answer = func(context.Context, int, call, func(engine.Event)) (engine.Done, error) {
		return engine.Done{}, &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
	}
	_, err = s.Run(t.Context(), Job{Class: schedule.Short}, ignore)
	wantFault(t, err, fault.Unavailable, "no_memory")
	wantFree(t, s)
}
