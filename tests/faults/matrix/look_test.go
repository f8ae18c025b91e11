//go:build e2e && faults

package matrix

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
	"whisper-appliance/tests/faults/supervise"
)

// state is what of the updater's note to itself the matrix looks at.
type state struct {
	Step    string `json:"step"`
	Floor   string `json:"floor"`
	Attempt struct {
		Transaction string `json:"transaction"`
	} `json:"attempt"`
	TriesLeft int `json:"tries_left"`
	Credit    struct {
		Healthy time.Duration
		Samples int
	} `json:"credit"`
	Banned     []deployment.Quarantine `json:"quarantined"`
	Alarm      *deployment.Problem     `json:"alarm"`
	Unrecorded *deployment.Record      `json:"unrecorded"`
	Last       *deployment.Record      `json:"last"`
}

func (w *world) stateFile() (st state, err error) {
	data, err := os.ReadFile(filepath.Join(w.paths().Updater, "state.json"))
	if err == nil {
		err = json.Unmarshal(data, &st)
	}
	return st, err
}

// readable fails the test where there is no state, or half of one.
func (w *world) readable() state {
	w.Helper()
	st, err := w.stateFile()
	if err != nil {
		w.Errorf("the state cannot be read: %v", err)
	}
	return st
}

// get asks a server behind a Unix socket.
func get(socket, path string) (string, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	res, err := c.Get("http://x" + path)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.100s", res.Status, body)
	}
	return string(body), err
}

// serves is the version that answers.
func (w *world) serves() string {
	w.Helper()
	body, err := get(w.sup.Path("api.sock"), "/api/status")
	var answer struct {
		Version string `json:"version"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(body), &answer)
	}
	if err != nil {
		return "nothing: " + err.Error()
	}
	return answer.Version
}

// versionIn is that of the release in a slot, "" where it holds none that is
// whole.
func (w *world) versionIn(name string) string {
	w.Helper()
	diffs, m, err := slot.Verify(w.Context(), w.slots.Path(name), slot.Check{Owned: true})
	if err != nil || len(diffs) > 0 {
		return ""
	}
	return m.Version
}

// links are the versions that the links lead to.
func (w *world) links() (current, stable string) {
	w.Helper()
	serving, err := w.slots.Serving()
	committed, err2 := w.slots.Committed()
	if err != nil || err2 != nil || serving == "" {
		w.Errorf("links: current %q, %v; stable %q, %v", serving, err, committed, err2)
		return "", ""
	}
	return w.versionIn(serving), w.versionIn(committed)
}

// neverBroken holds right after a fault, before anything is mended: there is a
// link to a whole release, no slot is half, the state can be read, and the floor
// is not ahead of what was committed. Where the disk may have lost the slot that
// is being placed, it is empty.
func (w *world) neverBroken() {
	w.Helper()
	current, stable := w.links()
	if current == "" || stable == "" {
		w.Errorf("current leads to %q, stable to %q", current, stable)
	}
	for _, name := range []string{slot.A, slot.B} {
		if _, err := slot.Read(w.slots.Path(name)); err == nil && w.versionIn(name) == "" {
			w.Errorf("slot %s is half a release", name)
		}
	}
	if st := w.readable(); st.Floor != stable && st.Floor != first {
		w.Errorf("the floor is %s, and %s is committed", st.Floor, stable)
	}
}

// stands fails the test where anything but version serves, or something is
// left of a transaction.
func (w *world) stands(version string) {
	w.Helper()
	current, stable := w.links()
	if current != version || stable != version {
		w.Errorf("current leads to %q, stable to %q, want %s", current, stable, version)
	}
	if got := w.serves(); got != version {
		w.Errorf("%s serves, want %s", got, version)
	}
	if st := w.readable(); st.Step != "idle" || st.Unrecorded != nil {
		w.Errorf("the state is %s", st.Step)
	}
	for _, name := range []string{slot.A, slot.B} {
		unit, door := supervise.Next(name)
		rehearsal, stage := supervise.Preflight(name)
		for _, u := range []string{unit, door, rehearsal, stage} {
			if s := w.unit(u); s.Active != "inactive" && s.Active != "failed" {
				w.Errorf("%s is left %s", u, s.Active)
			}
		}
	}
	w.tidy()
}

// tidy fails the test where something half done lies about.
func (w *world) tidy() {
	w.Helper()
	updater := w.paths().Updater
	for dir, allowed := range map[string]string{
		filepath.Join(w.Home, ".staging"): "", filepath.Join(w.Home, ".trash"): "",
		w.Home: ".staging .trash .ballast .filler .fillers", updater: "", filepath.Join(updater, "trust"): "", filepath.Join(updater, "artefact"): "", w.paths().Slots: "",
	} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			w.Error(err)
		}
		for _, e := range entries {
			half := strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(filepath.Base(dir), ".") || strings.HasSuffix(e.Name(), ".new")
			if half && !strings.Contains(" "+allowed+" ", " "+e.Name()+" ") {
				w.Errorf("%s is left in %s", e.Name(), dir)
			}
		}
	}
}

// last is the newest record; one is awaited.
func (w *world) last() deployment.Record {
	w.Helper()
	all, err := deployment.Records(w.paths().Updater, 1)
	must(w, err)
	if len(all) == 0 {
		w.Error("nothing is recorded")
		return deployment.Record{}
	}
	return all[0]
}

func (w *world) banned(version string) string {
	w.Helper()
	for _, q := range w.readable().Banned {
		if q.Version == version {
			return q.Reason
		}
	}
	return ""
}
