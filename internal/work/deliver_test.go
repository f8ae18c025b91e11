package work

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/webhook"
)

// receiver notes what it is told, and answers with what the test says.
type receiver struct {
	*httptest.Server
	got    chan http.Header
	answer chan int
	asking atomic.Int64 // requests that wait for an answer
}

// left waits until nobody waits for an answer: who was ended is gone.
func (v *receiver) left(t *testing.T) {
	t.Helper()
	eventually(t, "a sender's connection ending", func() bool { return v.asking.Load() == 0 })
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	v := &receiver{got: make(chan http.Header, 99), answer: make(chan int, 99)}
	key := must(base64.StdEncoding.DecodeString(strings.TrimPrefix(outsideSecret, "whsec_")))
	v.Server = outside(t, func(w http.ResponseWriter, r *http.Request) {
		v.asking.Add(1)
		defer v.asking.Add(-1)
		body := must(io.ReadAll(r.Body))
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(r.Header.Get("webhook-id") + "." + r.Header.Get("webhook-timestamp") + "." + string(body)))
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); r.Header.Get("webhook-signature") != want {
			t.Errorf("signed %s, want %s", r.Header.Get("webhook-signature"), want)
		}
		r.Header.Set("Body", string(body))
		v.got <- r.Header
		select {
		case code := <-v.answer:
			w.WriteHeader(code)
		case <-r.Context().Done():
		}
	})
	return v
}

// telling waits until the delivery of a job is in a state.
func (r *rig) telling(t *testing.T, id string, want job.Telling) (v job.Delivery) {
	t.Helper()
	eventually(t, "a delivery being "+string(want), func() bool {
		last, err := r.Store.Deliveries(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		v = last[id]
		return v.State == want
	})
	return v
}

// due has all deliveries sent without their pause.
func (r *rig) due(t *testing.T) {
	t.Helper()
	r.exec(t, "UPDATE deliveries SET due = 0")
	token(r.untold)
}

// exec changes the database behind the desk's back.
func (r *rig) exec(t *testing.T, statement string) {
	t.Helper()
	err := r.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), statement)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWebhook: the end of a job is told, again until it is taken, as the same
// message.
func TestWebhook(t *testing.T) {
	to := newReceiver(t)
	r := newRig(t).reach(t, hostOf(to.Server))
	states := make(chan string, 9)
	r.Told = func(state string) { states <- state }
	r.start(t)
	w := r.wish(t, "a", "3")
	w.Webhook = to.URL + "/hook"
	j := r.submit(t, w)
	to.answer <- http.StatusInternalServerError
	first := <-to.got
	if body := first.Get("Body"); !strings.Contains(body, j.ID) || !strings.Contains(body, `"state":"done"`) {
		t.Errorf("told: %s", body)
	}
	eventually(t, "the failure being noted", func() bool { return r.telling(t, j.ID, job.Sending).Error != "" })
	if v := r.telling(t, j.ID, job.Sending); !strings.Contains(v.Error, "500") || time.Until(v.Due) < 3*time.Second || v.ID != first.Get("webhook-id") {
		t.Errorf("put off: %+v", v)
	}
	r.due(t)
	to.answer <- http.StatusNoContent
	if again := <-to.got; again.Get("webhook-id") != first.Get("webhook-id") || again.Get("Body") != first.Get("Body") {
		t.Errorf("again: %v", again)
	}
	if v := r.telling(t, j.ID, job.Delivered); v.Attempts != 2 || v.Error != "" {
		t.Errorf("delivered: %+v", v)
	}
	if a, b := <-states, <-states; a != "sending" || b != "delivered" {
		t.Errorf("counted: %s, %s", a, b)
	}
	bad := r.wish(t, "a", "!")
	bad.Webhook = w.Webhook
	j = r.submit(t, bad)
	to.answer <- http.StatusGone
	if body := (<-to.got).Get("Body"); !strings.Contains(body, `"state":"failed"`) {
		t.Errorf("told: %s", body)
	}
	r.telling(t, j.ID, job.GivenUp)
}

