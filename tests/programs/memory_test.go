//go:build e2e

package programs

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/audio"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
)

const (
	tenHoursLong  = 10 * time.Hour
	sentenceEvery = time.Minute
	mostGrowth    = 30 << 20 // bytes of the server's memory, over what a short recording takes
)

// tenHours is a recording of silence in which somebody says a sentence every
// minute. On disk it takes no more room than the sentences.
func tenHours(t *testing.T) (path string, size int64) {
	t.Helper()
	clip, _ := reference(t)
	sound, err := clips.Read(t.Context(), clip)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "day.wav")
	if err := sound[:0].WriteWAV(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const sample = 2
	header, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	data := audio.SamplesIn(tenHoursLong) * sample
	must(t, f.Truncate(header+data))
	le := binary.LittleEndian
	for _, field := range []struct{ at, value int64 }{{4, header + data - 8}, {header - 4, data}} {
		_, err := f.WriteAt(le.AppendUint32(nil, uint32(field.value)), field.at)
		must(t, err)
	}
	said, err := binary.Append(nil, le, sound)
	must(t, err)
	for at := sentenceEvery / 2; at < tenHoursLong; at += sentenceEvery {
		_, err := f.WriteAt(said, header+audio.SamplesIn(at)*sample)
		must(t, err)
	}
	return path, header + data
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// room is what an appliance's files take on disk, in bytes, those without a name
// included that its server has open. A file of several names counts once.
func room(t *testing.T, a *appliance.Appliance) (sum int64) {
	t.Helper()
	type file struct{ device, inode uint64 }
	seen := map[file]bool{}
	add := func(path string) {
		var st syscall.Stat_t
		if syscall.Stat(path, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG || seen[file{st.Dev, st.Ino}] {
			return
		}
		seen[file{st.Dev, st.Ino}] = true
		sum += st.Blocks * 512
	}
	err := filepath.WalkDir(a.State, func(path string, _ fs.DirEntry, err error) error {
		add(path)
		return nil // what goes away meanwhile takes no room
	})
	must(t, err)
	open := filepath.Join("/proc", strconv.Itoa(a.PID), "fd")
	list, err := os.ReadDir(open)
	must(t, err)
	for _, e := range list {
		if to, err := os.Readlink(filepath.Join(open, e.Name())); err == nil && strings.HasPrefix(to, a.State) {
			add(filepath.Join(open, e.Name()))
		}
	}
	return sum
}

// TestTenHours: the server's memory does not grow with the recording, and the room
// that one takes on disk is bounded and given back. The engine is a fake: what it
// takes is the model's.
func TestTenHours(t *testing.T) {
	dir := t.TempDir()
	const needs = 5 << 30 // the recording, as it was sent, and its sound
	var st syscall.Statfs_t
	must(t, syscall.Statfs(dir, &st))
	if free := int64(st.Bavail) * st.Bsize; free < needs {
		t.Skipf("%s has %d MB free, and this takes %d", dir, free>>20, needs>>20)
	}
	must(t, appliance.FakeEngine(t.Context(), root(t), dir))
	path, size := tenHours(t)
	for name, env := range map[string][]string{
		"speech by the detector": nil,
		"speech by its loudness": {"WHISPER_APPLIANCE_VAD_DETECTOR=loudness"},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, appliance.Options{Root: dir, Env: env})
			clip, _ := reference(t)
			for range 3 {
				finished(t, a, added(t, a, clip))
			}
			before, disk := peak(t, a), room(t, a)
			must(t, appliance.ForgetPeak(a.PID))
			began := time.Now()
			id := added(t, a, path)
			sent := time.Since(began)
			most := ended(t, a, id)
			j := jobOf(t, a, id)
			if want := int(tenHoursLong / sentenceEvery); j.State != "done" || j.Duration != tenHoursLong.Seconds() || len(j.Segments) != want {
				t.Fatalf("%s of %v s in %d segments, %+v; want %d\n%s", j.State, j.Duration, len(j.Segments), j.Error, want, a.Log())
			}
			grown := peak(t, a) - before
			t.Logf("sent in %v, done in %v; memory %d MB and %d MB more; on disk %d MB at most",
				sent.Round(time.Second), time.Since(began).Round(time.Second), before>>20, grown>>20, most>>20)
			if grown > mostGrowth {
				t.Errorf("the server's memory grew by %d bytes, more than %d", grown, mostGrowth)
			}
			const slack = 64 << 20 // the database, what is copied just now
			if pcm := audio.SamplesIn(tenHoursLong) * audio.SampleSize; most > disk+size+pcm+slack {
				t.Errorf("%d bytes on disk, more than the recording and its sound", most)
			}
			wantNoRecordings(t, a)
			returned(t, a, disk)
			if got := cli(t, a, "jobs", "rm", id); got.code != 0 {
				t.Errorf("rm: %+v", got)
			}
			returned(t, a, disk)
		})
	}
}

// ended waits for the end of the appliance's only job that is not done, and gives
// the most room that it took on disk meanwhile.
func ended(t *testing.T, a *appliance.Appliance, id string) (most int64) {
	t.Helper()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for limit := time.Now().Add(3 * time.Minute); ; <-look.C {
		most = max(most, room(t, a))
		said, err := clips.Do(t.Context(), http.MethodGet, a.URL+"/api/v1/jobs?limit=1", a.Key, "", nil)
		must(t, err)
		var list api.JobList
		must(t, json.Unmarshal(said, &list))
		if len(list.Jobs) != 1 || list.Jobs[0].ID != id {
			t.Fatalf("the last job is not %s: %s", id, said)
		}
		if !list.Jobs[0].Ended.IsZero() {
			return most
		}
		if time.Now().After(limit) {
			t.Fatalf("not done: %s\n%s", said, a.Log())
		}
	}
}

// added gives a recording to the server by the CLI, which sends large ones in
// pieces, and gives the job's id.
func added(t *testing.T, a *appliance.Appliance, path string) string {
	t.Helper()
	got := cli(t, a, "jobs", "add", "--quiet", "--language", "en", path)
	if got.code != 0 {
		t.Fatalf("%+v\n%s", got, a.Log())
	}
	return strings.TrimSpace(got.out)
}

// peak is the most memory that the server had, in bytes.
func peak(t *testing.T, a *appliance.Appliance) int64 {
	t.Helper()
	_, most := appliance.Spent(a.PID)
	if most == 0 {
		t.Fatalf("the server has no memory\n%s", a.Log())
	}
	return most
}

// returned waits until no more is on disk than before, but for a job's text.
func returned(t *testing.T, a *appliance.Appliance, before int64) {
	t.Helper()
	const text = 8 << 20
	until(t, 20*time.Second, "the room being given back", func() bool { return room(t, a) <= before+text })
}
