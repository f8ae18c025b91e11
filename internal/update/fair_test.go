package update

import (
	"context"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// becomes has the unit be in that state once it was started, while the link names
// the slot current.
func (w *world) becomes(unit, current string, is slot.State) {
	w.m.after = func(verb, changed string) {
		if now, _ := w.u.links(); verb != "stop" && changed == unit && now == current {
			is.Invocation = w.m.Units[unit].Invocation
			w.m.Units[unit] = is
		}
	}
}

// stopsAll has somebody stop the server, and the candidate in slot b with it, once
// that one was started.
func (w *world) stopsAll() {
	w.m.after = func(verb, changed string) {
		if verb != "stop" && changed == "next-b" {
			for _, unit := range []string{"next-b", server} {
				w.m.Units[unit] = slot.State{Active: "inactive", Result: "success", Invocation: w.m.Units[unit].Invocation}
			}
		}
	}
}

// TestNoFaultOfTheReleases: what a release cannot help does not ban it, is told by
// its own reason, and what was there before serves.
func TestNoFaultOfTheReleases(t *testing.T) {
	edited := fault.New(fault.Conflict, slot.UnitEdited, "it is Type=simple").Try("take it out of x.conf")
	stopped := slot.State{Active: "inactive", Result: "success"}
	killed := slot.State{Active: "failed", Result: "oom-kill", Exit: 9}
	for _, tt := range []struct {
		name    string
		spoil   func(w *world)
		code    string
		outcome string
		at      deployment.Phase
		blame   string
		reason  string
		runs    string
	}{
		{"no time for its start", func(w *world) { w.slow("start", "next-b") },
			slot.TooSlow, deployment.Aborted, deployment.Overlap, deployment.Environment, slot.TooSlow, slot.A},
		{"no time for its smoke test", func(w *world) { w.deaf() },
			slot.TooSlow, deployment.Aborted, deployment.Overlap, deployment.Environment, slot.TooSlow, slot.A},
		{"killed for memory beside the server", func(w *world) { w.becomes("next-b", slot.A, killed) },
			slot.UnitHindered, deployment.Aborted, deployment.Overlap, deployment.Environment, slot.UnitHindered, slot.A},
		{"killed for memory in its place", func(w *world) { w.becomes(server, slot.B, killed) },
			slot.RolledBack, deployment.RolledBack, deployment.TakeOver, deployment.Environment, slot.UnitHindered, slot.A},
		{"stopped beside the server", func(w *world) { w.stopsAll() },
			slot.Stopped, deployment.Canceled, deployment.Overlap, deployment.Operator, slot.Stopped, "inactive"},
		{"stopped in its place", func(w *world) { w.becomes(server, slot.B, stopped) },
			slot.Stopped, deployment.Canceled, deployment.TakeOver, deployment.Operator, slot.Stopped, "inactive"},
		{"its unit was changed", func(w *world) { w.shipped(func(string) error { return edited }) },
			slot.UnitEdited, deployment.Aborted, deployment.Plan, deployment.Configuration, slot.UnitEdited, slot.A},
		{"its unit is changed just now", func(w *world) {
			w.shipped(func(string) error {
				if current, _ := w.u.links(); current == slot.B {
					return edited
				}
				return nil
			})
		}, slot.RolledBack, deployment.RolledBack, deployment.TakeOver, deployment.Configuration, slot.UnitEdited, slot.A},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			want := w.deploy("1.1.0")
			want.Door = deployment.DoorCLI
			m, err := slot.Read(want.Tree)
			must(t, err)
			tt.spoil(w)
			ctx := t.Context()
			if tt.reason == slot.TooSlow {
				late := fault.New(fault.Unavailable, slot.TooSlow, "it took more than a second").Try("give it more")
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, time.Second, late)
				defer cancel()
			}
			res, err := w.u.Apply(ctx, want)
			wantCode(t, err, tt.code)
			if tt.reason == slot.UnitEdited && !strings.Contains(fault.Hint(err), "x.conf") {
				t.Errorf("try %s", fault.Hint(err))
			}
			r := w.last(1)
			if res.Outcome != tt.outcome || r.Outcome != tt.outcome || r.At != tt.at || r.Blame != tt.blame || r.Reason != tt.reason {
				t.Errorf("outcome %s, record %s at %s: %s, %s: %s", res.Outcome, r.Outcome, r.At, r.Blame, r.Reason, r.Says)
			}
			st := w.state()
			if st.banned(m.Digest(), "") != nil || st.Alarm != nil {
				t.Errorf("quarantine %+v, alarm %+v", st.Banned, st.Alarm)
			}
			w.stands(slot.A, slot.A, tt.runs)
			w.idles()
		})
	}
}

// slow has a job end only with the time that there is for it.
func (w *world) slow(verb, unit string) {
	swap := w.u.Site.Switch
	w.u.Site.Switch = func(tell func(step, text string)) *slot.Switch {
		sw := swap(tell)
		sw.Units = &slowUnits{w.m, verb + " " + unit}
		return sw
	}
}

