// Package update is the transaction through which every release comes to serve,
// whatever door it was asked for at: it takes a release from where it lies to a
// slot, from the slot to the port, through a trial, and either commits it or
// leaves no trace of it but its record.
//
// It trusts the signed metadata and, of files, what it has read back from the
// disk; nothing that another user can change while it is read. What runs is
// decided by the links alone (package slot): the state that it writes is a note
// to itself of what it was about to do, and every start begins with settling
// what an earlier one has left. It writes its state directory, its run
// directory, and the slots.
package update

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
	"whisper-appliance/internal/trust"
)

// Updater is the updater of one appliance. Its fields are set before it is used
// and not changed after; what may be nil says so. Methods that change anything
// take the lock, and may be called by several processes at once: all but one are
// refused with a fault of kind Busy.
type Updater struct {
	Slots *slot.Slots
	Dir   string // its own: state, record, trusted metadata
	Run   string // where it shows its status, and finds orders to cancel
	Trust *trust.Store
	Site  Site
	Log   *slog.Logger

	Settings func() (Settings, error) // read anew each time
	Fetched  string                   // repository that the fetcher fills: metadata/ and targets/

	// Fetch has the fetcher bring metadata, and the target where one is named,
	// into Fetched. progress may be nil.
	Fetch func(ctx context.Context, o Order, progress func(done int64)) error

	Version   string               // of this updater
	MachineID string               // what roll-outs are drawn from
	BootID    string               // another after each start of the machine
	Now       func() time.Time     // the wall clock, which may be wrong
	Clock     func() time.Duration // since the machine started, sleep included; never goes back
}

// Order is what the fetcher is to bring.
type Order struct {
	Sources []string // addresses, in the order in which they are asked
	Target  string   // its plain name; "" = metadata alone
	File    string   // the name that it has in a repository, with its digest; "" where Target is
	Rate    int64    // bytes a second, 0 = no limit
}

// Settings is what an administrator has decided.
type Settings struct {
	config.Update
	Locked []string // names of those of channel, automatic, window and days that /etc fixes
	Source string   // where the package takes releases from, where Sources is empty; "" = nowhere

	// Trouble is that of a policy which cannot be read and does not count; nil
	// where there is none.
	Trouble *deployment.Problem

	// Tick lies between two looks at a trial; 0 = a fortieth of its length, a
	// second at least and 30 at most.
	Tick time.Duration
}

// Site is what the updater needs of the machine beside its disk. A nil function
// is one that there is nothing for: without systemd all of them are nil.
type Site struct {
	// Switch moves the running server. tell may be called from it.
	Switch func(tell func(step, text string)) *slot.Switch

	// Idle says why no server is to be started, "" where one may be.
	Idle func(ctx context.Context) (string, error)

	// Rehearse runs the release in the slot name in the dark and holds it against
	// the one that serves. The error is for a candidate that is bad; what could
	// not be judged is in the finding.
	Rehearse func(ctx context.Context, name string, m slot.Manifest) (trial.Finding, error)

	// Baseline is how the server that serves does, before it is replaced.
	Baseline func(ctx context.Context) (trial.Baseline, error)

	// Look takes a sample of the server that serves. full asks for a smoke test
	// and a transcription too, where nobody else wants the engine.
	Look func(ctx context.Context, full bool) (trial.Sample, error)

	// Figures are measured of the release that serves.
	Figures func(ctx context.Context) (deployment.Figures, error)

	// Schema is the version of the database's schema, 0 where there is none.
	Schema func() (int, error)

	// Evidence writes into a directory what may explain a failure since then: the
	// journal, the units, the health.
	Evidence func(ctx context.Context, dir string, since time.Time) error

	// Restart restarts the server and gives the invocation of the new one, once it
	// is attested.
	Restart func(ctx context.Context) (invocation string, err error)

	// TakenBack tells whether the gate has left its mark: that it took the server
	// back from the slot name, since ForgetTaken of it. nil = it leaves none, and a
	// link that is back is taken for its work.
	TakenBack func(name string) bool

	// ForgetTaken removes the gate's mark of the slot name, before a release there may
	// earn one. nil = there is none.
	ForgetTaken func(name string) error

	// Ends is how runs of the server of the slot name have ended since its release
	// lies there, the newest last, as the gate has noted it. nil = it notes nothing.
	Ends func(name string) []trial.End

	// Watch sees to it that a trial is watched after this process has ended.
	Watch func(ctx context.Context) error
}

// systemd tells whether there is a server to be moved.
func (u *Updater) systemd() bool { return u.Site.Switch != nil }

// newID names a transaction: when it began, and something that is its alone.
func (u *Updater) newID() string {
	var b [3]byte
	rand.Read(b[:]) //nolint:errcheck // never fails
	return u.Now().UTC().Format("20060102-150405-") + hex.EncodeToString(b[:])
}

// release describes what the slot name holds, "" in its fields where that
// cannot be read.
func (u *Updater) release(name string) deployment.Release {
	r := deployment.Release{Slot: name}
	if name == "" {
		return r
	}
	if m, err := slot.Read(u.Slots.Path(name)); err == nil {
		r = describe(m, name)
	}
	return r
}

func describe(m slot.Manifest, name string) deployment.Release {
	return deployment.Release{Version: m.Version, Commit: m.Commit, Slot: name, Digest: m.Digest()}
}

// links are the slots that serve and that are the way back, "" where a link is
// missing or leads nowhere.
func (u *Updater) links() (serving, committed string) {
	serving, err := u.Slots.Serving()
	if err != nil {
		serving = ""
	}
	if committed, err = u.Slots.Committed(); err != nil {
		committed = ""
	}
	return serving, committed
}

// Stay is for how long a daemon waits for work.
const Stay = time.Minute
