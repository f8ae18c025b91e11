// Package deployment is what an update looks like from outside: the status that
// the updater shows to everybody, the record that it keeps of every attempt,
// and what can be learned from that record.
//
// It writes what the updater hands it, in files that everybody may read, and
// trusts what it reads as far as its form: whoever may write those files is root.
// A record that a power cut has left half is passed over.
package deployment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// State is what the updater does, in a word.
type State string

// The states.
const (
	Idle        State = "idle"
	Checking    State = "checking"
	Downloading State = "downloading"
	Updating    State = "updating"     // a transaction is under way
	Trial       State = "trial"        // a new release serves, and is judged
	RollingBack State = "rolling_back" //
	Attention   State = "attention"    // somebody has to look: nothing goes on by itself
)

// Phase is a step of the transaction, in the words of the design.
type Phase string

// The phases, in their order.
const (
	Plan      Phase = "plan"
	Reserve   Phase = "reserve"
	Fetch     Phase = "fetch"
	Verify    Phase = "verify"
	Stage     Phase = "stage"
	Publish   Phase = "publish"
	Preflight Phase = "preflight"
	Arm       Phase = "arm"
	Overlap   Phase = "overlap"
	Switch    Phase = "switch"
	TakeOver  Phase = "take_over"
	OnTrial   Phase = "trial"
	Commit    Phase = "commit"
	Clean     Phase = "clean"
	Rollback  Phase = "rollback"
)

// Phases lists the phases of a transaction that goes well, in their order.
func Phases() []Phase {
	return []Phase{Plan, Reserve, Fetch, Verify, Stage, Publish, Preflight, Arm, Overlap, Switch, TakeOver, OnTrial, Commit, Clean}
}

// Door is the way in which an update was asked for.
type Door string

// The doors.
const (
	DoorTimer Door = "timer"
	DoorCLI   Door = "cli"
	DoorHTTP  Door = "http" // over D-Bus, by the server's user
	DoorDBus  Door = "dbus"
	DoorDpkg  Door = "dpkg"
	DoorFile  Door = "file" // a bundle
	DoorBoot  Door = "boot" // recovery
)

// Release names a release and where it lies.
type Release struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Slot    string `json:"slot,omitempty"`   // "a", "b", "golden"
	Digest  string `json:"digest,omitempty"` // SHA-256 of its manifest, hex: what a quarantine goes by
}

// Offer is a release that could be installed.
type Offer struct {
	Version   string    `json:"version"`
	Channel   string    `json:"channel"` // "stable" or "beta"
	Bytes     int64     `json:"bytes"`   // to be downloaded
	Notes     string    `json:"notes,omitempty"`
	Published time.Time `json:"published,omitzero"`
	Refused   string    `json:"refused,omitempty"` // why it will not be installed here: "quarantined: …", "rollout: …"
	Fetched   bool      `json:"fetched"`           // it is on this machine already
}

// Progress is how far the phase is.
type Progress struct {
	Done        int64   `json:"done"`  // bytes
	Total       int64   `json:"total"` // bytes, 0 where nobody knows
	LeftSeconds float64 `json:"left_seconds"`
}

// Verdicts of a trial.
const (
	Good         = "good"
	Bad          = "bad"
	Inconclusive = "inconclusive"
)

// TrialStatus is how a trial stands.
type TrialStatus struct {
	Started        time.Time `json:"started"`
	HealthySeconds float64   `json:"healthy_seconds"` // credit so far
	NeededSeconds  float64   `json:"needed_seconds"`
	CapSeconds     float64   `json:"cap_seconds"`  // of time by the wall, after which it is kept without proof
	Requests       int64     `json:"requests"`     // that the new release answered, synthetic ones among them
	Failed         int64     `json:"failed"`       // of those, with a status of 500 or above
	TriesLeft      int       `json:"tries_left"`   // restarts of the machine that it may still meet
	Verdict        string    `json:"verdict"`      // as of now
	Reason         string    `json:"reason"`       // its stable code
	Says           string    `json:"says"`         // the same for people
	Evidence       []string  `json:"evidence"`     // what it rests on, a line each
	Extended       bool      `json:"extended"`     // inconclusive for longer than it should have taken
	Samples        int       `json:"samples"`      // looks so far
	Synthetic      int       `json:"synthetic"`    // transcriptions of the reference clip
	SpeedRatio     float64   `json:"speed_ratio"`  // real-time factor by that of the release before; 0 unknown
	MemoryRatio    float64   `json:"memory_ratio"` // likewise, resident memory
}