// TestWebhookHoldsNobodyUp: jobs are done while their receivers do not answer.
func TestWebhookHoldsNobodyUp(t *testing.T) {
	to := newReceiver(t)
	r := newRig(t).reach(t, hostOf(to.Server)).start(t)
	for range 3 * deliveriesAtOnce {
		w := r.wish(t, "a", "1")
		w.Webhook = to.URL
		r.await(t, r.submit(t, w).ID, job.Done)
	}
	if n := len(to.got); n > deliveriesAtOnce {
		t.Errorf("%d are told at once", n)
	}
}

// TestWebhookOfAStop: a server that stops in the middle of an attempt leaves it to
// the next one, at once.
func TestWebhookOfAStop(t *testing.T) {
	to := newReceiver(t)
	r := newRig(t).reach(t, hostOf(to.Server)).start(t)
	w := r.wish(t, "a", "3")
	w.Webhook = to.URL
	j := r.submit(t, w)
	first := <-to.got
	r.end()
	to.left(t)
	next := rigIn(t, r.dir).reach(t, hostOf(to.Server)).start(t)
	to.answer <- http.StatusOK
	if again := <-to.got; again.Get("webhook-id") != first.Get("webhook-id") {
		t.Errorf("another message: %v", again)
	}
	if v := next.telling(t, j.ID, job.Delivered); v.Attempts != 1 {
		t.Errorf("what a stop cut off counts: %+v", v)
	}
}

// TestTwoAppliancesTellOnce: two desks on one store share what is to be told, and
// one that stands in while a switch lasts tells nothing.
func TestTwoAppliancesTellOnce(t *testing.T) {
	to := newReceiver(t)
	first := newRig(t).reach(t, hostOf(to.Server))
	second, third := rigIn(t, first.dir).reach(t, hostOf(to.Server)), rigIn(t, first.dir).reach(t, hostOf(to.Server))
	first.Self, second.Self, third.Standby = job.NewWorker("one"), job.NewWorker("two"), true
	var mine, others atomic.Int64
	first.Told, second.Told = func(string) { mine.Add(1) }, func(string) { others.Add(1) }
	third.Told = func(string) { t.Error("told by one that stands in") }
	const jobs = 24
	for i := range jobs {
		w := first.wish(t, []string{"a", "b", "c", "d"}[i%4], "1")
		w.Webhook = to.URL
		first.submit(t, w)
	}
	for _, r := range []*rig{first, second, third} {
		r.Lock = ""
		r.start(t)
	}
	eventually(t, "both sending as much as each does at once", func() bool { return to.asking.Load() == 2*deliveriesAtOnce })
	for range jobs {
		to.answer <- http.StatusOK
	}
	eventually(t, "every end being told", func() bool { return mine.Load()+others.Load() == jobs })
	ids := map[string]bool{}
	for range jobs {
		ids[(<-to.got).Get("webhook-id")] = true
	}
	if len(ids) != jobs || len(to.got) > 0 {
		t.Errorf("%d ends in %d messages", jobs, len(ids)+len(to.got))
	}
	if mine.Load() == 0 || others.Load() == 0 {
		t.Errorf("%d were told by one, %d by the other", mine.Load(), others.Load())
	}
}

// TestOneReceiverHoldsNoOtherUp: the ends of others' jobs are told while one owner's
// receiver does not answer.
func TestOneReceiverHoldsNoOtherUp(t *testing.T) {
	slow, quick := newReceiver(t), newReceiver(t)
	r := newRig(t).reach(t, hostOf(slow.Server), hostOf(quick.Server))
	for range 2 * deliveriesAtOnce {
		w := r.wish(t, "slow", "1")
		w.Webhook = slow.URL
		r.submit(t, w)
	}
	r.start(t)
	eventually(t, "the slow one's share being sent", func() bool { return slow.asking.Load() == deliveriesAtOnce/2 })
	w := r.wish(t, "quick", "1")
	w.Webhook = quick.URL
	quick.answer <- http.StatusOK
	r.telling(t, r.submit(t, w).ID, job.Delivered)
	if n := slow.asking.Load(); n != deliveriesAtOnce/2 {
		t.Errorf("%d are told to one who does not answer", n)
	}
}

