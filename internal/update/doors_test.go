package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trust"
)

// TestDoors: every door leads through the same transaction.
func TestDoors(t *testing.T) {
	for _, tt := range []struct {
		name string
		want func(w *world) Want
		kind string
	}{
		{"offer", func(w *world) Want { return Want{Door: deployment.DoorCLI, Trial: true} }, kindUpdate},
		{"version", func(w *world) Want { return Want{Door: deployment.DoorHTTP, Version: "v1.1.0", Trial: true} }, kindUpdate},
		{"timer", func(w *world) Want {
			return Want{Door: deployment.DoorTimer, Version: "1.1.0", Trial: true, Auto: true}
		}, kindUpdate},
		{"bundle", func(w *world) Want {
			path := w.bundle("1.1.0")
			w.set.Sources = nil
			return Want{Door: deployment.DoorFile, Bundle: path, Trial: true}
		}, kindUpdate},
		{"bundle by a relative path", func(w *world) Want {
			path := w.bundle("1.1.0")
			w.t.Chdir(filepath.Dir(path))
			return Want{Door: deployment.DoorFile, Bundle: filepath.Base(path), Trial: true}
		}, kindUpdate},
		{"dpkg", func(w *world) Want { return w.deploy("1.1.0") }, kindDeploy},
		{"switch", func(w *world) Want {
			tree(w.t, w.u.Slots.Path(slot.B), "1.1.0")
			return Want{Door: deployment.DoorCLI, Slot: slot.B, Trial: true}
		}, kindSwitch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.offers("1.1.0")
			begun := ""
			want := tt.want(w)
			want.Begun = func(transaction string) { begun = transaction }
			res := w.apply(want, OnTrial)
			w.stands(slot.B, slot.A, slot.B)
			if res.From.Version != "1.0.0" || res.To.Version != "1.1.0" || !res.Running || res.Transaction == "" || begun != res.Transaction {
				t.Errorf("result %+v, begun %q", res, begun)
			}
			if err := w.u.whole(t.Context(), slot.B, false); err != nil {
				t.Error(err)
			}
			w.proves()
			w.idles()
			if r := w.last(1); r.Outcome != deployment.Committed || r.Kind != tt.kind || r.Door != want.Door {
				t.Errorf("record %+v", r)
			}
		})
	}
}

// TestAlready: nothing newer leaves nothing, not even a record.
func TestAlready(t *testing.T) {
	for _, tt := range []struct {
		name string
		want func(w *world) Want
	}{
		{"the newest", func(*world) Want { return Want{} }},
		{"the very version", func(*world) Want { return Want{Version: "1.0.0"} }},
		{"a bundle of it", func(w *world) Want { return Want{Bundle: w.bundle("1.0.0")} }},
		{"the package's", func(w *world) Want { return Want{Door: deployment.DoorDpkg, Tree: w.u.Slots.Golden, Trial: true} }},
		{"the slot", func(*world) Want { return Want{Slot: slot.A} }},
	} {
		for _, systemd := range []bool{true, false} {
			w := newWorld(t)
			w.offers("1.0.0")
			if !systemd {
				w.withoutSystemd()
			}
			w.apply(tt.want(w), Already)
			w.stands(slot.A, slot.A, slot.A)
			w.idles()
			if all, err := deployment.Records(w.u.Dir, 0); err != nil || len(all) > 0 {
				t.Errorf("%s: records %+v, %v", tt.name, all, err)
			}
		}
	}
}

