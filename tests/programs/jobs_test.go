//go:build e2e

package programs

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
)

// apart writes the reference clip n times over, so far apart that each is a
// window of its own.
func apart(t *testing.T, n int) (path string) {
	t.Helper()
	clip, _ := reference(t)
	sound, err := clips.Read(t.Context(), clip)
	if err != nil {
		t.Fatal(err)
	}
	sounds := make([]clips.Sound, n)
	for i := range sounds {
		sounds[i] = sound
	}
	path = filepath.Join(t.TempDir(), "apart.wav")
	if err := clips.Join(sounds, 6*time.Second, 7*time.Second, 1).WriteWAV(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// submit has a recording transcribed as a job.
func submit(t *testing.T, a *appliance.Appliance, path string) (j api.Job) {
	t.Helper()
	body, kind, err := clips.Request{Path: path, Fields: map[string]string{"language": "en"}}.Form()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := clips.Do(t.Context(), http.MethodPost, a.URL+"/api/v1/jobs", a.Key, kind, body)
	if err == nil {
		err = json.Unmarshal(answer, &j)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, a.Log())
	}
	return j
}

// jobOf is a job as it is; the zero one while nobody answers.
func jobOf(t *testing.T, a *appliance.Appliance, id string) (j api.JobDetail) {
	t.Helper()
	answer, err := clips.Do(t.Context(), http.MethodGet, a.URL+"/api/v1/jobs/"+id, a.Key, "", nil)
	if err != nil {
		return api.JobDetail{}
	}
	if err := json.Unmarshal(answer, &j); err != nil {
		t.Errorf("%s: %v", answer, err)
	}
	return j
}

// finished waits for the end of a job.
func finished(t *testing.T, a *appliance.Appliance, id string) (j api.JobDetail) {
	t.Helper()
	until(t, time.Minute, "the end of job "+id, func() bool {
		j = jobOf(t, a, id)
		return j.State == "done" || j.State == "failed" || j.State == "canceled"
	})
	return j
}

// begun are the windows that were stored each time that a job was begun.
func begun(t *testing.T, log, id string) (stored []int) {
	t.Helper()
	for _, m := range regexp.MustCompile(`job begun.*`+id+`.*windows_done=(\d+)`).FindAllStringSubmatch(log, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, n)
	}
	return stored
}

// TestJobsGoOn ends server, engine and both in all kinds of ways, at ten moments
// of a job each: it comes to the same transcript, and no window that was done is
// done again.
func TestJobsGoOn(t *testing.T) {
	a := start(t, appliance.Options{})
	const windows, moments = 6, 10
	path := apart(t, windows)
	began := time.Now()
	whole := finished(t, a, submit(t, a, path).ID)
	took := time.Since(began)
	if whole.State != "done" || len(whole.Segments) != windows {
		t.Fatalf("undisturbed: %+v\n%s", whole, a.Log())
	}
	ways := []struct {
		name string
		end  func()
	}{
		{"server killed", func() { restart(t, a, syscall.SIGKILL) }},
		{"engine killed", func() { killEngine(t, a) }},
		{"both killed", func() { killEngine(t, a); restart(t, a, syscall.SIGKILL) }},
		{"server stopped", func() { restart(t, a, syscall.SIGTERM) }},
	}
	again := 0
	for i := range moments {
		way := ways[i%len(ways)]
		t.Run(fmt.Sprintf("%s at %d of %d", way.name, i+1, moments), func(t *testing.T) {
			id := submit(t, a, path).ID
			var before api.JobDetail
			until(t, time.Minute, "the moment", func() bool {
				before = jobOf(t, a, id)
				return windowsIn(before) >= i*windows/moments
			})
			time.Sleep(took / windows * time.Duration(i%3) / 3) // into the next one
			way.end()
			j := finished(t, a, id)
			if j.State != "done" || j.Text != whole.Text || !reflect.DeepEqual(j.Segments, whole.Segments) {
				t.Errorf("%s, %+v\nwant  %+v\n%s", j.State, j.Segments, whole.Segments, a.Log())
			}
			times := begun(t, a.Log(), id)
			if last := times[len(times)-1]; len(times) > 1 && last < windowsIn(before) {
				t.Errorf("begun again after %d windows, though %d were done", last, windowsIn(before))
			}
			again += len(times) - 1
			t.Logf("begun after %v windows", times)
		})
	}
	if again < 3 {
		t.Errorf("only %d of %d were interrupted at all", again, moments)
	}
	wantNoRecordings(t, a)
}

// windowsIn is how many windows a job shows the text of: each has one sentence.
func windowsIn(j api.JobDetail) int { return len(j.Segments) }

func restart(t *testing.T, a *appliance.Appliance, how syscall.Signal) {
	t.Helper()
	if err := a.Restart(t.Context(), how); err != nil {
		t.Fatal(err)
	}
}

func killEngine(t *testing.T, a *appliance.Appliance) {
	t.Helper()
	pid, err := a.EnginePID()
	if err != nil || pid == 0 {
		t.Fatalf("no engine to kill: %v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// wantNoRecordings checks that what is done has left no recording behind.
func wantNoRecordings(t *testing.T, a *appliance.Appliance) {
	t.Helper()
	until(t, 10*time.Second, "all recordings being removed", func() bool {
		left, err := os.ReadDir(filepath.Join(a.State, "jobs"))
		return err == nil && len(left) == 0
	})
}
