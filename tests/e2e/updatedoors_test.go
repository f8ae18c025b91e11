//go:build e2e

package e2e

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/tests/e2e/machine"
)

// ask calls a door with a key ("" = none) and gives what it answers.
func (b *box) ask(method, path, key, body string) (status int, answer string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, plain+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	return b.do(req)
}

// answers wants a door to answer with a status, and all these words.
func (b *box) answers(want int, method, path, key, body string, words ...string) {
	b.t.Helper()
	status, answer := b.ask(method, path, key, body)
	if status != want {
		b.t.Errorf("%s %s: %d %.500s, want %d", method, path, status, answer, want)
	}
	for _, w := range words {
		if !strings.Contains(answer, w) {
			b.t.Errorf("%s %s: %.800s\nwithout %s", method, path, answer, w)
		}
	}
}

// by wants the newest record to be of a door.
func (b *box) by(door deployment.Door, outcome, version string) {
	b.t.Helper()
	if r := b.last(); r.Door != door || r.Outcome != outcome || r.To.Version != version {
		b.t.Errorf("the record says that version %s came by %q and was %s, want %s, %q and %s", r.To.Version, r.Door, r.Outcome, version, door, outcome)
	}
}

// TestUpdateDoors: every door leads through the one transaction.
func TestUpdateDoors(t *testing.T) {
	b := updated(t, sound)
	b.withoutModel()
	key := b.must(`whisper-appliance keys add --scope admin e2e 2>/dev/null`)
	defer b.must(`whisper-appliance keys remove e2e`)
	before := b.packaged()
	for _, door := range []struct {
		name  string
		apply func(b *box)
	}{
		{"original", func(b *box) { b.byOriginal(key, before) }},
		{"http", func(b *box) { b.byHTTP(key, before) }},
		{"bus", func(b *box) { b.byBus() }},
		{"file", func(b *box) { b.byFile() }},
		{"timer", func(b *box) { b.byTimer() }},
	} {
		t.Run(door.name, func(t *testing.T) {
			b := &box{b.Machine, t, b.client}
			b.asPackaged()
			door.apply(b)
		})
	}
}

// byOriginal updates as the original's page did.
func (b *box) byOriginal(key, before string) {
	backup := b.serving()
	for _, path := range []string{"/api/enterprise/check-updates", "/api/enterprise/update-status"} {
		if status, answer := b.get(secure + path); status != http.StatusOK || !strings.Contains(answer, `"status":"success"`) {
			b.t.Errorf("GET %s over https: %d %.500s", path, status, answer)
		}
	}
	b.answers(http.StatusOK, "GET", "/api/enterprise/check-updates", "", "", `"has_update":true`, `"latest_version":"`+sound.Version, `"current_version":"`+before)
	b.answers(http.StatusUnauthorized, "POST", "/api/enterprise/start-update", "", "")
	b.answers(http.StatusOK, "POST", "/api/enterprise/start-update", key, "", `"update_method"`)
	b.onTrial(sound.Version)
	b.answers(http.StatusOK, "GET", "/api/enterprise/update-status", "", "", `"update_state"`, `"progress"`)
	b.servesVersion(sound.Version)
	b.answers(http.StatusOK, "GET", "/api/update/backups", "", "", `"name":"`+backup+`"`, `"name":"golden"`)
	b.answers(http.StatusOK, "POST", "/api/update/rollback", key, `{"backup_name":"`+backup+`"}`, `"success":true`)
	b.ends()
	b.by(deployment.DoorHTTP, deployment.RolledBack, sound.Version)
	b.servesVersion(before)
}

