package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trust"
)

// What a transaction came to, beside the outcomes of package deployment.
const (
	OnTrial = "trial"   // it serves, and has to prove itself
	Queued  = "queued"  // it waits behind a trial
	Already = "already" // it serves already, or nothing newer is on offer
)

// Result is how far a transaction got while its caller waited.
type Result struct {
	Transaction string             `json:"transaction,omitempty"`
	Outcome     string             `json:"outcome"`
	From        deployment.Release `json:"from,omitzero"`
	To          deployment.Release `json:"to,omitzero"`
	Placed      bool               `json:"placed"`         // it was copied to its slot
	Running     bool               `json:"running"`        // a server runs it now
	Idle        string             `json:"idle,omitempty"` // why none does
	Behind      string             `json:"behind,omitempty"`
	Replaced    string             `json:"replaced,omitempty"` // version that waited, and does so no more
	Asked       bool               `json:"asked,omitempty"`    // whoever is at it was asked to stop, and will
	Left        string             `json:"left,omitempty"`     // why what serves was left
}

// transaction is one run of the steps up to the trial.
type transaction struct {
	u    *Updater
	st   *state
	want Want
	c    *candidate
	res  Result

	phase   deployment.Phase
	since   time.Duration
	swapped time.Duration    // when the link was touched
	broke   deployment.Phase // the one that a switch began its way back in
	staged  *slot.Staged
	notes   []string // evidence
	waited  *queued  // what it was while it waited
}

// Apply takes what is wanted to the port: through every step up to the trial,
// or to its commitment where it has none. Until the link moves an error, or the
// end of ctx, leaves everything as it was; the error says whose fault it is. A
// release that comes during a trial is fetched, verified and queued.
func (u *Updater) Apply(ctx context.Context, w Want) (Result, error) {
	if res, same := u.unchanged(ctx, w); same && !w.queued {
		if unlock, err := u.tryLock("a look at the package"); err == nil { // whoever has it cleans up for himself
			u.cleanLeft()
			unlock()
		}
		return res, nil
	}
	held, err := u.lockFor(w)
	if err != nil {
		return Result{}, err
	}
	defer held.drop()
	st, err := u.settled(ctx)
	if err != nil {
		return Result{}, err
	}
	if st.Step == onTrial {
		ctx, stop := u.yielding(ctx) // to keep something for later is to download
		defer stop()
		lent, ctx, end := held.lend(ctx, st)
		defer end()
		return lent.queue(ctx, st, w)
	}
	if res, left, err := u.left(ctx, st, w); left || err != nil {
		return res, err
	}
	ctx, stop := u.cancellable(ctx)
	defer stop()
	w.held = held
	return u.run(ctx, st, w)
}

// run is the transaction from an idle state on.
func (u *Updater) run(ctx context.Context, st *state, w Want) (Result, error) {
	serving, _ := u.links()
	t := &transaction{u: u, st: st, want: w, since: u.Clock()}
	ctx, end := t.apart(ctx)
	defer end()
	st.Step, st.Proof = preparing, w.Trial
	st.Attempt = deployment.Record{Transaction: u.newID(), Door: w.Door, Kind: w.kind(), From: u.release(serving), Started: u.Now()}
	if w.queued {
		t.waited, st.Queued = st.Queued, nil
	}
	if err := u.save(st); err != nil {
		return Result{}, err
	}
	t.res.Transaction, t.res.From = st.Attempt.Transaction, st.Attempt.From
	err := t.steps(ctx)
	if t.c != nil {
		t.c.close() //nolint:errcheck // it was only read
	}
	if err != nil {
		return t.res, t.failed(ctx, err)
	}
	// It serves: what goes wrong from here on is no way back, but the next run's.
	return t.res, t.conclude(ctx)
}

// steps are those of the design. Each leaves what the next needs in t.
func (t *transaction) steps(ctx context.Context) error {
	for _, s := range []struct {
		phase deployment.Phase
		do    func(context.Context) error
	}{
		{deployment.Plan, t.plan},
		{deployment.Reserve, t.reserve},
		{deployment.Fetch, t.fetch},
		{deployment.Verify, t.verify},
		{deployment.Stage, t.stage},
		{deployment.Publish, t.publish},
		{deployment.Preflight, t.rehearse},
		{deployment.Arm, t.arm},
		{deployment.Overlap, t.takeOver},
	} {
		t.enter(s.phase)
		faultpoint.Here("update." + string(s.phase))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.do(ctx); err != nil {
			return err
		}
		if t.res.Outcome != "" {
			break
		}
	}
	return nil
}

