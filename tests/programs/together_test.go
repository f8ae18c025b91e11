//go:build e2e

package programs

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"whisper-appliance/internal/api"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/postgres"
)

// together is two appliances on one PostgreSQL.
type together struct {
	server        *postgres.Server
	recordings    string // the directory that both see
	first, second *appliance.Appliance
	names         map[*appliance.Appliance]string // as the jobs' rows have them
	windows       map[string]int                  // of each job's recording, by its id
}

// startTogether starts both, with so few places that each leaves jobs to the other.
// Nobody stops the second: it is for the test to kill.
func startTogether(t *testing.T) *together {
	t.Helper()
	if !postgres.Here() { // made by the suite before this one, or not at all
		t.Setenv(postgres.Variable, filepath.Join(root(t), "build", "postgres"))
	}
	server, err := postgres.Start()
	if errors.Is(err, postgres.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() }) //nolint:errcheck // it is a test's
	const name = "appliances"
	if err := server.Create(name); err != nil {
		t.Fatal(err)
	}
	g := &together{server: server, recordings: filepath.Join(t.TempDir(), "recordings"), names: map[*appliance.Appliance]string{}, windows: map[string]int{}}
	if err := os.Mkdir(g.recordings, 0o700); err != nil {
		t.Fatal(err)
	}
	o := appliance.Options{Env: []string{
		"WHISPER_APPLIANCE_DATABASE_URL=" + server.URL(name),
		"WHISPER_APPLIANCE_JOBS_DIRECTORY=" + g.recordings,
		"WHISPER_APPLIANCE_JOBS_AT_ONCE=2",
	}}
	g.first = start(t, o)
	if g.second, err = appliance.Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.second.Stop() }) //nolint:errcheck // it is dead
	for _, a := range []*appliance.Appliance{g.first, g.second} {
		own, err := os.ReadFile(filepath.Join(a.State, "instance"))
		if err != nil {
			t.Fatal(err)
		}
		g.names[a] = strings.TrimSpace(string(own))
	}
	return g
}

// row is a job as the database has it.
type row struct {
	ID, State, Instance string
	Done, Attempts      int // windows and claims that the job counts
	Stored              int // windows that are there
}