// byHTTP goes through the doors of the API.
func (b *box) byHTTP(key, before string) {
	const at = "/api/v1/updates"
	b.answers(http.StatusUnauthorized, "POST", at+"/check", "", "")
	b.answers(http.StatusOK, "POST", at+"/check", key, "", `"update_available":true`, sound.Version)
	b.answers(http.StatusConflict, "POST", at+"/apply", key, `{"version":"9.9.9"}`, "not_offered")
	b.answers(http.StatusAccepted, "POST", at+"/download", key, "")
	b.until("it is fetched", 30*time.Second, func() bool {
		s := b.status()
		return s.Available != nil && s.Available.Fetched && s.State == deployment.Idle
	})
	b.answers(http.StatusAccepted, "POST", at+"/apply", key, `{"version":"`+sound.Version+`"}`, `"transaction":"`)
	b.onTrial(sound.Version)
	b.answers(http.StatusOK, "GET", at, "", "", `"state":"trial"`, `"trial":{`)
	b.answers(http.StatusAccepted, "POST", at+"/cancel", key, "")
	b.ends()
	b.by(deployment.DoorHTTP, deployment.RolledBack, sound.Version)
	b.answers(http.StatusOK, "GET", at+"/history?limit=1", "", "", `"rollback_asked"`)
	b.answers(http.StatusOK, "GET", "/api/v1/deployments", "", "", `"analysis":{`)
	b.answers(http.StatusNoContent, "PUT", at+"/policy", key, `{"channel":"beta","window":"01:00-02:00"}`)
	b.answers(http.StatusBadRequest, "PUT", at+"/policy", key, `{"window":"yesterday"}`)
	if p := b.status().Policy; p.Channel != "beta" || p.Window != "01:00-02:00" {
		b.t.Errorf("the policy is %+v", p)
	}
	pid := b.property(server, "MainPID")
	b.until("a restart is begun", 10*time.Second, func() bool { // what the bus tells of the end of the trial may be a moment old
		status, _ := b.ask("POST", at+"/restart", key, "")
		return status == http.StatusAccepted
	})
	b.until("another process serves", 60*time.Second, func() bool {
		now := b.property(server, "MainPID")
		return now != pid && now != "0" && b.component("updater") == "ok"
	})
	b.servesVersion(before)
}

// call asks the updater over the bus as root.
func (b *box) call(method string, args ...string) machine.Result {
	return b.Run(b.t.Context(), append(strings.Fields("busctl --timeout=120 call org.whisperappliance.Updater1 /org/whisperappliance/Updater1 org.whisperappliance.Updater1 "+method), args...)...)
}

// byBus updates with busctl, as the documentation shows.
func (b *box) byBus() {
	b.must(`busctl introspect org.whisperappliance.Updater1 /org/whisperappliance/Updater1 | grep -q '^.Apply'`)
	for _, step := range []struct {
		method string
		args   []string
		want   string
	}{
		{"Check", nil, `s "` + sound.Version + `"`},
		{"Download", []string{"s", ""}, ""},
		{"Apply", []string{"s", ""}, `s "2`},
	} {
		if r := b.call(step.method, step.args...); r.Code != 0 || !strings.HasPrefix(r.Out, step.want) {
			b.t.Fatalf("%s: %v", step.method, r)
		}
		if step.method == "Download" {
			b.until("it is fetched", 30*time.Second, func() bool { s := b.status(); return s.Available != nil && s.Available.Fetched })
			b.until("nothing is under way", 10*time.Second, func() bool { return b.status().State == deployment.Idle })
		}
	}
	b.onTrial(sound.Version)
	b.until("the properties say so", 10*time.Second, func() bool {
		got := b.must(`for p in State Current Transaction Trial; do busctl get-property org.whisperappliance.Updater1 /org/whisperappliance/Updater1 org.whisperappliance.Updater1 $p; done`)
		return strings.Contains(got, `s "trial"`) && strings.Contains(got, sound.Version)
	})
	b.modest()
	if r := b.call("Commit"); r.Code != 0 {
		b.t.Errorf("Commit: %v", r)
	}
	b.ends()
	b.by(deployment.DoorDBus, deployment.Committed, sound.Version)
	if r := b.call("Rollback"); r.Code != 0 {
		b.t.Errorf("Rollback: %v", r)
	}
	b.ends()
	b.by(deployment.DoorDBus, deployment.Committed, b.packaged())
}

// modest holds the updater, who watches a trial, to its limit.
func (b *box) modest() {
	b.t.Helper()
	sizes, err := b.Pss("whisper-appliance-updater")
	if err != nil {
		b.t.Fatal(err)
	}
	size := sizes[updater]
	figure(b.t, "the updater in a trial: %.1f MB resident", float64(size)/(1<<20))
	if size == 0 || size > updaterPss {
		b.t.Errorf("the updater holds %d bytes, at most %d", size, int64(updaterPss))
	}
}

