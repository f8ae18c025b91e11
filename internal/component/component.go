// Package component is the register of the appliance's parts: what each is
// called, what it needs, whether the appliance can do without it and what it
// does then, how it is started and how it is checked. It starts the parts by
// their levels, looks after them while the appliance runs, starts what failed
// again until it works, and knows the state of each.
//
// It trusts the functions it is given to be safe to call again, and nothing
// else of them: each runs in a goroutine of its own with a deadline, a panic is
// a failure, and one that does not return is said to and not called a second
// time. It writes one log record where a part fails and one where it is well
// again, and nothing else.
package component

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Component is one part of the appliance as it is declared.
type Component struct {
	Name     string   // "engine": lower case, a label of logs and metrics
	Does     string   // what it is for, a phrase without a full stop
	Critical bool     // the appliance does not serve without it
	Needs    []string // names of the components that must be well before it starts
	Without  string   // what the appliance does while it fails
	Checked  string   // how it is checked, for the documentation
	Search   []string // paths and programs that are really looked at, for the log
	Planned  string   // why it is not there yet, "comes with a later version"; "" = it is

	// Start makes it ready; nil = nothing to do. It may be called again after a
	// failure, of it or of Check, and must then put right what it can.
	Start func(ctx context.Context) error

	// Check tells how it is, and a note for people ("tiny, loaded"); nil = as
	// Start left it.
	Check func(ctx context.Context) (note string, err error)

	Every time.Duration // between two checks; 0 = 30 s
	Limit time.Duration // for one Start or Check; 0 = 10 s
}

// Defaults of a Component's times.
const (
	defaultEvery = 30 * time.Second
	defaultLimit = 10 * time.Second
)

func (c Component) every() time.Duration { return cmp.Or(c.Every, defaultEvery) }
func (c Component) limit() time.Duration { return cmp.Or(c.Limit, defaultLimit) }

// Status is how a component is.
type Status string

// The statuses.
const (
	OK          Status = "ok"
	Failed      Status = "failed"      // State's Error says why
	Waiting     Status = "waiting"     // not started: its turn has not come, or what it needs fails
	Unavailable Status = "unavailable" // not in this version
)

// Statuses are all of them, in a fixed order.
func Statuses() []Status { return []Status{OK, Failed, Waiting, Unavailable} }

// Health is how all components are together.
type Health string

// The healths.
const (
	Well     Health = "ok"
	Degraded Health = "degraded" // an optional component fails
	Broken   Health = "error"    // a critical one does
)

// State is what is known of a component.
type State struct {
	Name     string        `json:"name"`
	Status   Status        `json:"status" enum:"ok,failed,waiting,unavailable"`
	Critical bool          `json:"critical" doc:"The appliance does not serve without it."`
	Does     string        `json:"does"`
	Needs    []string      `json:"needs,omitempty"`
	Without  string        `json:"without,omitempty" doc:"What the appliance does while it fails."`
	Search   []string      `json:"search_paths,omitempty" doc:"Paths and programs that it looks at."`
	Since    time.Time     `json:"since" doc:"When it came into this status."`
	Checked  time.Time     `json:"checked,omitzero" doc:"When that was last seen."`
	Note     string        `json:"note,omitempty"`
	Error    string        `json:"error,omitempty" doc:"Why it is not ok."`
	Code     string        `json:"code,omitempty" doc:"The same for programs."`
	Hint     string        `json:"hint,omitempty" doc:"What to try."`
	Failures int           `json:"failures" doc:"How often it has failed since the start, attempts to mend it included."`
	Took     time.Duration `json:"start_ns" doc:"How long its start took, nanoseconds; 0 where it was not started."`
}

// find gives the component called name.
func find(list []Component, name string) (Component, bool) {
	i := slices.IndexFunc(list, func(c Component) bool { return c.Name == name })
	if i < 0 {
		return Component{}, false
	}
	return list[i], true
}