type slowUnits struct {
	*machine
	job string
}

func (u *slowUnits) Start(ctx context.Context, unit string) error {
	if u.job == "start "+unit {
		u.machine.Start(ctx, unit) //nolint:errcheck // it goes on all the same
		<-ctx.Done()
		return fault.New(fault.Unavailable, "job_unfinished", "systemd was still at it").Because(ctx.Err()).Try("x")
	}
	return u.machine.Start(ctx, unit)
}

// deaf has no candidate answer in time.
func (w *world) deaf() {
	w.with(func(sw *slot.Switch) {
		sw.Smoke = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	})
}

// shipped says of each unit whether it is the package's.
func (w *world) shipped(says func(unit string) error) {
	w.with(func(sw *slot.Switch) {
		sw.Shipped = func(_ context.Context, unit string) error { return says(unit) }
	})
}

func (w *world) with(change func(sw *slot.Switch)) {
	swap := w.u.Site.Switch
	w.u.Site.Switch = func(tell func(step, text string)) *slot.Switch {
		sw := swap(tell)
		change(sw)
		return sw
	}
}

// TestTimeAfterTheLinkMoved: how little the caller has left is nothing to a switch
// that has begun.
func TestTimeAfterTheLinkMoved(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	w.m.after = func(verb, unit string) {
		if verb == "restart" {
			<-ctx.Done()
		}
	}
	res, err := w.u.Apply(ctx, w.deploy("1.1.0"))
	if err != nil || res.Outcome != OnTrial {
		t.Errorf("%s, %v", res.Outcome, err)
	}
	w.stands(slot.B, slot.A, slot.B)
}

// TestWayBackThatIsUnwell is kept where there is none better, and told.
func TestWayBackThatIsUnwell(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"after its trial": func(w *world) {
			w.onTrial("1.1.0")
			w.m.Sick = []string{"1.0.0"}
			w.fails()
		},
		"at its take-over": func(w *world) {
			w.m.Crash, w.m.Sick = []string{"server 1.1.0"}, []string{"1.0.0"}
			_, err := w.u.Apply(t.Context(), w.deploy("1.1.0"))
			wantCode(w.t, err, slot.RolledBack)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			end(w)
			w.stands(slot.A, slot.A, slot.A)
			w.idles()
			if r, a := w.last(1), w.state().Alarm; r.Outcome != deployment.RolledBack || a == nil || a.Code != slot.Unwell || a.Hint == "" {
				t.Errorf("%s, alarm %+v", r.Outcome, a)
			}
		})
	}
	w := newWorld(t) // another release is better
	tree(t, w.u.Slots.Golden, "0.9.0")
	w.onTrial("1.1.0")
	w.m.Sick = []string{"1.0.0"}
	w.fails()
	if v := w.m.version(w.m.where(server)); v != "0.9.0" {
		t.Errorf("%s serves", v)
	}
}

// TestTrialOfAStoppedServer: a rollback moves the link, and starts nothing.
func TestTrialOfAStoppedServer(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	was := w.m.Units[server]
	w.m.Units[server] = slot.State{Active: "inactive", Result: "success", Invocation: was.Invocation}
	_, err := w.u.Rollback(t.Context(), deployment.DoorCLI)
	must(t, err)
	w.stands(slot.A, slot.A, "inactive")
	w.idles()
	w = newWorld(t)
	w.onTrial("1.1.0")
	w.becomes(server, slot.A, slot.State{Active: "inactive", Result: "success"})
	w.fails()
	w.stands(slot.A, slot.A, "inactive")
	w.idles()
	if r, a := w.last(1), w.state().Alarm; r.Outcome != deployment.RolledBack || a == nil || a.Code != packageNotServing {
		t.Errorf("%s, alarm %+v", r.Outcome, a)
	}
}

// TestRecoveryThatIsHindered goes back, and bans nothing: it would not come any
// further the next time either.
func TestRecoveryThatIsHindered(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(w *world)
		runs  string
	}{
		deployment.Environment: {func(w *world) { w.becomes("next-b", slot.B, slot.State{Active: "failed", Result: "oom-kill"}) }, slot.A},
		deployment.Operator:    {(*world).stopsAll, "inactive"},
	} {
		t.Run(name, func(t *testing.T) {
			w := left(t, armed, slot.A, slot.A, true)
			point(t, w.u.Slots.Current, slot.B) // and the server still runs what is in a
			tt.spoil(w)
			_, err := w.u.Recover(t.Context(), false)
			must(t, err)
			w.stands(slot.A, slot.A, tt.runs)
			w.idles()
			if r, st := w.last(1), w.state(); r.Outcome != deployment.RolledBack || r.Blame != name || len(st.Banned) > 0 || st.Held != "1.1.0" {
				t.Errorf("%s, %s, held %q, quarantine %+v", r.Outcome, r.Blame, st.Held, st.Banned)
			}
		})
	}
}