// TestRefusals: each reason has its code, changes nothing, and is recorded.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		want  func(w *world) Want
		code  string
		blame string
	}{
		{"no source", func(w *world) Want { w.set.Sources = nil; return Want{} }, "no_source", deployment.Configuration},
		{"not on offer", func(w *world) Want { return Want{Version: "1.7.0"} }, "no_such_release", deployment.Environment},
		{"no version", func(w *world) Want { return Want{Version: "../x"} }, "bad_version", deployment.Configuration},
		{"below the floor", func(w *world) Want {
			st := w.state()
			st.Floor = "1.2.0"
			must(w.t, w.u.save(st))
			return Want{Version: "1.1.0"}
		}, "downgrade", deployment.Configuration},
		{"another is pinned", func(w *world) Want {
			_, err := w.u.Pin("")
			must(w.t, err)
			return Want{Version: "1.1.0"}
		}, "pinned", deployment.Configuration},
		{"another is pinned in /etc", func(w *world) Want { w.set.Pin = "1.0.5"; return Want{Version: "1.1.0"} }, "pinned", deployment.Configuration},
		{"an older updater", func(w *world) Want { w.u.Version = "0.9.0"; w.min("1.1.0", "1.0.0"); return Want{Version: "1.1.0"} }, "old_updater", deployment.Configuration},
		{"other units", func(w *world) Want { return Want{Tree: w.other("1.3.0", runtime.GOARCH, slot.Contract+1)} }, "wrong_contract", deployment.Configuration},
		{"other units on offer", func(w *world) Want {
			w.publish(stable(publish.Release{File: w.artefact(w.other("1.3.0", runtime.GOARCH, slot.Contract+1))}))
			return Want{Version: "1.3.0"}
		}, "wrong_contract", deployment.Configuration},
		{"another machine's", func(w *world) Want { return Want{Tree: w.other("1.3.0", "riscv64", slot.Contract)} }, "wrong_arch", deployment.Configuration},
		{"another schema", func(w *world) Want {
			w.u.Site.Schema = func() (int, error) { return 7, nil }
			return Want{Version: "1.1.0"}
		}, "wrong_schema", deployment.Configuration},
		{"a slot that is none", func(w *world) Want { return Want{Slot: "../../x"} }, "unknown_slot", deployment.Environment},
		{"an empty slot", func(w *world) Want { return Want{Slot: slot.B} }, "no_manifest", deployment.Environment},
		{"a file that is no bundle", func(w *world) Want { return Want{Bundle: w.u.Slots.Golden + "/VERSION"} }, "bad_bundle", deployment.Candidate},
		{"a source without the artefact", func(w *world) Want {
			must(w.t, os.RemoveAll(filepath.Join(w.repo(), "targets")))
			return Want{}
		}, "artefact_missing", deployment.Environment},
		{"a changed byte of the artefact", func(w *world) Want { w.tamper("1.1.0"); return Want{} }, "artefact_damaged", deployment.Environment},
		{"another key's signature", func(w *world) Want {
			keys, err := publish.InitKeys(filepath.Join(w.home, "others"), 1, w.u.Now())
			must(w.t, err)
			w.u.Trust.Root = keys.Root()
			return Want{}
		}, "bad_signature", deployment.Environment},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.offers("1.1.0")
			want := tt.want(w)
			want.Trial = true
			w.refused(want, tt.code)
			w.stands(slot.A, slot.A, slot.A)
			w.idles()
			r := w.last(1)
			if r.Outcome != deployment.Aborted || r.Reason != tt.code || r.Blame != tt.blame || r.Says == "" {
				t.Errorf("record %s, %s, %s: %s; want %s, %s", r.Outcome, r.Reason, r.Blame, r.Says, tt.code, tt.blame)
			}
			if tt.code == "wrong_contract" || tt.code == "old_updater" {
				if !strings.Contains(r.Says, "apt upgrade needed") {
					t.Errorf("it says %s", r.Says)
				}
			}
		})
	}
}

// other is a tree of a release that does not fit here.
func (w *world) other(version, arch string, contract int) string {
	dir := filepath.Join(w.home, "trees", version)
	treeOf(w.t, dir, slot.Info{Version: version, Commit: "c0ffee", Arch: arch, Contract: contract})
	return dir
}

// min publishes a version anew, for updaters of at least one version.
func (w *world) min(version, updater string) {
	w.publish(stable(publish.Release{File: w.artefact(w.tree(version)), MinUpdater: updater}))
}

// tamper changes a byte of an artefact in the repository.
func (w *world) tamper(version string) {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.repo(), "targets", "*"+release.TargetName(version, runtime.GOARCH)))
	if err != nil || len(found) != 1 {
		w.t.Fatal(found, err)
	}
	spoil(w.t, found[0])
}

