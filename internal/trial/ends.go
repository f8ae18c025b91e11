package trial

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"whisper-appliance/internal/deployment"
)

// End is how one run of the server ended that nobody wanted to end, as systemd
// told it to the gate.
type End struct {
	Result     string `json:"result"`               // systemd's word: Watchdog, "oom-kill", "signal", "exit-code", "resources", …
	Code       string `json:"code,omitempty"`       // of its main process: "exited", "killed", "dumped"; "" where there was none
	Status     string `json:"status,omitempty"`     // its exit status, or its signal by name; "" likewise
	Invocation string `json:"invocation,omitempty"` // systemd's id of the run, by which the journal has it; "" = not known
	At         int64  `json:"at,omitempty"`         // when, in seconds since 1970 by the machine's clock; 0 = not known
}

// Watchdog is the result of a server that hung.
const Watchdog = "watchdog"

// String is the end for people.
func (e End) String() string {
	s := fmt.Sprintf("it ended with the result %q", e.Result)
	if e.Status != "" {
		s += fmt.Sprintf(", %s %s", cmp.Or(e.Code, "status"), e.Status)
	}
	if e.Invocation != "" {
		s += " (journalctl _SYSTEMD_INVOCATION_ID=" + e.Invocation + ")"
	}
	return s
}

// exit is the status with which its program ended, 0 where none is known.
func (e End) exit() int {
	n, err := strconv.Atoi(e.Status)
	if err != nil || e.Result != "exit-code" && e.Result != "" {
		return 0
	}
	return n
}

// begun tells whether there was a main process to fail. Where the sandbox cannot
// be made the commands before it, the gate among them, fail first, and of a main
// process systemd knows nothing: the status is 0.
func (e End) begun() bool {
	failed := slices.Contains([]string{"exit-code", "signal", "core-dump"}, e.Result)
	return !failed || e.Code != "" || e.Status != "" && e.Status != "0"
}

// Exit statuses with a meaning of their own.
const (
	exitConfig    = 78  // ours: the settings are wrong
	exitFirstUnit = 200 // systemd's, from here on: it could not set the unit up
	exitLastUnit  = 245
	exitExec      = 203 // but for this one: there is no program that can be executed
)

// Ended is what ends of the server's runs, the newest last, say of the release.
// It has to answer for them where it has to for one; else the newest decides. Of
// none it is the one that is not known, and the release's.
func (j *Judge) Ended(ends ...End) Verdict {
	v := j.ended(End{})
	for i, e := range ends {
		is := j.ended(e)
		if i == 0 || is.Blame == deployment.Candidate || v.Blame != deployment.Candidate {
			v.Reason, v.Blame, v.Says = is.Reason, is.Blame, is.Says
		}
		v.Evidence = append(v.Evidence, is.Evidence...)
	}
	return v
}

// ended is what one end says. That it was started again is for the caller to
// know. A success is what systemd says as soon as the next one runs.
func (j *Judge) ended(e End) Verdict {
	v := Verdict{Word: deployment.Bad, Reason: ReasonRestarted, Blame: deployment.Candidate, Says: "the server ended by itself and was started again"}
	if e.Result != "" && e.Result != "success" {
		v.Evidence = []string{e.String()}
	}
	exit := e.exit()
	switch {
	case e.Result == Watchdog:
		v.Reason, v.Says = ReasonWatchdog, "the server hung, and systemd's watchdog ended it"
	case !e.begun():
		v.Reason, v.Blame, v.Says = ReasonUnit, deployment.Configuration, "systemd could not run the commands of the server's unit"
	case e.Result == "signal", e.Result == "core-dump":
		v.Reason, v.Says = ReasonSignal, "a signal ended the server: "+cmp.Or(e.Status, "it is not known which")
	case e.Result == "oom-kill":
		v.Reason, v.Blame, v.Says = ReasonOOM, j.memoryBlame(), "the kernel killed the server for memory"
	case e.Result == "resources", e.Result == "start-limit-hit":
		v.Reason, v.Blame, v.Says = ReasonUnit, deployment.Environment, "systemd could not run the server's unit ("+e.Result+")"
	case exit >= exitFirstUnit && exit <= exitLastUnit && exit != exitExec:
		v.Reason, v.Blame = ReasonUnit, deployment.Configuration
		v.Says = fmt.Sprintf("systemd could not set up the server's unit, status %d", exit)
	case exit == exitConfig:
		v.Blame = deployment.Configuration
	}
	return v
}

// memoryBlame says who has to answer where there was too little memory: the
// release only where it was seen to take more than it may beside the one before,
// on a machine that did not call itself short of memory.
func (j *Judge) memoryBlame() string {
	if budget := j.budget(); budget > 0 && j.credit.Peak > budget && !j.short {
		return deployment.Candidate
	}
	return deployment.Environment
}

// past is how many of the ends are those of runs before the one that is seen.
// They were judged, or nobody has to answer for them, as where a stop that
// somebody wanted took too long. What has ended during a look is not among them.
func (s Sample) past() int {
	of := slices.IndexFunc(s.Ends, func(e End) bool { return e.Invocation != "" && e.Invocation == s.Invocation })
	if of < 0 {
		return len(s.Ends)
	}
	return of
}

// news are the ends that were not past at the look before: what systemd says
// where the gate has none.
func (j *Judge) news(s Sample) []End {
	if fresh := j.credit.Fresh(s.Ends); len(fresh) > 0 {
		return fresh
	}
	return []End{{Result: s.Result, Status: strconv.Itoa(s.Exit)}}
}

// Fresh are those of the ends, the newest last, that no look has found to be past.
// The gate drops its oldest notes, and has none after a start of the machine: where
// the one that was seen last is not among them all are fresh.
func (c Credit) Fresh(ends []End) []End {
	for i, e := range slices.Backward(ends) {
		if c.Seen != (End{}) && e == c.Seen {
			return slices.Clone(ends[i+1:])
		}
	}
	return slices.Clone(ends)
}