// Status is what the updater does now, for everybody to see.
type Status struct {
	State       State        `json:"state"`
	Phase       Phase        `json:"phase,omitempty"`
	Transaction string       `json:"transaction,omitempty"` // of the one under way or on trial
	Door        Door         `json:"door,omitempty"`
	From        Release      `json:"from,omitzero"`
	To          Release      `json:"to,omitzero"`
	Progress    Progress     `json:"progress,omitzero"`
	Message     string       `json:"message"`
	Current     Release      `json:"current,omitzero"`
	Stable      Release      `json:"stable,omitzero"`
	Golden      Release      `json:"golden,omitzero"`
	Floor       string       `json:"floor,omitempty"`     // highest version ever committed
	Available   *Offer       `json:"available,omitempty"` // nil where nothing newer is on offer
	Queued      *Offer       `json:"queued,omitempty"`    // waits behind the trial
	Trial       *TrialStatus `json:"trial,omitempty"`
	Last        *Record      `json:"last,omitempty"`
	Checked     time.Time    `json:"checked,omitzero"` // when sources were last asked
	CheckError  *Problem     `json:"check_error,omitempty"`
	Stale       time.Time    `json:"stale,omitzero"` // the source has not been renewed since
	Source      string       `json:"source,omitempty"`
	Pinned      string       `json:"pinned,omitempty"`  // the version that is held
	Held        string       `json:"held,omitempty"`    // the version that a manual rollback left, not installed again by itself
	HeldBy      Door         `json:"held_by,omitempty"` // where that was asked for; "" where a trial ended so by itself
	HeldSince   time.Time    `json:"held_since,omitzero"`
	Policy      Policy       `json:"policy"`
	Quarantined []Quarantine `json:"quarantined,omitempty"`
	Alarm       *Problem     `json:"alarm,omitempty"`       // what somebody has to look at
	PID         int          `json:"pid,omitempty"`         // of the process that works on it, 0 for none
	Interrupted bool         `json:"interrupted,omitempty"` // whoever worked on it was killed, and nobody has settled it yet
	Updated     time.Time    `json:"updated"`
}

// Problem is a fault as it is shown.
type Problem struct {
	Code    string    `json:"code"`
	Message string    `json:"message"`
	Hint    string    `json:"hint,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// ProblemOf words err; at is when it was met. What a stranger may have said in
// it is made plain.
func ProblemOf(err error, at time.Time) *Problem {
	if err == nil {
		return nil
	}
	p := &Problem{Code: "internal", Message: fault.Plain(err.Error(), mostWords), Hint: fault.Plain(fault.Hint(err), mostWords), At: at}
	var f *fault.Error
	if errors.As(err, &f) {
		p.Code = f.Code
	}
	return p
}

// Policy is what the updater does by itself. Values that /etc names win over
// those of the page.
type Policy struct {
	Channel   string   `json:"channel"`          // "stable" or "beta"
	Automatic string   `json:"automatic"`        // "off", "download" or "install"
	Window    string   `json:"window"`           // "02:00-05:00" by the local clock; "" = at any time
	Days      []string `json:"days,omitempty"`   // "mon" … "sun"; none = every day
	Locked    []string `json:"locked,omitempty"` // names of those that /etc fixes
}

// Quarantine is a release that is refused.
type Quarantine struct {
	Digest   string    `json:"digest,omitempty"`   // of the manifest; "" where none could be read
	Artefact string    `json:"artefact,omitempty"` // SHA-256 of the file that it came in, where it came in one
	Version  string    `json:"version"`            // as it called itself
	Reason   string    `json:"reason"`             // stable code
	Says     string    `json:"says"`
	At       time.Time `json:"at"`
}

// Files below the updater's directories.
const (
	StatusFile = "status.json"       // in its run directory
	RecordFile = "deployments.jsonl" // in its state directory
	mostStatus = 1 << 20             // bytes
	mostWords  = 4 << 10             // bytes, of a problem
)

// ReadStatus gives the status as the updater last showed it in its run
// directory. Where it has shown none since the machine started the error is a
// fault of kind NotFound with the code "no_status". What a process that was
// killed was doing is shown as interrupted.
func ReadStatus(run string) (Status, error) {
	var s Status
	data, err := durable.ReadRegular(filepath.Join(run, StatusFile), mostStatus)
	if errors.Is(err, fs.ErrNotExist) {
		return s, fault.New(fault.NotFound, "no_status", "the updater has not run since this machine started").Because(err).
			Try("`systemctl status whisper-appliance-recover.service` says why; `whisper-appliance update check` runs it")
	}
	if err != nil {
		return s, fmt.Errorf("read the updater's status: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read the updater's status: %w", err)
	}
	if gone(s.PID) {
		s.Message = "interrupted, and to be settled by the next run: " + s.Message
		s.PID, s.Progress, s.Interrupted = 0, Progress{}, true
		if s.State != Trial && s.State != RollingBack {
			s.State, s.Phase = Idle, ""
		}
	}
	return s, nil
}

// gone tells whether a process has ended that was at work when it showed its
// status: what it said then is true no more.
func gone(pid int) bool { return pid != 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// WriteStatus shows s in the run directory.
func WriteStatus(run string, s Status) error {
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(run, StatusFile), append(data, '\n'), 0o644)
}