// TestMislabelled: a release that calls itself something else is quarantined,
// and nothing of it stays.
func TestMislabelled(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0")
	index, err := w.u.Trust.Refresh(t.Context(), w.source())
	must(t, err)
	o := index.Offers[0]
	o.Commit = "another"
	tr := &transaction{u: w.u, st: w.state(), c: &candidate{offer: &o, m: tree(t, filepath.Join(w.home, "x"), "1.1.0")}}
	tr.st.Attempt.To = describe(tr.c.m, slot.B)
	wantCode(t, tr.labelled(), "mislabelled")
	tr.quarantine(tr.labelled())
	if len(tr.st.Banned) != 1 || tr.st.Banned[0].Artefact != o.SHA256 || tr.st.Banned[0].Digest != tr.c.m.Digest() {
		t.Errorf("quarantine %+v", tr.st.Banned)
	}
}

// TestDowngradeByDpkg is accepted, and is the floor from then on.
func TestDowngradeByDpkg(t *testing.T) {
	w := newWorld(t)
	st := w.state()
	st.Floor = "2.0.0"
	must(t, w.u.save(st))
	w.offers("1.1.0")
	w.refused(Want{Version: "1.1.0", Trial: true}, "downgrade")
	w.onTrial("0.9.0")
	w.proves()
	w.stands(slot.B, slot.B, slot.B)
	if floor := w.state().Floor; floor != "0.9.0" {
		t.Errorf("the floor is %s", floor)
	}
	w.apply(Want{Trial: true}, OnTrial)
	w.stands(slot.A, slot.B, slot.A)
}

// TestQuarantine: what failed is refused by its digest at every door but dpkg's,
// until it is cleared, or committed after all.
func TestQuarantine(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0")
	w.apply(Want{Trial: true}, OnTrial)
	w.fails()
	w.stands(slot.A, slot.A, slot.A)
	if r := w.last(1); r.Outcome != deployment.RolledBack || r.At != deployment.OnTrial || r.Blame != deployment.Candidate || r.Reason == "" || len(r.Evidence) == 0 {
		t.Errorf("record %+v", r)
	}
	if st := w.state(); len(st.Banned) != 1 || st.Banned[0].Artefact == "" || st.Banned[0].Digest == "" || st.Banned[0].Says == "" {
		t.Errorf("quarantine %+v", st.Banned)
	}
	offer, err := w.u.Check(t.Context())
	if err != nil || offer == nil || !strings.HasPrefix(offer.Refused, "quarantined: ") {
		t.Errorf("offer %+v, %v", offer, err)
	}
	for _, want := range []Want{{}, {Version: "1.1.0"}, {Slot: slot.B}, {Tree: w.tree("1.1.0")}, {Bundle: w.bundle("1.1.0")}} {
		w.refused(want, "quarantined")
	}
	if _, err := w.u.Rollback(t.Context(), deployment.DoorCLI); err == nil {
		t.Error("a rollback to what is quarantined")
	}
	if n, err := w.u.Unquarantine("1.1.0"); n != 1 || err != nil {
		t.Errorf("cleared %d, %v", n, err)
	}
	_, err = w.u.Unquarantine("1.1.0")
	wantCode(t, err, "not_quarantined")
	w.apply(Want{Trial: true}, OnTrial)
	w.fails()
	w.onTrial("1.1.0") // dpkg's
	w.proves()
	w.stands(slot.B, slot.B, slot.B)
	if st := w.state(); len(st.Banned) != 0 {
		t.Errorf("what is committed is still quarantined: %+v", st.Banned)
	}
}

