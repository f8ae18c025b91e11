//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/e2e/load"
	"whisper-appliance/tests/e2e/machine"
	"whisper-appliance/tests/e2e/offers"
)

const (
	offersIn = "/srv/e2e/offers" // the repository, in the machine
	updates  = "/etc/whisper-appliance/config.d/60-updates.toml"
	stateDir = "/var/lib/whisper-appliance-updater"
	updater  = "whisper-appliance-updater.service"

	rollbackLimit = time.Minute      // for a way back by hand, while long recordings are transcribed
	trialLimit    = 90 * time.Second // for a trial of ten seconds
	updaterPss    = 40 << 20         // bytes that the updater may hold
)

// settingsOf is how the machines of these tests are updated, unless a test
// wants it otherwise.
const settingsOf = `[update]
trial = "10s"
automatic = "off"
sources = ["` + offersIn + `"]
`

// The releases that are offered. Each is built when a test first asks for it.
var (
	sound       = offers.Recipe{Version: "1.1.0"}
	sounder     = offers.Recipe{Version: "1.2.0"}
	crashes1st  = offers.Recipe{Version: "1.3.0", Spoiled: offers.Crashes, Bare: true}
	lies        = offers.Recipe{Version: "1.4.0", Says: "1.4.1"}
	crashesLate = offers.Recipe{Version: "1.5.0", Spoiled: offers.CrashesLate}
	hangsLate   = offers.Recipe{Version: "1.6.0", Spoiled: offers.HangsLate}
)

// theShop makes them, once for all tests. removeShop removes what it has made.
var theShop = sync.OnceValues(func() (*offers.Shop, error) {
	root, err := appliance.Root()
	if err != nil {
		return nil, err
	}
	dir := shopDir(root)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return offers.Open(root, dir)
})

func shopDir(root string) string {
	return filepath.Join(root, "build", "e2e", fmt.Sprintf("offers.%d", os.Getpid()))
}

func removeShop(root string) { os.RemoveAll(shopDir(root)) } //nolint:errcheck // it lies in build/

