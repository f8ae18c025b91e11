package component

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"whisper-appliance/internal/fault"
)

// Registry holds the components and their states. Start is called once, then
// Run; the rest may be called at any time from anywhere and answers from memory.
type Registry struct {
	list    []Component
	parts   map[string]*part
	log     *slog.Logger
	context []slog.Attr

	mu   sync.Mutex // guards took, and the parts' fields that say so
	took time.Duration
}

// part is a component with what is known of it.
type part struct {
	Component
	wake chan struct{} // asks its watcher to look now
	late chan struct{} // has a token while a call is under way

	// Guarded by Registry.mu.
	state   State
	started bool  // Start and Check have succeeded once
	cause   error // why it fails; nil while all is well
	said    State // the failure that was logged and lasts
}

// New makes a registry of list, which is copied. log gets the records of
// failures with context added to each: where the program runs and as what. The
// error is a fault that says what is wrong with the list.
func New(list []Component, log *slog.Logger, context ...slog.Attr) (*Registry, error) {
	if err := check(list); err != nil {
		return nil, err
	}
	r := &Registry{list: slices.Clone(list), parts: map[string]*part{}, log: log, context: context}
	for _, c := range list {
		p := &part{Component: c, wake: make(chan struct{}, 1), late: make(chan struct{}, 1)}
		p.state = State{
			Name: c.Name, Status: Waiting, Critical: c.Critical, Does: c.Does, Needs: c.Needs,
			Without: c.Without, Search: c.Search, Since: time.Now(), Error: "it has not been started yet", Code: CodeNotStarted,
		}
		if c.Planned != "" {
			p.state.Status, p.state.Error, p.state.Code = Unavailable, c.Planned, CodePlanned
		}
		r.parts[c.Name] = p
	}
	return r, nil
}

// Codes of a State that no fault gave.
const (
	CodeNotStarted = "not_started"
	CodePlanned    = "not_available"   // Planned says why
	CodeNeeds      = "needs_failed"    // what it needs fails
	CodeSlow       = "does_not_return" // Start or Check has not returned in its time
	CodePanic      = "panic"
	CodeFailed     = "component_failed" // an error without a code of its own
)

// List is the components as they were declared.
func (r *Registry) List() []Component { return slices.Clone(r.list) }

// Start starts all components, those of a level at once, each within its
// Limit, and checks them. What needs a component that failed is not started.
// The error names the critical components that failed; optional ones are in
// States alone.
func (r *Registry) Start(ctx context.Context) error {
	began := time.Now()
	for _, level := range Levels(r.list) {
		var wg sync.WaitGroup
		for _, name := range level {
			wg.Go(func() { r.step(ctx, r.parts[name]) })
		}
		wg.Wait()
	}
	r.mu.Lock()
	r.took = time.Since(began)
	r.mu.Unlock()
	return r.Err()
}

// Err names the critical components that are not well, nil where all are.
func (r *Registry) Err() error {
	var what []string
	var causes []error
	hint := ""
	for _, s := range r.States() {
		if !s.Critical || s.Status == OK || s.Status == Unavailable {
			continue
		}
		what = append(what, s.Name+": "+s.Error)
		if hint == "" {
			hint = s.Hint
		}
		if cause := r.cause(s.Name); cause != nil {
			causes = append(causes, cause)
		}
	}
	if what == nil {
		return nil
	}
	f := fault.New(fault.Unavailable, "critical_component", "the appliance cannot serve: %s", strings.Join(what, "; ")).Try("%s", hint)
	if len(causes) > 0 {
		f.Err = unsaid{errors.Join(causes...)}
	}
	return f
}

// unsaid is a cause whose words are in the message already.
type unsaid struct{ error }

func (unsaid) Error() string   { return "see the log" }
func (u unsaid) Unwrap() error { return u.error }
func (s State) harmless() bool { return s.Status == OK || s.Status == Unavailable }

func (r *Registry) cause(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parts[name].cause
}

// Total is how long Start took, 0 until it has returned.
func (r *Registry) Total() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.took
}

// States are all states, in the order of the declarations.
func (r *Registry) States() []State {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]State, len(r.list))
	for i, c := range r.list {
		all[i] = r.parts[c.Name].state
	}
	return all
}

// State is the state of the component called name, false where there is none.
func (r *Registry) State(name string) (State, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.parts[name]
	if !ok {
		return State{}, false
	}
	return p.state, true
}

// Health is how the appliance is as a whole. What is planned harms nothing.
func (r *Registry) Health() Health {
	health := Well
	for _, s := range r.States() {
		switch {
		case s.harmless():
		case s.Critical:
			return Broken
		default:
			health = Degraded
		}
	}
	return health
}

// Recheck asks for the named components to be looked at now, all where none is
// named. It does not wait. Run looks at each at most once a second so.
func (r *Registry) Recheck(names ...string) {
	for _, c := range r.list {
		if len(names) == 0 || slices.Contains(names, c.Name) {
			r.parts[c.Name].nudge()
		}
	}
}

func (p *part) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