// TestBest is what is offered here, of all that is.
func TestBest(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(w *world)
		offer   string
		refused string
	}{
		{"the newest", func(*world) {}, "1.2.0", ""},
		{"the channel beta", func(w *world) { w.set.Channel = "beta" }, "1.3.0-rc.1", ""},
		{"a pin", func(w *world) { w.u.Pin("1.1.0") }, "1.1.0", ""},
		{"a pin in /etc before it", func(w *world) { w.u.Pin("1.2.0"); w.set.Pin = "1.1.0" }, "1.1.0", ""},
		{"a pin on what serves", func(w *world) { w.u.Pin("") }, "", ""},
		{"a pin taken away", func(w *world) { w.u.Pin("1.1.0"); must(w.t, w.u.Unpin()) }, "1.2.0", ""},
		{"a place in the roll-out", func(w *world) { w.set.Rollout = 29; w.rollout("1.2.0", 30) }, "1.2.0", ""},
		{"no place in it yet", func(w *world) { w.set.Rollout = 30; w.rollout("1.2.0", 30) }, "1.1.0", ""},
		{"no place in any", func(w *world) { w.set.Rollout = 30; w.rollout("1.2.0", 30); w.rollout("1.1.0", 0) }, "1.2.0", "rollout: "},
		{"the newest is quarantined", func(w *world) { w.ban("1.2.0") }, "1.1.0", ""},
		{"one is held", func(w *world) { st := w.state(); st.Held = "1.2.0"; must(w.t, w.u.save(st)) }, "1.1.0", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.offers("1.1.0", "1.2.0")
			w.publish(publish.Release{File: w.artefact(w.tree("1.3.0-rc.1")), Channel: release.Beta, Rollout: 100})
			tt.change(w)
			offer, err := w.u.Check(t.Context())
			must(t, err)
			if offer == nil {
				offer = &deployment.Offer{}
			}
			if offer.Version != tt.offer || !strings.HasPrefix(offer.Refused, tt.refused) || tt.refused == "" && offer.Refused != "" {
				t.Errorf("offered %+v; want %s %s", offer, tt.offer, tt.refused)
			}
			s, err := w.u.Status()
			must(t, err)
			if s.State != deployment.Idle || s.Checked.IsZero() || (s.Available == nil) != (tt.offer == "") {
				t.Errorf("status %+v", s)
			}
			w.stands(slot.A, slot.A, slot.A)
		})
	}
}

func (w *world) source() trust.Source { return trust.Directory(w.repo()) }

func (w *world) rollout(version string, percent int) {
	w.t.Helper()
	_, err := (&publish.Repository{Dir: w.repo(), Keys: w.keys}).Rollout(w.t.Context(), version, percent)
	must(w.t, err)
}

func (w *world) ban(version string) {
	w.t.Helper()
	index, err := w.u.Trust.Refresh(w.t.Context(), w.source())
	must(w.t, err)
	st := w.state()
	for _, o := range index.Offers {
		if o.Version == version {
			st.ban(deployment.Quarantine{Version: version, Artefact: o.SHA256, Says: "it crashes"})
		}
	}
	must(w.t, w.u.save(st))
}

// TestSources: they are asked in their order, for the index and for the artefact.
func TestSources(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0")
	asked := []string{}
	w.u.Fetch = func(_ context.Context, o Order, progress func(int64)) error {
		asked = append(asked, o.Sources[0]+" "+o.Target)
		if o.Sources[0] == "https://down" {
			return fault.New(fault.Unavailable, "source_unreachable", "it is down").Try("wait")
		}
		if progress != nil {
			progress(1)
		}
		must(t, os.RemoveAll(w.u.Fetched))
		must(t, os.CopyFS(w.u.Fetched, os.DirFS(w.repo())))
		if o.Target == "" {
			must(t, os.RemoveAll(filepath.Join(w.u.Fetched, "targets")))
		}
		return nil
	}
	w.set.Sources = []string{"https://down", "https://up"}
	w.apply(Want{Trial: true}, OnTrial)
	target := release.TargetName("1.1.0", runtime.GOARCH)
	if got := strings.Join(asked, ", "); got != "https://down , https://up , https://up "+target {
		t.Errorf("asked %s", got)
	}
	w.proves()
	w.set.Sources = []string{"https://down"}
	_, err := w.u.Check(t.Context())
	wantCode(t, err, "source_unreachable")
	w.set.Sources = []string{"https://down", "/nowhere"}
	_, err = w.u.Check(t.Context())
	wantCode(t, err, "no_source_works")
	if s, err := w.u.Status(); err != nil || s.CheckError == nil || s.CheckError.Code != "no_source_works" {
		t.Errorf("status %+v, %v", s.CheckError, err)
	}
	// The first knows the release, and only the second has it.
	w.offers("1.2.0")
	half := filepath.Join(w.home, "half")
	must(t, os.CopyFS(half, os.DirFS(w.repo())))
	must(t, os.RemoveAll(filepath.Join(half, "targets")))
	w.set.Sources = []string{half, w.repo()}
	w.apply(Want{Trial: true}, OnTrial)
}