// rows are all jobs, by the database's own word: it tells who does which.
func (g *together) rows(t *testing.T) []row {
	t.Helper()
	db, err := pgx.Connect(t.Context(), g.server.URL("appliances"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	found, err := db.Query(t.Context(), `SELECT id, state, instance, windows_done, attempts,
		(SELECT count(*) FROM windows WHERE job_id = id) FROM jobs ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := pgx.CollectRows(found, pgx.RowToStructByPos[row])
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// of are those jobs that a has in a state.
func (g *together) of(t *testing.T, a *appliance.Appliance, state string) (mine []row) {
	t.Helper()
	for _, r := range g.rows(t) {
		if r.State == state && strings.Contains(r.Instance, g.names[a]) {
			mine = append(mine, r)
		}
	}
	return mine
}

// kill ends the second appliance in the middle of a job, and gives what it was
// doing.
func (g *together) kill(t *testing.T) (broken []row) {
	t.Helper()
	until(t, time.Minute, "a job of the second's, half done", func() bool {
		for _, r := range g.of(t, g.second, "running") {
			if r.Stored > 0 && r.Stored < g.windows[r.ID] {
				return true
			}
		}
		return false
	})
	if err := syscall.Kill(g.second.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if broken = g.of(t, g.second, "running"); len(broken) == 0 {
		t.Fatal("the second did nothing when it was killed")
	}
	return broken
}

// answer is a whole answer, whatever its status.
func answer(t *testing.T, a *appliance.Appliance, method, path, kind string, body io.Reader) (status int, said string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, a.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.Key)
	req.Header.Set("Content-Type", kind)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, string(data)
}

// away tells whether health names the database among what is wrong. It must not
// keep anybody from sending recordings.
func away(t *testing.T, a *appliance.Appliance) bool {
	t.Helper()
	status, said := answer(t, a, http.MethodGet, "/health", "", nil)
	var health struct {
		Status  string
		Reasons []string
	}
	if err := json.Unmarshal([]byte(said), &health); err != nil || status != http.StatusOK {
		t.Errorf("health: %d %s", status, said)
	}
	return health.Status == "degraded" && strings.Contains(strings.Join(health.Reasons, "\n"), "database: ")
}

// outage breaks PostgreSQL off, sees what people are told meanwhile, and starts it
// again: jobs are refused in words that say why, who waits for a text has it.
func (g *together) outage(t *testing.T, id string) {
	t.Helper()
	clip, want := reference(t)
	if err := g.server.Crash(); err != nil {
		t.Fatal(err)
	}
	body, kind, err := clips.Request{Path: clip}.Form()
	if err != nil {
		t.Fatal(err)
	}
	for path, ask := range map[string]func() (int, string){
		"a new job":    func() (int, string) { return answer(t, g.first, http.MethodPost, "/api/v1/jobs", kind, body) },
		"a job's page": func() (int, string) { return answer(t, g.first, http.MethodGet, "/api/v1/jobs/"+id, "", nil) },
		"all jobs":     func() (int, string) { return answer(t, g.first, http.MethodGet, "/api/v1/jobs", "", nil) },
	} {
		if status, said := ask(); status != http.StatusServiceUnavailable || !strings.Contains(said, `"database_unreachable"`) || !strings.Contains(said, `"hint"`) {
			t.Errorf("%s while PostgreSQL is away: %d %s", path, status, said)
		}
	}
	if text, _, err := ask(g.first, clip, "tiny").Transcribe(t.Context()); err != nil || text != want {
		t.Errorf("who waits for a text while PostgreSQL is away: %q, %v", text, err)
	}
	until(t, time.Minute, "health telling that the database is away", func() bool { return away(t, g.first) })
	until(t, time.Minute, "a job held up", func() bool { return strings.Contains(g.first.Log(), "job held up") })
	if err := g.server.Resume(); err != nil {
		t.Fatal(err)
	}
	until(t, time.Minute, "health telling that all is well", func() bool { return !away(t, g.first) })
}

// TestTwoAppliancesOnOnePostgres: both do what was sent to one of them. One is
// killed in the middle of a job, and PostgreSQL breaks off and comes back: nothing
// fails, nothing is done twice, and each transcript is what it is undisturbed.
func TestTwoAppliancesOnOnePostgres(t *testing.T) {
	g := startTogether(t)
	recordings := map[int]string{} // by their windows
	for _, n := range []int{2, 3, 4} {
		recordings[n] = apart(t, n)
	}
	send := func(windows ...int) {
		for _, n := range windows {
			g.windows[submit(t, g.first, recordings[n]).ID] = n
		}
	}
	send(2, 3, 4, 2, 3, 4, 2, 3, 4)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the first's log:\n%s\nthe second's:\n%s", g.first.Log(), g.second.Log())
		}
	})
	until(t, 3*time.Minute, "two jobs done by each", func() bool {
		return len(g.of(t, g.first, "done")) >= 2 && len(g.of(t, g.second, "done")) >= 2
	})
	send(4, 4, 4, 4) // there is something to do when one of them dies, and when PostgreSQL does
	broken := g.kill(t)
	send(4, 4)
	g.outage(t, broken[0].ID)
	whole := alone(t, recordings) // while the dead one's leases run out
	until(t, 3*time.Minute, "the end of all jobs", func() bool {
		for _, r := range g.rows(t) {
			if r.State != "done" && r.State != "failed" {
				return false
			}
		}
		return true
	})
	g.wantAll(t, len(g.windows), whole)
	for _, b := range broken {
		times := begun(t, g.first.Log(), b.ID)
		t.Logf("%s: %d of %d windows were stored when its appliance died; the other began after %v", b.ID, b.Stored, g.windows[b.ID], times)
		if len(times) == 0 || times[0] < b.Stored {
			t.Errorf("job %s was begun again after %v windows, though %d were done", b.ID, times, b.Stored)
		}
	}
	left, err := filepath.Glob(filepath.Join(g.recordings, "*-*-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("recordings were left: %v, %v", left, err)
	}
}

// alone are the recordings' transcripts by an appliance that is alone.
func alone(t *testing.T, recordings map[int]string) map[int]api.JobDetail {
	t.Helper()
	a, whole := start(t, appliance.Options{}), map[int]api.JobDetail{}
	for n, path := range recordings {
		whole[n] = finished(t, a, submit(t, a, path).ID)
		if whole[n].State != "done" || len(whole[n].Segments) != n {
			t.Fatalf("undisturbed: %+v\n%s", whole[n], a.Log())
		}
	}
	return whole
}

// wantAll checks what came of the jobs: all are done, with each window once, and
// say what they say undisturbed.
func (g *together) wantAll(t *testing.T, jobs int, whole map[int]api.JobDetail) {
	t.Helper()
	rows := g.rows(t)
	if len(rows) != jobs {
		t.Errorf("%d jobs are there, %d were accepted", len(rows), jobs)
	}
	for _, r := range rows {
		n := g.windows[r.ID]
		if r.State != "done" || r.Stored != n || r.Done != n {
			t.Errorf("%+v, want it done in %d windows", r, n)
			continue
		}
		j := jobOf(t, g.first, r.ID)
		if j.Text != whole[n].Text || !reflect.DeepEqual(j.Segments, whole[n].Segments) {
			t.Errorf("%s: %+v\nwant %+v", r.ID, j.Segments, whole[n].Segments)
		}
	}
	t.Logf("%d jobs done by the first appliance, %d by the second", len(g.of(t, g.first, "done")), len(g.of(t, g.second, "done")))
}