// TestOwnFailures: what the appliance itself lacks is put off, and no attempt.
func TestOwnFailures(t *testing.T) {
	to := newReceiver(t)
	r := newRig(t).reach(t, hostOf(to.Server))
	secret, missing := r.Webhooks.Secret, filepath.Join(r.dir, "none")
	w := r.wish(t, "a", "1")
	w.Webhook = to.URL
	j := r.submit(t, w)
	var step atomic.Int64 // of what is there
	event := r.Event
	r.Event = func(j job.Job) ([]byte, error) {
		if step.Load() == 0 {
			return nil, fault.New(fault.Unavailable, "starting", "the server is starting")
		}
		return event(j)
	}
	r.Webhooks.Secret = func() string {
		if step.Load() == 1 {
			return missing
		}
		return secret()
	}
	r.start(t)
	for _, words := range []string{"starting", "signed"} {
		eventually(t, "the failure being noted", func() bool { return strings.Contains(must(r.Store.Deliveries(t.Context(), j.ID))[j.ID].Error, words) })
		if v := r.telling(t, j.ID, job.Sending); v.Attempts != 0 {
			t.Errorf("counted: %+v", v)
		}
		step.Add(1)
		to.answer <- http.StatusOK
		r.due(t)
	}
	if v := r.telling(t, j.ID, job.Delivered); v.Attempts != 1 {
		t.Errorf("delivered: %+v", v)
	}
}

// TestJudge: who is to blame for an attempt that failed.
func TestJudge(t *testing.T) {
	r := newRig(t).reach(t, "a.test")
	r.init()
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	dial := fault.New(fault.Unavailable, outbound.CodeUnreachable, "a.test cannot be reached").Because(context.DeadlineExceeded)
	for name, c := range map[string]struct {
		ctx  context.Context
		err  error
		ours bool
		want job.Attempt
	}{
		"taken":         {t.Context(), nil, false, job.Attempt{State: job.Delivered}},
		"a dial":        {t.Context(), dial, false, job.Attempt{State: job.Sending, Error: "a.test cannot be reached"}},
		"no answer":     {over, dial, false, job.Attempt{State: job.Sending, Error: "the receiver took more than 20s"}},
		"ours":          {over, errors.New("x"), true, job.Attempt{State: job.Sending, Again: ownPause, Error: job.FailureOf(errors.New("x")).Message, None: true}},
		"wants no more": {t.Context(), fault.New(fault.Conflict, webhook.CodeGone, "gone"), false, job.Attempt{State: job.GivenUp, Error: "gone"}},
	} {
		got := r.judge(c.ctx, job.Delivery{Attempts: 1, Created: time.Now()}, c.err, c.ours)
		if !c.ours {
			got.Again = 0 // it is spread
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	since := func(d time.Duration) job.Attempt {
		return r.judge(t.Context(), job.Delivery{Created: time.Now().Add(-d)}, errors.New("x"), true)
	}
	if got := since(ownLongest / 2); got.Again != ownPauseMost {
		t.Errorf("what lasts is looked at again after %v", got.Again)
	}
	if got := since(ownLongest + time.Minute); got.State != job.GivenUp || got.Error == "" {
		t.Errorf("what lasts longer than a day: %+v", got)
	}
	r.endAll(errStops)
	if got := r.judge(t.Context(), job.Delivery{Attempts: 1}, dial, false); got != (job.Attempt{State: job.Sending, None: true}) {
		t.Errorf("cut off by a stop: %+v", got)
	}
}