// byFile installs a file, with no source configured.
func (b *box) byFile() {
	b.configure(strings.Replace(settingsOf, `"`+offersIn+`"`, "", 1))
	b.refused(69, "no_source", "check")
	file, err := shop(b.t).Bundle(b.t.Context(), sound)
	if err != nil {
		b.t.Fatal(err)
	}
	const in = "/srv/e2e/release.wa"
	if err := b.CopyIn(b.t.Context(), file, in, 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.does(nil, "install", in)
	b.onTrial(sound.Version)
	b.does(nil, "commit")
	b.by(deployment.DoorFile, deployment.Committed, sound.Version)
	b.servesVersion(sound.Version)
}

// byTimer has the timer's unit do what the policy says: outside of its window a
// download, in it an installation.
func (b *box) byTimer() {
	hour := b.must(`date +%-H`)
	var now int
	fmt.Sscan(hour, &now) //nolint:errcheck // date wrote it
	later := fmt.Sprintf("%02d:00-%02d:00", (now+4)%24, (now+5)%24)
	b.configure(strings.Replace(settingsOf, "automatic = \"off\"\n", "", 1))
	b.must(`whisper-appliance update policy set --automatic install --window "$1"`, later)
	b.must(`systemctl start whisper-appliance-update.service`)
	s := b.status()
	if s.State == deployment.Trial || s.Available == nil || !s.Available.Fetched || s.Policy.Window != later {
		b.t.Errorf("outside of its window the timer has come to %+v, on offer %+v", s, s.Available)
	}
	b.must(`whisper-appliance update policy set --window "" && systemctl start whisper-appliance-update.service`)
	b.onTrial(sound.Version)
	b.does(nil, "commit")
	b.by(deployment.DoorTimer, deployment.Committed, sound.Version)
}

// depot gives the repository out on an address of the machine, and can be killed
// in the middle of a download.
type depot struct {
	*httptest.Server
	cut    atomic.Bool  // the next artefact ends in its middle
	resume atomic.Int64 // requests that asked for the rest of one
}

func (b *box) depot(address string, secure bool) *depot {
	b.t.Helper()
	listener, err := b.Listen(b.t.Context(), "tcp", address)
	if err != nil {
		b.t.Fatal(err)
	}
	d := &depot{}
	files := http.FileServer(http.Dir(shop(b.t).Repository()))
	d.Server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		artefact := strings.HasPrefix(r.URL.Path, "/targets/")
		if artefact && r.Header.Get("Range") != "" {
			d.resume.Add(1)
		}
		if artefact && d.cut.Load() {
			w = &halved{ResponseWriter: w, left: 8 << 20, die: func() { go d.Close() }}
		}
		files.ServeHTTP(w, r)
	})}}
	if secure {
		d.StartTLS()
	} else {
		d.Start()
	}
	b.t.Cleanup(d.Close)
	return d
}

// halved breaks a transfer off after so many bytes, and the server with it.
type halved struct {
	http.ResponseWriter
	left int
	die  func()
}

func (h *halved) Write(p []byte) (int, error) {
	if h.left -= len(p); h.left < 0 {
		h.die()
		panic(http.ErrAbortHandler)
	}
	return h.ResponseWriter.Write(p)
}

// TestUpdateFetched: the fetcher's unit brings releases over HTTP and HTTPS; a
// download whose source is killed goes on where it was.
func TestUpdateFetched(t *testing.T) {
	b := updated(t, sound)
	b.withoutModel()
	const address = "127.0.0.1:8410"
	b.configure(strings.Replace(settingsOf, offersIn, "http://"+address, 1))
	d := b.depot(address, false)
	d.cut.Store(true)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r := b.update("download", "--json")
		t.Logf("the source is killed: %v", r)
	}()
	b.until("the source is dead", 60*time.Second, func() bool {
		conn, err := b.Dial(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	again := b.depot(address, false)
	<-stopped
	b.does(nil, "download")
	if again.resume.Load() == 0 {
		t.Error("the download began anew")
	}
	b.does(nil, "apply")
	b.does(nil, "commit")
	b.servesVersion(sound.Version)
	b.overTLS()
}

// overTLS has a source whose certificate is signed by an authority that the
// machine knows, and first one that it does not.
func (b *box) overTLS() {
	const address = "127.0.0.1:8411"
	if err := shop(b.t).Offer(b.t.Context(), sound, sounder); err != nil {
		b.t.Fatal(err)
	}
	d := b.depot(address, true)
	b.configure(strings.Replace(settingsOf, offersIn, "https://"+address, 1))
	b.refused(69, "source_unreachable", "check")
	var text strings.Builder
	pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: d.Certificate().Raw}) //nolint:errcheck // into memory
	const known = "/usr/local/share/ca-certificates/e2e.crt"
	if err := b.Write(b.t.Context(), known, 0o644, strings.NewReader(text.String())); err != nil {
		b.t.Fatal(err)
	}
	b.must(`update-ca-certificates >/dev/null 2>&1`)
	defer b.must(`rm "$1"; update-ca-certificates --fresh >/dev/null 2>&1`, known)
	var found struct{ Available *deployment.Offer }
	if b.does(&found, "check"); found.Available == nil || found.Available.Version != sounder.Version {
		b.t.Errorf("on offer is %+v, want %s", found.Available, sounder.Version)
	}
}