func shop(t *testing.T) *offers.Shop {
	t.Helper()
	s, err := theShop()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// updatedBox is the installed machine of the tests about updates, each of which
// brings it back to the package's release first.
var updatedBox = sync.OnceValues(func() (*machine.Machine, error) {
	return install(context.Background(), bookworm)
})

// updated is that machine, with the package's release committed, nothing
// quarantined, held or queued, and these releases on offer.
func updated(t *testing.T, list ...offers.Recipe) *box {
	t.Helper()
	needMachines(t)
	m, err := updatedBox()
	if err != nil {
		t.Fatal(err)
	}
	b := &box{m, t, m.Client()}
	t.Cleanup(b.lastWords)
	b.offer(list...)
	b.asPackaged()
	b.ready()
	return b
}

// asPackaged brings the machine back to the package's release and the settings
// of these tests.
func (b *box) asPackaged() {
	b.t.Helper()
	b.configure(settingsOf)
	b.must(`systemctl start dbus.socket whisper-appliance.target
		w=/usr/lib/whisper-appliance/whisper-appliance-updater
		for n in 1 2 3 4; do
			$w cancel >/dev/null 2>&1 || break
		done
		$w quarantine clear >/dev/null
		$w unpin >/dev/null
		$w deploy --door dpkg --trial=false
		rm -f ` + stateDir + `/policy.json`)
}

func (b *box) configure(text string) {
	b.t.Helper()
	if err := b.Write(b.t.Context(), updates, 0o644, strings.NewReader(text)); err != nil {
		b.t.Fatal(err)
	}
}

// offer brings the repository with exactly these releases into the machine.
func (b *box) offer(list ...offers.Recipe) {
	b.t.Helper()
	if len(list) == 0 {
		return
	}
	s := shop(b.t)
	if err := s.Offer(b.t.Context(), list...); err != nil {
		b.t.Fatal(err)
	}
	b.bring(s.Repository(), offersIn)
}

// bring makes a directory of the machine the same as one of the host.
func (b *box) bring(from, to string) {
	b.t.Helper()
	tar := exec.CommandContext(b.t.Context(), "tar", "-C", from, "--owner=0", "--group=0", "-cf", "-", ".")
	var said bytes.Buffer
	tar.Stderr = &said
	out, err := tar.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := tar.Start(); err != nil {
		b.t.Fatal(err)
	}
	r := b.Feed(b.t.Context(), out, `rm -rf "$1" && mkdir -p "$1" && tar -C "$1" -xf - && chmod -R go=rX "$1"`, to)
	if err := tar.Wait(); err != nil || r.Code != 0 {
		b.t.Fatalf("bring %s: %v %s %v", from, err, &said, r)
	}
}

// update runs a verb of the CLI as people do.
func (b *box) update(args ...string) machine.Result {
	return b.Run(b.t.Context(), append([]string{"whisper-appliance", "update"}, args...)...)
}

// does is update for a verb that has to succeed; its answer goes to v.
func (b *box) does(v any, args ...string) {
	b.t.Helper()
	r := b.update(append(args, "--json")...)
	if r.Code != 0 {
		b.t.Fatalf("update %v: %v", args, r)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(r.Out), v); err != nil {
		b.t.Fatalf("update %v: %v\n%v", args, err, r)
	}
}

// refused wants a verb to end with an exit code and a reason.
func (b *box) refused(code int, reason string, args ...string) {
	b.t.Helper()
	r := b.update(append(args, "--json")...)
	var said struct{ Error, Hint, Code string }
	json.Unmarshal([]byte(r.Err), &said) //nolint:errcheck // it is printed
	if r.Code != code || said.Code != reason || said.Error == "" || said.Hint == "" {
		b.t.Errorf("update %v: want exit code %d and %q with a hint: %v", args, code, reason, r)
	}
}

// status is what the updater shows.
func (b *box) status() deployment.Status {
	b.t.Helper()
	var s deployment.Status
	b.does(&s, "status")
	return s
}

// records are the newest of the record, the newest first.
func (b *box) records(most int) []deployment.Record {
	b.t.Helper()
	var list []deployment.Record
	b.does(&list, "history", "--number", fmt.Sprint(most))
	return list
}

// last is the newest record.
func (b *box) last() deployment.Record {
	b.t.Helper()
	list := b.records(1)
	if len(list) != 1 {
		b.t.Fatal("there is no record")
	}
	return list[0]
}

// ends waits until no transaction and no trial is under way, and gives the
// record of the last.
func (b *box) ends() deployment.Record {
	b.t.Helper()
	b.until("the trial ends", trialLimit, func() bool {
		s := b.status()
		return s.Transaction == "" && s.Queued == nil && (s.State == deployment.Idle || s.State == deployment.Attention)
	})
	return b.last()
}

// onTrial waits until a version is on trial.
func (b *box) onTrial(version string) {
	b.t.Helper()
	b.until("version "+version+" is on trial", trialLimit, func() bool {
		s := b.status()
		return s.State == deployment.Trial && s.To.Version == version
	})
}

// servesVersion wants this one to serve: by its link, by what it says, and it
// answers.
func (b *box) servesVersion(want string) {
	b.t.Helper()
	var health struct{ Version string }
	_, body := b.get(plain + "/health")
	json.Unmarshal([]byte(body), &health) //nolint:errcheck // it is printed
	if s := b.status(); s.Current.Version != want || !strings.HasPrefix(health.Version, want) {
		b.t.Errorf("version %s serves and says %s, want %s", s.Current.Version, body, want)
	}
}

// packaged is the version of the package under test.
func (b *box) packaged() string {
	b.t.Helper()
	return b.status().Golden.Version
}

// eight is the load of these tests: six that ask small things, one that uploads,
// one with long recordings.
func (b *box) eight() load.Load {
	wav, _ := reference(b.t)
	return load.Load{Dial: b.Dial, URL: plain, Small: "/livez", Kept: 3, Fresh: 3, Pace: 10 * time.Millisecond,
		Short: wav, Long: longClip(b.t), Expect: "window", Repeat: 3}
}

// nothingFailed wants that no request did.
func (b *box) nothingFailed(what string, c load.Counts) {
	b.t.Helper()
	if asked, failed := c.Total(); failed != 0 || asked == 0 {
		b.t.Errorf("%s: failed:\n%s", what, strings.Join(c.First, "\n"))
	}
}

// took are the phases of a record, for people.
func took(r deployment.Record) string {
	var b strings.Builder
	for _, p := range r.Phases {
		fmt.Fprintf(&b, "%s %.1f, ", p.Phase, p.Seconds)
	}
	fmt.Fprintf(&b, "whole %.1f s", r.Ended.Sub(r.Started).Seconds())
	return b.String()
}

// followed reads the stream of events until its end and gives the states it saw,
// coming back as the stream says whenever a server ends it.
func (b *box) followed(ctx context.Context) (states []deployment.State, breaks int) {
	told := ""
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, plain+"/api/v1/updates/events", nil)
		if err != nil {
			break
		}
		if told != "" {
			req.Header.Set("Last-Event-ID", told)
		}
		res, err := b.client.Do(req)
		if err != nil {
			if ctx.Err() == nil {
				breaks++
			}
			continue
		}
		states, told = readEvents(res.Body, states, told)
		res.Body.Close()
	}
	return states, breaks
}
