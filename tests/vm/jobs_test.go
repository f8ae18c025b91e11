//go:build e2e

package vm

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
)

const (
	wantAccepted = 200 // jobs
	wantCuts     = 8
	perCut       = 22 // jobs that are accepted between two cuts, about
	senders      = 4

	sendLimit   = 2 * time.Minute // for the jobs between two cuts to be accepted
	doneLimit   = 3 * time.Minute // for what is left at the end to be done
	sinceTheCut = 3 * time.Second // until a sender has seen that the power went

	stateIn = "/var/lib/whisper-appliance"
)

// TestAcceptedJobsOutliveThePlug: of 200 jobs that were accepted while the plug
// was pulled again and again none is lost, each comes to its own text, and
// nothing is left over.
func TestAcceptedJobsOutliveThePlug(t *testing.T) {
	b := installed(t)
	begin, random := time.Now(), rand.New(rand.NewPCG(13, wantAccepted))
	c := &campaign{t: t, box: b, client: api.Client{Base: plain, HTTP: b.Client()}, accepted: map[string]*recording{}}
	c.waiting = recordings(t, wantAccepted, random)
	c.all = append(c.all, c.waiting...)
	figure(t, "%d recordings made after %.1f s", len(c.all), time.Since(begin).Seconds())
	for i := range wantCuts {
		c.until(i*perCut+perCut/2+random.IntN(perCut/2), time.Duration(random.IntN(1500))*time.Millisecond)
		c.backOn(c.pull())
	}
	c.until(wantAccepted, 0)
	c.stop()
	c.done()
	figure(t, "%d of %d accepted jobs are done after %d cuts, %.0f s in all", len(c.accepted), wantAccepted, wantCuts, time.Since(begin).Seconds())
	c.tidied()
}

// campaign is jobs that are sent while the power comes and goes.
type campaign struct {
	t      *testing.T
	box    *box
	client api.Client
	all    []*recording

	off     context.CancelFunc // ends the senders; nil = there are none
	senders sync.WaitGroup

	mu       sync.Mutex
	waiting  []*recording          // to be sent
	accepted map[string]*recording // by id of the job
}

// until has jobs sent until so many were accepted in all, and on for a while.
func (c *campaign) until(accepted int, more time.Duration) {
	c.t.Helper()
	if c.off == nil {
		var power context.Context
		power, c.off = context.WithCancel(c.t.Context())
		for range senders {
			c.senders.Go(func() { c.send(power) })
		}
	}
	defer func() {
		if c.t.Failed() {
			c.stop()
		}
	}()
	var since time.Time
	c.box.until("jobs are accepted", sendLimit, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if since.IsZero() && (len(c.accepted) >= accepted || c.t.Failed()) {
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) >= more
	})
}

// stop has the senders end.
func (c *campaign) stop() {
	if c.off != nil {
		c.off()
		c.senders.Wait()
		c.off = nil
	}
}

// pull pulls the plug, under the senders, and tells how many jobs were accepted.
func (c *campaign) pull() (accepted int) {
	c.t.Helper()
	cuts, err := c.box.Cut()
	c.stop()
	if err != nil {
		c.t.Fatal(err)
	}
	figure(c.t, "plug pulled with %d jobs accepted: in all %d cuts, of %d KiB not flushed %d KiB were lost",
		len(c.accepted), cuts.Cuts, (cuts.Kept+cuts.Lost)>>10, cuts.Lost>>10)
	return len(c.accepted)
}