// TestOffline: what was fetched before is installed though the line is down.
func TestOffline(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0")
	offer, err := w.u.Download(t.Context(), "")
	if err != nil || offer == nil || !offer.Fetched {
		t.Fatalf("%+v, %v", offer, err)
	}
	w.stands(slot.A, slot.A, slot.A)
	must(t, os.Rename(w.repo(), w.repo()+".away"))
	w.apply(Want{Trial: true}, OnTrial)
	w.proves()
	w.stands(slot.B, slot.B, slot.B)
	if left, err := os.ReadDir(w.u.artefacts()); err == nil && len(left) > 0 {
		t.Errorf("artefacts %v stay after the commit", left)
	}
	if _, err := w.u.Apply(t.Context(), Want{Version: "1.1.0"}); err == nil {
		t.Error("without a source nothing is on offer")
	}
}

// TestExpired metadata are told, and are no outage; nor is a clock that is wrong
// by ten years.
func TestExpired(t *testing.T) {
	for _, years := range []int{-10, 10} {
		w := newWorld(t)
		w.offers("1.1.0")
		now := w.u.Now().AddDate(years, 0, 0)
		w.u.Trust.Now = func() time.Time { return now }
		offer, err := w.u.Check(t.Context())
		if err != nil || offer == nil || w.state().Check.Stale.IsZero() != (years < 0) {
			t.Errorf("%d years: %+v, %v, stale %v", years, offer, err, w.state().Check.Stale)
		}
		w.apply(Want{Trial: true}, OnTrial)
	}
}

// TestWithoutSystemd: an image build places the release, and nothing runs.
func TestWithoutSystemd(t *testing.T) {
	w := openWorld(t, scratch(t)).withoutSystemd()
	tree(t, w.u.Slots.Golden, "1.0.0")
	must(t, w.u.Slots.Prepare())
	res := w.apply(Want{Door: deployment.DoorDpkg, Tree: w.u.Slots.Golden, Trial: true}, deployment.Committed)
	if !res.Placed || res.Running || res.Idle == "" {
		t.Errorf("%+v", res)
	}
	w.stands(slot.A, slot.A, "")
	w.idles()
	if r := w.last(1); r.Outcome != deployment.Committed || w.state().Floor != "1.0.0" {
		t.Errorf("%+v, floor %s", r, w.state().Floor)
	}
}

// TestStoppedAppliance: what its administrator has stopped stays stopped.
func TestStoppedAppliance(t *testing.T) {
	w := newWorld(t)
	w.m.Idle, w.m.Units = "the appliance is stopped", map[string]slot.State{server: {Active: "inactive"}}
	res := w.apply(w.deploy("1.1.0"), deployment.Committed)
	if res.Running || res.Idle == "" {
		t.Errorf("%+v", res)
	}
	w.stands(slot.B, slot.B, "inactive")
}

// TestFirstInstall has nothing to go back to, and no trial.
func TestFirstInstall(t *testing.T) {
	w := openWorld(t, scratch(t))
	tree(t, w.u.Slots.Golden, "1.0.0")
	must(t, w.u.Slots.Prepare())
	res := w.apply(Want{Door: deployment.DoorDpkg, Tree: w.u.Slots.Golden, Trial: true}, deployment.Committed)
	if !res.Running {
		t.Errorf("%+v", res)
	}
	w.stands(slot.A, slot.A, slot.A)
	w.idles()
}

// TestGoldenBefore goes when the package's release has proved itself.
func TestGoldenBefore(t *testing.T) {
	w := newWorld(t)
	must(t, os.Rename(w.u.Slots.Golden, w.u.Slots.GoldenBefore))
	tree(t, w.u.Slots.Golden, "1.1.0")
	w.apply(Want{Door: deployment.DoorDpkg, Tree: w.u.Slots.Golden, Trial: true}, OnTrial)
	if _, err := slot.Read(w.u.Slots.GoldenBefore); err != nil {
		t.Error("it went before the commit:", err)
	}
	w.proves()
	if _, err := os.Stat(w.u.Slots.GoldenBefore); !errors.Is(err, os.ErrNotExist) {
		t.Error("it stays after the commit:", err)
	}
}
