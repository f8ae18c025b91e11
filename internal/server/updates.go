package server

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// Updates is the updater as the server reaches it: what it shows in files, and
// what it is asked over D-Bus.
type Updates interface {
	UpdateRecord
	UpdateOrders
}

// UpdateRecord is read from files, which are there whether the updater runs or
// not.
type UpdateRecord interface {
	// Status is what the updater showed last. It fails with the kind NotFound
	// where it has shown nothing since the machine started.
	Status() (deployment.Status, error)
	// Records are the newest deployments, newest first, most of them at most; 0 = all.
	Records(most int) ([]deployment.Record, error)
	// Releases are those that lie in the slots a, b and golden. One that is damaged
	// has no version.
	Releases() ([]KeptRelease, error)
	// LastRestart is how the last restart ended that was asked for. It fails with
	// the code no_restart where there was none since the machine started.
	LastRestart() (deployment.Restart, error)
}

// UpdateOrders ask the updater. Its faults come as they are; where it cannot be
// asked the kind is Unavailable. Apply and Rollback return the transaction once
// that has begun, "" for what waits behind a trial. All but Check answer at once
// or, like Restart, go on where the context ends first.
type UpdateOrders interface {
	// Now is the status by the updater's own word, which starts it where it does not run.
	Now(ctx context.Context) (deployment.Status, error)
	Check(ctx context.Context) (version string, err error)
	Download(ctx context.Context, version string) error
	Apply(ctx context.Context, version string) (transaction string, err error)
	Rollback(ctx context.Context) (transaction string, err error)
	Cancel(ctx context.Context) error
	Restart(ctx context.Context) (invocation string, err error)
	SetPolicy(ctx context.Context, change deployment.PolicyChange) error
}

// KeptRelease is a release on disk.
type KeptRelease struct {
	Slot    string // "a", "b" or "golden"
	Version string // "" where it is damaged
	Path    string
	Placed  time.Time
	Bytes   int64
}

// How long the updater may take to start and to say that it has begun, and to
// ask the sources.
const (
	orderLimit = 30 * time.Second
	checkLimit = 2 * time.Minute
)

// updater is who is asked. Without one there is a reason.
func (s *Server) updater() (Updates, error) {
	if s.Updates == nil {
		return nil, fault.New(fault.Unavailable, "no_updater", "this appliance runs without an updater").
			Try("install the package under systemd; elsewhere new versions come the way this one came")
	}
	return s.Updates, nil
}

// updateStatus is what the updater showed last.
func (s *Server) updateStatus() (deployment.Status, error) {
	u, err := s.updater()
	if err != nil {
		return deployment.Status{}, err
	}
	st, err := u.Status()
	return st, unread(err)
}

// unread is why something of the updater's cannot be read.
func unread(err error) error {
	if err == nil || errors.As(err, new(*fault.Error)) {
		return outageOf(err)
	}
	return fault.New(fault.Unavailable, "updater_unreadable", "what the updater shows cannot be read").Because(err).
		Try("`whisper-appliance doctor` checks its directories")
}

// outageOf is err for somebody who only looks: whatever it is, he has made no mistake.
func outageOf(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	worded := fault.New(fault.Unavailable, f.Code, "%s", f.Message).Because(err)
	worded.Hint = fault.Hint(err)
	return worded
}

// ordered is what the updater has answered, as a client of ours is to take it.
// That the bus refuses us is no refusal of the client, that a version is not on
// offer none of his key, and that a release is not for this machine says nothing
// of the request's media type.
func ordered(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	kind := f.Kind
	switch {
	case f.Code == "updater_denied", kind == fault.Unauthorized:
		kind = fault.Unavailable
	case f.Code == "not_offered", kind == fault.Unsupported, kind == fault.Canceled:
		kind = fault.Conflict
	}
	worded := fault.New(kind, f.Code, "%s", f.Message).On(f.Field).Because(err)
	worded.Hint = fault.Hint(err)
	return worded
}

// UpdateStatus is what the updater does now.
type UpdateStatus deployment.Status

// UpdateBegun says that something has begun; how it goes on is in
// /api/v1/updates and its events.
type UpdateBegun struct {
	Transaction string `json:"transaction,omitempty" doc:"Of the work that has begun."`
	Message     string `json:"message"`
}

// UpdateChecked is what a look at the sources has found.
type UpdateChecked struct {
	UpdateAvailable bool              `json:"update_available"`
	Version         string            `json:"version" doc:"Newest on offer; empty where nothing newer is."`
	Offer           *deployment.Offer `json:"offer" doc:"What is known of it; null where nothing newer is."`
}

// wantedVersion is the body of what is about a version.
type wantedVersion struct {
	Body *struct {
		Version string `json:"version,omitempty" maxLength:"128" doc:"Left out: the newest on offer."`
	}
}

func (w *wantedVersion) version() string {
	if w.Body == nil {
		return ""
	}
	return strings.TrimPrefix(w.Body.Version, "v")
}