// backOn gives the power back, and looks that file system and database are whole
// and that there are as many jobs as were accepted, and the few that were stored
// without an answer.
func (c *campaign) backOn(accepted int) {
	c.t.Helper()
	b := c.box
	if err := b.PowerOn(b.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	b.serves(2 * b.bootLimit())
	took := time.Since(b.On)
	if said := b.must(`dmesg --level=emerg,alert,crit,err | grep -i ext4 || true`); said != "" {
		c.t.Errorf("the file system is damaged:\n%s", said)
	}
	figure(c.t, "%.1f s after the power was back, %d accepted: %s", took.Seconds(), accepted, c.audited())
}

// audited looks at the database.
func (c *campaign) audited() string {
	c.t.Helper()
	return c.box.must(`setpriv --reuid=whisper-appliance --regid=whisper-appliance --clear-groups /srv/vm/audit "$1/database/appliance.db"`, stateIn)
}

// send sends recordings one after the other while there is power. One whose
// answer did not come is sent again: its sender cannot know better.
func (c *campaign) send(power context.Context) {
	for power.Err() == nil {
		r := c.next()
		if r == nil {
			return
		}
		id, err := c.submit(power, r)
		if err == nil {
			c.mu.Lock()
			c.accepted[id] = r
			c.mu.Unlock()
			continue
		}
		c.mu.Lock()
		c.waiting = append(c.waiting, r)
		c.mu.Unlock()
		select {
		case <-power.Done():
		case <-time.After(sinceTheCut):
			c.t.Errorf("%s, with the power on: %v (%s)", r.name, err, fault.Hint(err))
			return
		}
	}
}

func (c *campaign) next() *recording {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		return nil
	}
	r := c.waiting[0]
	c.waiting = c.waiting[1:]
	return r
}

// submit sends one recording, an upload from where it is.
func (c *campaign) submit(power context.Context, r *recording) (id string, err error) {
	wanted := api.NewJob{Request: api.Request{Path: r.path}}
	sent := func(_, _ int64) {}
	if !r.pieces {
		j, err := c.client.AddJob(power, wanted, sent)
		return j.ID, err
	}
	if r.upload == "" {
		u, err := c.client.CreateUpload(power, wanted, r.size)
		if err != nil {
			return "", err
		}
		r.upload = u.ID
	}
	f, err := os.Open(r.path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return c.client.Send(power, r.upload, api.Sending{From: f, Piece: r.size/3 + 1, Sent: sent, Retry: api.Retry{Until: time.Nanosecond}})
}

// done waits for the end of all jobs, and compares what came of them.
func (c *campaign) done() {
	c.t.Helper()
	ctx := c.t.Context()
	var all []api.Job
	c.box.until("all jobs are done", doneLimit, func() bool {
		list, err := c.client.Jobs(ctx, api.JobsQuery{Limit: 1000})
		all = list.Jobs
		open := 0
		for _, j := range all {
			if j.State == "queued" || j.State == "running" {
				open++
			}
		}
		return err == nil && open == 0
	})
	texts := map[string]string{}
	for _, r := range c.all {
		texts[r.name] = r.text
	}
	there, interrupted := map[string]string{}, 0
	for _, j := range all {
		there[j.ID] = j.Name
		detail, err := c.client.Job(ctx, j.ID)
		if err != nil || detail.State != "done" || detail.Text != texts[j.Name] {
			c.t.Errorf("job %s of %s: %v, %+v; want %q", j.ID, j.Name, err, detail, texts[j.Name])
		}
		if j.Attempts > 1 {
			interrupted++
		}
	}
	for id, r := range c.accepted {
		if there[id] != r.name {
			c.t.Errorf("job %s of %s was accepted, and is now of %q", id, r.name, there[id])
		}
	}
	figure(c.t, "%d jobs, %d of them stored without an answer, %d were interrupted; %s", len(all), len(all)-len(c.accepted), interrupted, c.audited())
	if interrupted == 0 {
		c.t.Error("no job was interrupted at all")
	}
}

// tidied looks that nothing is left of the recordings: what could not be removed
// when the power went is, once it is as old as the tidying wants.
func (c *campaign) tidied() {
	c.t.Helper()
	b := c.box
	const all = `find "$1/jobs" "$1/uploads" "$1/spool" -type f ! -name .lock`
	young := strings.Fields(b.must(all, stateIn))
	b.must(`systemctl stop whisper-appliance.service
		`+all+` -exec touch -d '2 days ago' {} +
		systemctl start whisper-appliance.service`, stateIn)
	b.serves(2 * time.Minute)
	b.until("recordings and uploads are tidied up", time.Minute, func() bool { return b.must(all, stateIn) == "" })
	figure(c.t, "%d files were left of recordings and uploads, and are tidied up", len(young))
}
