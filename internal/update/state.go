package update

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/trial"
)

// Files in the updater's own directory.
const (
	stateFile   = "state.json"
	stateBefore = "state.json.prev"
	mostState   = 4 << 20 // bytes
)

// step is where a transaction stands, as far as a later run has to know.
type step string

// The steps.
const (
	idle        step = "idle"
	preparing   step = "preparing"    // nothing but .staging and the idle slot was touched
	armed       step = "armed"        // `current` may have moved
	onTrial     step = "trial"        //
	rollingBack step = "rolling_back" // `current` is to go back to from
)

// state is the updater's note to itself. The links, not it, decide what runs.
type state struct {
	Format int  `json:"format"`
	Step   step `json:"step"`

	// Of the transaction that Step is about.
	Attempt   deployment.Record `json:"attempt,omitzero"` // as far as it is known: it is what will be recorded
	Artefact  string            `json:"artefact,omitempty"`
	Proof     bool              `json:"proof,omitempty"` // it has to prove itself before it is committed
	TriesLeft int               `json:"tries_left,omitempty"`
	BootID    string            `json:"boot_id,omitempty"` // of the last start that this trial has met
	Baseline  trial.Baseline    `json:"baseline,omitzero"`
	Credit    trial.Credit      `json:"credit,omitzero"`

	// Of the updater.
	Floor  string  `json:"floor,omitempty"`
	Before string  `json:"before,omitempty"` // digest of what served before what is committed
	Pinned string  `json:"pinned,omitempty"`
	Held   string  `json:"held,omitempty"` // one version: what is newer may come
	Hold   hold    `json:"hold,omitzero"`  // of Held
	Queued *queued `json:"queued,omitempty"`

	// Hindered is the release that was started last and could not be tried; no
	// digest = none.
	Hindered hindered `json:"hindered,omitzero"`

	Check checked             `json:"checked,omitzero"`
	Alarm *deployment.Problem `json:"alarm,omitempty"`
	Last  *deployment.Record  `json:"last,omitempty"`

	// Unrecorded is the end of a transaction that the record may not have yet.
	Unrecorded *deployment.Record      `json:"unrecorded,omitempty"`
	Banned     []deployment.Quarantine `json:"quarantined,omitempty"`

	// No part of the file.
	now  *doing // what was shown last of the transaction
	lost bool   // it is another's by now: nothing is written
}

// hold is how a version came to be held.
type hold struct {
	Door deployment.Door `json:"door,omitempty"` // where a rollback was asked for; "" where a trial ended so by itself
	At   time.Time       `json:"at,omitzero"`
}

// hindered is a release that something else than itself keeps from serving.
type hindered struct {
	Digest string `json:"digest"`
	Times  int    `json:"times"` // in a row
}

// queued is a release that waits behind a trial.
type queued struct {
	Door    deployment.Door `json:"door"`
	Version string          `json:"version"`
	Tree    string          `json:"tree,omitempty"` // directory that it lies in; else it is on offer
	Behind  string          `json:"behind"`         // version on trial
	Auto    bool            `json:"auto,omitempty"` // nobody asked for it
	Was     string          `json:"was,omitempty"`  // see Want
}

// checked is what the last look at the sources has found.
type checked struct {
	At      time.Time           `json:"at,omitzero"`
	Source  string              `json:"source,omitempty"`
	Error   *deployment.Problem `json:"error,omitempty"`
	Offer   *deployment.Offer   `json:"offer,omitempty"`
	Stale   time.Time           `json:"stale,omitzero"`
	Fetched string              `json:"fetched,omitempty"` // target that lies in the updater's own directory, verified
}

const stateFormat = 1