// enter notes when a phase ended and the next began.
func (t *transaction) enter(p deployment.Phase) {
	now := t.u.Clock()
	if t.phase != "" {
		t.st.Attempt.Phases = append(t.st.Attempt.Phases, deployment.PhaseTime{Phase: t.phase, Seconds: (now - t.since).Seconds()})
	}
	t.phase, t.since = p, now
	t.u.show(t.st, &doing{State: deployment.Updating, Phase: p, Message: phaseWords(p)})
}

func (t *transaction) plan(ctx context.Context) error {
	var err error
	if t.c, err = t.u.find(ctx, t.st, t.want); errors.Is(err, errNothingNewer) {
		t.res.Outcome = Already
		return nil
	}
	if err != nil {
		return err
	}
	t.st.Attempt.To = t.known()
	if err := t.u.plan(ctx, t.st, t.c); err != nil {
		return err
	}
	if err := t.edited(ctx); err != nil {
		return err
	}
	t.st.Attempt.To.Slot = t.c.slot
	t.res.To = t.st.Attempt.To
	err = t.u.save(t.st) // the record of a run that is killed says what it was about
	if err == nil && t.want.Begun != nil {
		t.want.Begun(t.st.Attempt.Transaction)
	}
	return err
}

// edited is why no server could be started as the package's units do it, before
// anything is brought for one. What is not known now is asked again.
func (t *transaction) edited(ctx context.Context) error {
	if t.c.there || !t.u.systemd() || t.u.idle(ctx) != "" {
		return nil
	}
	sw := t.u.Site.Switch(t.tell)
	sw.WayOut = t.want.back
	err := sw.AsShipped(ctx, t.c.slot)
	if slot.Caused(err, slot.UnitEdited) == nil {
		return nil
	}
	return err
}

// known is what is known of the candidate before its manifest is.
func (t *transaction) known() deployment.Release {
	if t.c.offer != nil {
		return deployment.Release{Version: t.c.offer.Version, Commit: t.c.offer.Commit}
	}
	return describe(t.c.m, t.c.slot)
}

func (t *transaction) reserve(context.Context) error {
	if err := t.room(); err != nil {
		return err
	}
	err := t.u.takeBallast()
	if err != nil && t.c.there {
		t.u.Log.Warn("there is no room for the ballast", "error", err)
		return nil // nothing is written but links, which is what people do on a full disk
	}
	return err
}

// room is nil where what is to be written would fit.
func (t *transaction) room() error {
	if t.c.there || t.c.offer == nil {
		return nil // Place looks for itself
	}
	o := t.c.offer
	if info, err := os.Stat(filepath.Join(t.u.artefacts(), o.Target)); err != nil || info.Size() != o.Length {
		if err := enough(t.u.Dir, o.Length); err != nil {
			return err
		}
	}
	return t.u.admit(t.c.slot, *o)
}

// admit is nil where the release on offer may be placed in the slot name, and
// would fit.
func (u *Updater) admit(name string, o trust.Offer) error {
	const block = 4096
	return u.Slots.Admit(name, o.Unpacked+int64(o.Files)*block, 2*int64(o.Files)+16)
}

// fetch brings the artefact, and holds it against what was signed while it is
// copied: verify has the whole of it in the updater's own directory.
func (t *transaction) fetch(ctx context.Context) error {
	if t.c.offer == nil {
		return nil
	}
	set, err := t.u.Settings()
	if err != nil {
		return err
	}
	t.c.file, err = t.u.fetch(ctx, set, t.c.from, t.c.src, *t.c.offer, t.u.meter(t.st, deployment.Updating, deployment.Fetch, phaseWords(deployment.Fetch)))
	return err
}

