// Package updaterd is the updater's door on D-Bus,
// org.whisperappliance.Updater1, both ends of it: Server answers over a Handler
// in the updater, Client asks from the server and the CLI. Beside systemd it is
// the only package that knows godbus.
//
// It trusts the bus for one thing, the user id of a caller, and asks for it
// anew with every call: root may all, the server's user the methods that are
// marked for it, and nobody else any. The bus's own policy
// (units/org.whisperappliance.Updater1.conf) says the same a second time. What
// callers send is bounded and checked for its type before a Handler sees it.
//
// The bus may end at any time. The Server lives on and takes its name again
// when there is a bus again; a Client dials anew with its next question.
// Nothing is written here.
package updaterd

import (
	"context"

	"whisper-appliance/internal/deployment"
)

// Names on the bus.
const (
	Name      = "org.whisperappliance.Updater1"
	Path      = "/org/whisperappliance/Updater1"
	Interface = "org.whisperappliance.Updater1"
)

// Codes of the faults that come from this package alone.
const (
	CodeUnreachable = "updater_unreachable" // Unavailable: no bus, nobody with the name, no answer
	CodeDenied      = "updater_denied"      // Forbidden: the caller's user may not
	CodeBusy        = "too_many_calls"      // Busy: the caller has too many calls under way
)

// Caller is who asks, as the bus knows it.
type Caller struct {
	UID uint32

	// Server is true for the user that the server runs as, false for root. It
	// faces the network: of what it may ask for, it gets the checked part alone
	// (only versions on offer, only the recorded slot).
	Server bool
}

// Handler does what is asked for. Its methods are called at once from several
// goroutines, for callers that may ask for it. An error that is no *fault.Error
// goes to the log, and to the caller without its insides. The context ends
// with the Server, not with the caller.
type Handler interface {
	Releases
	Service
	Rules
}

// Releases are the methods that bring releases. Where a method gives a
// transaction it returns once that has begun; how it goes on is published.
type Releases interface {
	// Check asks the sources; version is the newest on offer, "" for none.
	Check(ctx context.Context, c Caller) (version string, err error)
	// Download begins to fetch version, "" for what is on offer.
	Download(ctx context.Context, c Caller, version string) error
	// Apply begins to install version, "" for what is on offer.
	Apply(ctx context.Context, c Caller, version string) (transaction string, err error)
	// InstallFile begins to install from the bundle at path, an absolute path.
	InstallFile(ctx context.Context, c Caller, path string) (transaction string, err error)
}

// Service are the methods about the release that serves.
type Service interface {
	// Rollback begins the way back to the release before.
	Rollback(ctx context.Context, c Caller) (transaction string, err error)
	// Commit ends the trial well.
	Commit(ctx context.Context, c Caller) error
	// Cancel ends what has not taken over yet.
	Cancel(ctx context.Context, c Caller) error
	// Restart restarts the server and returns when the new process is attested;
	// invocation is systemd's id of its run.
	Restart(ctx context.Context, c Caller) (invocation string, err error)
}

// Rules are the methods about what happens by itself.
type Rules interface {
	// Pin stays with version, "" for the one that serves.
	Pin(ctx context.Context, c Caller, version string) error
	// Unpin ends Pin, and what a manual rollback holds.
	Unpin(ctx context.Context, c Caller) error
	// Unquarantine lets the release of a digest or version in again, "" for all.
	Unquarantine(ctx context.Context, c Caller, what string) error
	// SetPolicy changes what is not nil.
	SetPolicy(ctx context.Context, c Caller, change deployment.PolicyChange) error
}
