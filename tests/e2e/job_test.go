//go:build e2e

package e2e

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/tests/clips"
)

const (
	jobLasts = time.Minute // of speech in a job that a switch comes into
	jobLimit = 2 * time.Minute
)

// TestSwitchInAJob: a job in whose midst the other slot takes over comes to the
// same transcript, and each of its windows is done once, but for the one that was
// interrupted.
func TestSwitchInAJob(t *testing.T) {
	b := shared(t)
	b.bothSlots()
	client := api.Client{Base: plain, HTTP: b.client}
	path := spoken(t, jobLasts)
	begin := time.Now()
	whole := b.jobEnds(client, b.submit(client, path))
	alone := time.Since(begin)
	clip, err := clips.Read(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if whole.State != "done" || len(whole.Segments) == 0 {
		t.Fatalf("undisturbed: %+v", whole)
	}

	begin = time.Now()
	id := b.submit(client, path)
	var before api.JobDetail
	b.until("the job is under way", jobLimit, func() bool {
		before = b.job(client, id)
		return len(before.Segments) > 0
	})
	to := other(b.serving())
	if r := b.Run(t.Context(), "whisper-appliance", "slot", "switch", to); r.Code != 0 || b.serving() != to {
		t.Fatalf("switch to %s: %v", to, r)
	}
	j := b.jobEnds(client, id)
	if j.State != "done" || j.Text != whole.Text || !reflect.DeepEqual(j.Segments, whole.Segments) {
		t.Errorf("%s, %+v\nwant %+v", j.State, j.Segments, whole.Segments)
	}
	times := b.begun(id)
	figure(t, "a job of %v: %.1f s alone, %.1f s with a switch in it; begun after %v of its %d windows",
		clip.Duration().Round(time.Second), alone.Seconds(), time.Since(begin).Seconds(), times, len(whole.Segments))
	if len(times) != 2 || !slices.IsSorted(times) || times[0] != 0 || times[1] < len(before.Segments) {
		t.Errorf("begun after %v windows; %d were done before the switch, which was to come into the job", times, len(before.Segments))
	}
}

func (b *box) submit(client api.Client, path string) (id string) {
	b.t.Helper()
	j, err := client.AddJob(b.t.Context(), api.NewJob{Request: api.Request{Path: path, Language: "en"}}, func(_, _ int64) {})
	if err != nil {
		b.t.Fatal(err)
	}
	return j.ID
}

func (b *box) job(client api.Client, id string) api.JobDetail {
	b.t.Helper()
	j, err := client.Job(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return j
}

// jobEnds waits for the end of a job.
func (b *box) jobEnds(client api.Client, id string) (j api.JobDetail) {
	b.t.Helper()
	b.until("the job ends", jobLimit, func() bool {
		j = b.job(client, id)
		return j.State != "queued" && j.State != "running"
	})
	return j
}

// begun are the windows that were stored each time that a job was begun.
func (b *box) begun(id string) (stored []int) {
	b.t.Helper()
	entries, err := b.Journal(b.t.Context(), "JOB="+id)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e["MESSAGE"], "job begun") {
			continue
		}
		n, err := strconv.Atoi(e["WINDOWS_DONE"])
		if err != nil {
			b.t.Fatalf("%v: %v", e, err)
		}
		stored = append(stored, n)
	}
	return stored
}