// load reads the state. A file that is not there is an idle updater; one that
// holds no state is an alarm, and its predecessor's word counts for what the
// links do not tell: floor, pin, quarantine. That a disk does not give a file
// just now says nothing of what is in it: it is an error, and nothing is settled.
func (u *Updater) load() (*state, error) {
	st, err := readState(filepath.Join(u.Dir, stateFile))
	if err == nil {
		return st, nil
	}
	before, prevErr := readState(filepath.Join(u.Dir, stateBefore))
	if errors.Is(err, fs.ErrNotExist) && errors.Is(prevErr, fs.ErrNotExist) {
		return &state{Format: stateFormat, Step: idle}, nil
	}
	for _, err := range []error{err, prevErr} {
		if err != nil && !errors.Is(err, errNoState) && !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.Unavailable, "state_unread", "the updater's state cannot be read just now").Because(err).
				Try("see that the disk is well (`dmesg`), and try again")
		}
	}
	if prevErr != nil {
		before = &state{Format: stateFormat}
	}
	u.Log.Error("the updater's state cannot be read; what runs is left as it is", "error", err)
	before.Step, before.Attempt, before.Queued = idle, deployment.Record{}, nil
	before.Alarm = &deployment.Problem{Code: "state_unreadable", At: u.Now(),
		Message: fmt.Sprintf("the updater's state could not be read (%v): what serves was left as it was", err),
		Hint:    "`whisper-appliance update status` shows what serves; `whisper-appliance verify` checks it; any update clears this"}
	return before, nil
}

func readState(path string) (*state, error) {
	data, err := durable.ReadRegular(path, mostState)
	if err != nil {
		return nil, err
	}
	st := &state{}
	if err := json.Unmarshal(data, st); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, errNoState, err)
	}
	if st.Format != stateFormat {
		return nil, fmt.Errorf("%s: %w: it has format %d; this updater reads %d", path, errNoState, st.Format, stateFormat)
	}
	return st, nil
}

// errNoState is what is wrong with a file that was read and holds no state.
var errNoState = errors.New("it holds no state")

// save writes the state, and shows it. The old one stays as .prev. On a full
// disk the ballast makes room.
func (u *Updater) save(st *state) error {
	if err := u.store(st); err != nil {
		return err
	}
	u.show(st, st.now)
	return nil
}

// store is save without showing it.
func (u *Updater) store(st *state) error {
	if st.lost {
		return overtaken("its state is another's")
	}
	data, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return err
	}
	if err := u.withRoom(func() error { return u.write(data) }); err != nil {
		return fmt.Errorf("save the updater's state: %w", cannotWrite(u.Dir, err))
	}
	return nil
}

// withRoom does work, once more without the ballast where the disk is full.
func (u *Updater) withRoom(work func() error) error {
	err := work()
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		u.dropBallast()
		err = work()
	}
	return err
}

func (u *Updater) write(data []byte) error {
	path, before := filepath.Join(u.Dir, stateFile), filepath.Join(u.Dir, stateBefore)
	return durable.Fill(path, 0o644, func(f *os.File) error {
		if _, err := f.Write(append(data, '\n')); err != nil {
			return err
		}
		if _, err := readState(path); err != nil {
			return nil //nolint:nilerr // what cannot be read must not take the place of what can
		}
		fresh := before + ".new"
		os.Remove(fresh) //nolint:errcheck // Link says what is wrong
		if err := os.Link(path, fresh); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		err := os.Rename(fresh, before)
		os.Remove(fresh) //nolint:errcheck // it stays only where both are one file, as after a cut before the new state had its name
		return err
	})
}

// raise is an alarm. One that is the same as before keeps its time.
func (st *state) raise(p *deployment.Problem) {
	p.Message, p.Hint = clip(p.Message), clip(p.Hint)
	if st.Alarm == nil || st.Alarm.Code != p.Code || st.Alarm.Message != p.Message {
		st.Alarm = p
	}
}

// end forgets the transaction.
func (st *state) end() {
	st.Step, st.Attempt, st.Artefact = idle, deployment.Record{}, ""
	st.Proof, st.TriesLeft, st.BootID, st.now = false, 0, "", nil
	st.Baseline, st.Credit = trial.Baseline{}, trial.Credit{}
}