func (t *transaction) verify(context.Context) error {
	if t.c.file == "" {
		return nil
	}
	f, err := os.Open(t.c.file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.c.offer.Verify(f); err != nil {
		return err
	}
	t.st.Artefact = t.c.offer.SHA256
	t.st.Check.Fetched = t.c.offer.Target
	return nil
}

func (t *transaction) stage(ctx context.Context) error {
	if t.c.there {
		return nil
	}
	if err := t.vacate(ctx); err != nil {
		return err
	}
	meter := t.u.meter(t.st, deployment.Updating, deployment.Stage, phaseWords(deployment.Stage))
	if t.c.offer == nil {
		_, err := t.u.Slots.Place(ctx, t.c.from, t.c.slot, meter)
		t.res.Placed = err == nil
		return err
	}
	var err error
	if t.staged, err = t.u.Slots.Stage(ctx, t.c.slot, func(ctx context.Context, dir string) (slot.Manifest, error) {
		return t.unpack(ctx, dir, meter)
	}); err != nil {
		return err
	}
	t.c.m = t.staged.Manifest()
	t.st.Attempt.To = describe(t.c.m, t.c.slot)
	t.res.To = t.st.Attempt.To
	return t.labelled()
}

// vacate sees that nothing runs any more from the slot that is overwritten.
func (t *transaction) vacate(ctx context.Context) error {
	if !t.u.systemd() {
		return nil
	}
	return t.u.Site.Switch(t.tell).Vacate(ctx, t.c.slot)
}

func (t *transaction) unpack(ctx context.Context, dir string, meter func(done, total int64)) (slot.Manifest, error) {
	f, err := os.Open(t.c.file)
	if err != nil {
		return slot.Manifest{}, err
	}
	defer f.Close()
	o := t.c.offer
	return release.Unpack(ctx, f, dir, release.Limits{Bytes: o.Unpacked, Files: o.Files}, func(done int64) { meter(done, o.Unpacked) })
}

// labelled refuses a release that is not the one that its metadata describe.
func (t *transaction) labelled() error {
	o, m := t.c.offer, t.c.m
	if err := m.Fits(); err != nil {
		return aptUpgrade(err)
	}
	if m.Version != o.Version || m.Arch != o.Arch || m.Contract != o.UnitContract || m.Commit != o.Commit {
		return fault.New(fault.BadInput, "mislabelled", "the metadata call the release version %s, contract %d, of commit %.12s; it calls itself %s, %d, %.12s",
			o.Version, o.UnitContract, o.Commit, m.Version, m.Contract, m.Commit).Try("its publisher has to publish it again")
	}
	err := t.st.banned(m.Digest(), "")
	if err != nil {
		t.st.banArtefact(m.Digest(), o.SHA256)
	}
	return err
}

func (t *transaction) publish(ctx context.Context) error {
	if t.staged == nil {
		return nil
	}
	defer t.staged.Discard()
	err := t.staged.Publish(ctx, t.u.meter(t.st, deployment.Updating, deployment.Publish, phaseWords(deployment.Publish)))
	t.res.Placed = err == nil
	return err
}

// rehearse has a candidate that is to be put on trial do in the dark what it is
// for. What could not be judged is noted, and is no reason to stop.
func (t *transaction) rehearse(ctx context.Context) error {
	serving, _ := t.u.links()
	if t.u.Site.Rehearse == nil || !t.want.Trial || serving == "" || serving == t.c.slot || t.u.idle(ctx) != "" {
		return nil
	}
	finding, err := t.u.Site.Rehearse(ctx, t.c.slot, t.c.m)
	t.notes = append(t.notes, finding.Evidence...)
	return err
}

// idle is why no server is to be started, "" where one may be.
func (u *Updater) idle(ctx context.Context) string {
	if !u.systemd() {
		return "systemd does not run here"
	}
	why, err := u.Site.Idle(ctx)
	if err != nil {
		u.Log.Warn("whether the server may be started is not known", "error", err)
	}
	return why
}

// arm writes down what is about to happen, so that whoever finds the link moved
// knows what to make of it.
func (t *transaction) arm(ctx context.Context) error {
	if t.u.Site.Baseline != nil && t.u.idle(ctx) == "" {
		base, err := t.u.Site.Baseline(ctx)
		if err != nil {
			t.notes = append(t.notes, "how the release before does could not be measured: "+err.Error())
		}
		t.st.Baseline = base
	}
	if err := t.roomBack(); err != nil {
		return err
	}
	if err := t.u.forgetTaken(t.c.slot); err != nil {
		return err
	}
	t.st.Step, t.st.TriesLeft, t.st.BootID = armed, tries, t.u.BootID
	return t.u.save(t.st)
}

// forgetTaken removes the gate's mark of a slot: it would tell of the release that
// lies there now what another has done.
func (u *Updater) forgetTaken(name string) error {
	if u.Site.ForgetTaken == nil {
		return nil
	}
	return u.Site.ForgetTaken(name)
}

// roomBack refuses to go on where somebody has filled a disk since reserve has
// looked: the ballast is for the way back alone. What lies in its slot already
// needs no more than links.
func (t *transaction) roomBack() error {
	if t.c.there {
		return nil
	}
	return errors.Join(remains(filepath.Dir(t.u.Slots.Dir)), remains(t.u.Dir))
}

// tries is how many starts of the machine a trial may meet.
const tries = 3

// takeOver moves link and server. Where no server is to run it moves the link.
func (t *transaction) takeOver(ctx context.Context) error {
	if t.res.Idle = t.u.idle(ctx); t.res.Idle != "" {
		return t.move()
	}
	sw := t.u.Site.Switch(t.tell)
	sw.Refused, sw.Sure, sw.WayOut = t.st.refusal, t.roomBack, t.want.back
	out, err := sw.To(ctx, t.c.slot)
	if t.swapped != 0 {
		t.st.Attempt.Requests.Swap = (t.u.Clock() - t.swapped).Seconds()
	}
	t.res.Running = err == nil
	if err == nil && out.Already && t.committed() {
		t.res.Outcome = Already
	}
	return err
}

// move is takeOver where no server is to run.
func (t *transaction) move() error {
	serving, committed := t.u.links()
	if serving == t.c.slot && committed == t.c.slot {
		t.res.Outcome = Already
		return nil
	}
	t.enter(deployment.Switch)
	t.u.dropBallast()
	return t.u.Slots.Activate(t.c.slot)
}

// committed tells whether the candidate is what was committed before.
func (t *transaction) committed() bool {
	_, committed := t.u.links()
	return committed == t.c.slot
}

// tell follows a switch, whose steps are phases here. Once the link is to move
// the ballast goes: from now on there has to be room for a way back.
func (t *transaction) tell(step, text string) {
	switch step {
	case slot.StepActivate:
		t.swapped = t.u.Clock()
		t.enter(deployment.Switch)
		t.u.dropBallast()
	case slot.StepRestart:
		t.enter(deployment.TakeOver)
	case slot.StepRollback:
		if t.broke == "" {
			t.broke = t.phase
		}
		t.enter(deployment.Rollback)
	}
	t.u.Log.Info("switch", "step", step, "what", text)
	t.u.show(t.st, &doing{State: deployment.Updating, Phase: t.phase, Message: text})
}

// conclude begins the trial, or commits what has none: the first release of a
// machine has nothing to go back to, and one that does not run proves nothing.
func (t *transaction) conclude(ctx context.Context) error {
	switch {
	case t.res.Outcome == Already:
		return t.nothing()
	case t.want.Trial && t.res.Running && t.st.Attempt.From.Slot != "" && t.st.Attempt.From.Slot != t.c.slot:
		t.enter(deployment.OnTrial)
		t.res.Outcome = OnTrial
		t.st.Attempt.Evidence = t.notes
		t.st.Step, t.st.now = onTrial, nil
		err := t.u.save(t.st) // it serves, and is to be judged, though that is not written down
		faultpoint.Here("update.on_trial")
		return errors.Join(err, t.u.watched(ctx))
	}
	t.enter(deployment.Commit)
	t.st.Attempt.Evidence = t.notes
	t.res.Outcome = deployment.Committed
	return t.u.commit(t.st, deployment.Committed)
}

// nothing ends a transaction that had nothing to do: it leaves no record.
func (t *transaction) nothing() error {
	if t.c != nil && t.c.slot != "" {
		t.res.To, t.res.Running = t.u.release(t.c.slot), t.res.Idle == "" && t.u.systemd()
	}
	if to := t.res.To.Version; t.want.lenient() && to != "" {
		t.st.Floor = to // dpkg's word counts, though it found everything done
		if a := t.st.Alarm; a != nil && a.Code == packageNotServing {
			t.st.Alarm = nil
		}
	}
	t.st.end()
	return t.u.save(t.st)
}