// updates registers what there is to read and to do about updates.
func (d doors) updates() {
	op := func(method, path, id, summary string, status int) huma.Operation {
		return huma.Operation{Method: method, Path: "/api/v1" + path, OperationID: id, Summary: summary, Tags: []string{"Updates"}, DefaultStatus: status}
	}
	const get, post = http.MethodGet, http.MethodPost
	typed(d, auth.Transcribe, op(get, "/updates", "updates", "What the updater does now", http.StatusOK), d.s.updatesNow)
	d.stream(auth.Transcribe, eventsOp(op(get, "/updates/events", "updateEvents", "The updater's status, at once and whenever it changes, as server-sent events", http.StatusOK)), d.s.updateEvents)
	typed(d, auth.Transcribe, op(get, "/updates/history", "updateHistory", "The newest deployments", http.StatusOK), d.s.updateHistory)
	typed(d, auth.Transcribe, op(get, "/deployments", "deployments", "Deployments, and what can be learned from them", http.StatusOK), d.s.deployments)
	typed(d, auth.Admin, op(post, "/updates/check", "checkUpdates", "Ask the sources what there is", http.StatusOK), d.s.checkUpdates)
	typed(d, auth.Admin, op(post, "/updates/download", "downloadUpdate", "Fetch and verify a release", http.StatusAccepted), d.s.downloadUpdate)
	typed(d, auth.Admin, op(post, "/updates/apply", "applyUpdate", "Install a release that is on offer", http.StatusAccepted), d.s.applyUpdate)
	typed(d, auth.Admin, op(post, "/updates/rollback", "rollBack", "Go back to the release before", http.StatusAccepted), d.s.rollBack)
	typed(d, auth.Admin, op(post, "/updates/cancel", "cancelUpdate", "End an update that has not taken over yet", http.StatusAccepted), d.s.cancelUpdate)
	typed(d, auth.Admin, op(post, "/updates/restart", "restartServer", "Restart the server; the updater verifies the new process", http.StatusAccepted), d.s.restartServer)
	typed(d, auth.Transcribe, op(get, "/updates/last-restart", "lastRestart", "How the last restart ended that was asked for", http.StatusOK), d.s.lastRestart)
	typed(d, auth.Admin, op(http.MethodPut, "/updates/policy", "setUpdatePolicy", "Change what the updater does by itself", http.StatusNoContent), d.s.setUpdatePolicy)
}

func (s *Server) updatesNow(context.Context, *struct{}) (*body[UpdateStatus], error) {
	st, err := s.updateStatus()
	if err != nil {
		return nil, err
	}
	return answerWith(UpdateStatus(st)), nil
}

// ask has the updater do something for as long as limit allows.
func (s *Server) ask(ctx context.Context, limit time.Duration, do func(context.Context, Updates) error) error {
	u, err := s.updater()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return ordered(do(ctx, u))
}

// begin is ask for what gives a transaction.
func (s *Server) begin(ctx context.Context, order func(context.Context, Updates) (string, error)) (transaction string, err error) {
	err = s.ask(ctx, orderLimit, func(ctx context.Context, u Updates) error {
		transaction, err = order(ctx, u)
		return err
	})
	return transaction, err
}

func (s *Server) checkUpdates(ctx context.Context, _ *struct{}) (*body[UpdateChecked], error) {
	version, err := s.checkNow(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.updateStatus()
	if err != nil {
		return nil, err
	}
	offer := offered(st, version)
	c := UpdateChecked{UpdateAvailable: installable(offer), Offer: offer}
	if offer != nil {
		c.Version = offer.Version
	}
	return answerWith(c), nil
}

// checkNow has the sources asked.
func (s *Server) checkNow(ctx context.Context) (version string, err error) {
	err = s.ask(ctx, checkLimit, func(ctx context.Context, u Updates) error {
		version, err = u.Check(ctx)
		return err
	})
	return version, err
}

// offered is what is on offer: what the status knows of it, or the version
// alone, which was given later.
func offered(st deployment.Status, version string) *deployment.Offer {
	if version == "" || st.Available != nil && st.Available.Version == version {
		return st.Available
	}
	return &deployment.Offer{Version: version}
}

// installable tells whether an offer would be installed here.
func installable(o *deployment.Offer) bool { return o != nil && o.Refused == "" }

func (s *Server) downloadUpdate(ctx context.Context, in *wantedVersion) (*body[UpdateBegun], error) {
	err := s.ask(ctx, orderLimit, func(ctx context.Context, u Updates) error { return u.Download(ctx, in.version()) })
	if err != nil {
		return nil, err
	}
	return answerWith(UpdateBegun{Message: "fetching " + cmp.Or(in.version(), "what is on offer")}), nil
}

func (s *Server) applyUpdate(ctx context.Context, in *wantedVersion) (*body[UpdateBegun], error) {
	id, err := s.begin(ctx, func(ctx context.Context, u Updates) (string, error) { return u.Apply(ctx, in.version()) })
	if err != nil {
		return nil, err
	}
	return answerWith(UpdateBegun{id, begunWords(id, in.version())}), nil
}

// begunWords tell of an installation that has begun: of a version, "" for what is
// on offer, as a transaction, "" where a trial comes before it.
func begunWords(transaction, version string) string {
	if transaction == "" {
		return cmp.Or(prefixed("version ", version), "what is on offer") + " is fetched, and waits for the end of the trial"
	}
	return "the update" + prefixed(" to ", version) + " has begun as " + transaction
}

// prefixed is s after prefix, "" where s is.
func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func (s *Server) rollBack(ctx context.Context, _ *struct{}) (*body[UpdateBegun], error) {
	id, err := s.begin(ctx, func(ctx context.Context, u Updates) (string, error) { return u.Rollback(ctx) })
	if err != nil {
		return nil, err
	}
	return answerWith(UpdateBegun{id, "going back to the release before"}), nil
}

func (s *Server) cancelUpdate(ctx context.Context, _ *struct{}) (*body[UpdateBegun], error) {
	if err := s.ask(ctx, orderLimit, func(ctx context.Context, u Updates) error { return u.Cancel(ctx) }); err != nil {
		return nil, err
	}
	return answerWith(UpdateBegun{Message: "the update is being cancelled"}), nil
}

type policyInput struct{ Body deployment.PolicyChange }

func (s *Server) setUpdatePolicy(ctx context.Context, in *policyInput) (*struct{}, error) {
	return nil, s.ask(ctx, orderLimit, func(ctx context.Context, u Updates) error { return u.SetPolicy(ctx, in.Body) })
}
