//go:build e2e

package conformance

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"

	"whisper-appliance/internal/api"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
)

// minute is about a minute of English, which takes several windows: sentences of
// several speakers, or where those are not here the project's own again and again.
func minute(t *testing.T) (c clip, path string) {
	t.Helper()
	const length, pause = 59 * time.Second, 900 * time.Millisecond
	spoken, err := clips.English(t.Context(), checkout(t))
	if err != nil {
		t.Logf("one sentence is repeated: %v", err)
		sound, err := clips.Read(t.Context(), filepath.Join("..", "testdata", "reference.wav"))
		if err != nil {
			t.Fatal(err)
		}
		spoken = []clips.Spoken{{Sound: sound}}
	}
	path = filepath.Join(t.TempDir(), "minute.wav")
	if err := clips.Fill(clips.Shuffled(spoken, 20), length, pause).Sound.WriteWAV(path); err != nil {
		t.Fatal(err)
	}
	return load(t, path), path
}

func checkout(t *testing.T) string {
	t.Helper()
	root, err := appliance.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// command is what the CLI prints.
func command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(checkout(t), "build", "slot", "bin", "whisper-appliance"), args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "WHISPER_APPLIANCE_URL="+base(t), "WHISPER_APPLIANCE_KEY="+setting(t, "WA_KEY"))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("whisper-appliance %s: %v: %s", strings.Join(args, " "), err, &said)
	}
	return string(out)
}

// get is the body of an answer to GET.
func get(t *testing.T, path string) []byte {
	t.Helper()
	body, err := clips.Do(t.Context(), http.MethodGet, base(t)+path, setting(t, "WA_KEY"), "", nil)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return body
}

// segmentsOf is the text of a verbose_json and its segments, byte for byte but for
// the white space between them.
func segmentsOf(t *testing.T, body []byte) (text, segments string) {
	t.Helper()
	v := decoded[struct {
		Text     string
		Segments json.RawMessage
	}](t, body)
	var b bytes.Buffer
	if err := json.Compact(&b, v.Segments); err != nil {
		t.Errorf("segments: %v in %.300s", err, body)
	}
	return v.Text, b.String()
}

// job has a recording transcribed as a job by the command line, and gives it when
// it is done.
func job(t *testing.T, path string) api.JobDetail {
	t.Helper()
	id := strings.TrimSpace(command(t, "jobs", "add", "--quiet", path))
	command(t, "jobs", "wait", "--quiet", id)
	j := decoded[api.JobDetail](t, get(t, "/api/v1/jobs/"+id))
	if j.State != "done" {
		t.Fatalf("the job is %s: %+v", j.State, j.Error)
	}
	return j
}

// streamed is the text of the last of OpenAI's events, and the deltas before it.
func (c clip) streamed(t *testing.T) (done, deltas string) {
	t.Helper()
	library := client(t)
	stream := library.Audio.Transcriptions.NewStreaming(t.Context(), params(c, openai.AudioResponseFormatJSON))
	defer stream.Close()
	for stream.Next() {
		e := stream.Current()
		if deltas += e.Delta; e.Type == "transcript.text.done" {
			done = e.AsTranscriptTextDone().Text
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(explain(err))
	}
	return done, deltas
}

// onItsOwn gives the test an appliance of its own. Where there is one lane, short
// recordings of other tests would have cut the windows of some doors and not of others.
func onItsOwn(t *testing.T) {
	t.Helper()
	a, err := appliance.Start(t.Context(), appliance.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("WA_URL", a.URL)
	t.Setenv("WA_KEY", a.Key)
}

// TestOneMinuteThroughEveryDoor: the text of a recording of several windows is the
// same, byte for byte, in all formats and all at once, in events, as a job, by the
// command line and at the doors of other servers, and so are its segments.
func TestOneMinuteThroughEveryDoor(t *testing.T) {
	onItsOwn(t)
	c, path := minute(t)
	rest := func(format string) []byte {
		return asked(t, transcriptions, c.under("file"), field("response_format", format)).body
	}
	whole := rest("verbose_json")
	text, segments := segmentsOf(t, whole)
	if n := strings.Count(segments, `"start"`); len(strings.Fields(text)) < 60 || n < 5 {
		t.Fatalf("only %d segments: %q", n, text)
	}
	same := func(door, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s:\n%q, want\n%q", door, got, want)
		}
	}
	same("json", decoded[verbose](t, rest("json")).Text, text)
	same("text", string(rest("text")), text+"\n")
	done, deltas := c.streamed(t)
	same("the last event", done, text)
	same("the events before it", deltas, text)

	j := job(t, path)
	same("a job", j.Text, text)
	wantSegments := func(door string, body []byte) {
		t.Helper()
		said, got := segmentsOf(t, body)
		same(door, strings.TrimPrefix(said, " "), text)
		same(door+", segments", got, segments)
	}
	at := "/api/v1/jobs/" + j.ID + "/transcript?format="
	wantSegments("a job's transcript, verbose_json", get(t, at+"verbose_json"))
	same("a job's transcript, txt", string(get(t, at+"txt")), text+"\n")
	same("a job's transcript, json", decoded[verbose](t, get(t, at+"json")).Text, text)
	same("jobs text", command(t, "jobs", "text", j.ID), text+"\n")

	wantSegments("transcribe", []byte(command(t, "transcribe", "--format", "verbose_json", path)))
	wantSegments("/asr json", asked(t, asr+"?output=json", c.under("audio_file")).body)
	var lines, inferred string
	for _, s := range decoded[verbose](t, whole).Segments {
		lines, inferred = lines+strings.TrimSpace(s.Text)+"\n", inferred+s.Text+"\n"
	}
	same("/asr txt", string(asked(t, asr+"?output=txt", c.under("audio_file")).body), lines)
	same("/inference", decoded[verbose](t, asked(t, inference, c.under("file"), field("response_format", "json")).body).Text, inferred)
}
