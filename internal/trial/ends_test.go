package trial

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/deployment"
)

// TestEnds: what the gate has noted tells how the server ended, though systemd
// calls it a success again as soon as the next one runs.
func TestEnds(t *testing.T) {
	watchdog, crash := End{Result: "watchdog", Code: "killed", Status: "ABRT"}, End{Result: "exit-code", Code: "exited", Status: "1"}
	sandbox := End{Result: "exit-code", Code: "exited", Status: "226", Invocation: "beef"}
	for _, tt := range []struct {
		name string
		ends []End
		want string
		says string // in the evidence
	}{
		{"the watchdog", []End{watchdog}, "bad watchdog candidate", "killed ABRT"},
		{"it exits", []End{crash}, "bad restarted candidate", "exited 1"},
		{"of a signal", []End{{Result: "signal", Code: "killed", Status: "SEGV"}}, "bad signal candidate", "killed SEGV"},
		{"with a core", []End{{Result: "core-dump", Code: "dumped", Status: "ABRT"}}, "bad signal candidate", "dumped ABRT"},
		{"for memory", []End{{Result: "oom-kill", Code: "killed", Status: "KILL"}}, "bad out_of_memory environment", "oom-kill"},
		{"the sandbox cannot be made", []End{sandbox}, "bad unit_failed configuration", "exited 226 (journalctl _SYSTEMD_INVOCATION_ID=beef)"},
		{"the first of systemd's statuses", []End{{Result: "exit-code", Code: "exited", Status: "200"}}, "bad unit_failed configuration", "200"},
		{"the last of systemd's statuses", []End{{Result: "exit-code", Code: "exited", Status: "245"}}, "bad unit_failed configuration", "245"},
		{"one beyond", []End{{Result: "exit-code", Code: "exited", Status: "246"}}, "bad restarted candidate", "246"},
		{"there is no program", []End{{Result: "exit-code", Code: "exited", Status: "203"}}, "bad restarted candidate", "203"},
		{"a command before it fails", []End{{Result: "exit-code"}}, "bad unit_failed configuration", "exit-code"},
		{"a command before it is ended", []End{{Result: "signal"}}, "bad unit_failed configuration", "signal"},
		{"no resources", []End{{Result: "resources"}}, "bad unit_failed environment", "resources"},
		{"started too often", []End{{Result: "start-limit-hit"}}, "bad unit_failed environment", "start-limit-hit"},
		{"it does not come up", []End{{Result: "timeout", Code: "killed", Status: "TERM"}}, "bad restarted candidate", "timeout"},
		{"the settings are wrong", []End{{Result: "exit-code", Code: "exited", Status: "78"}}, "bad restarted configuration", "78"},
		{"nothing is known", nil, "bad restarted candidate", ""},
		{"once is enough", []End{crash, sandbox}, "bad restarted candidate", "226"},
		{"the newest, where none is its fault", []End{sandbox, {Result: "resources"}}, "bad unit_failed environment", "226"},
		{"the newest, where all are", []End{crash, watchdog}, "bad watchdog candidate", "exited 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j, s := New(Baseline{}, Rules{}, Credit{}), begin()
			j.Look(s)
			s.At += tick
			s.Ends, s.Restarts, s.Result, s.Invocation = tt.ends, 1, "success", "two"
			for _, got := range []Verdict{j.Look(s), New(Baseline{}, Rules{}, Credit{}).Ended(tt.ends...)} {
				if said(got) != tt.want || got.Says == "" {
					t.Errorf("%q, want %q (%s)", said(got), tt.want, got.Says)
				}
				if !strings.Contains(strings.Join(got.Evidence, "\n"), tt.says) {
					t.Errorf("the evidence is %q, want %q in it", got.Evidence, tt.says)
				}
			}
		})
	}
}

// TestEndsDropped: the gate keeps so many notes and no more, of all slots: what is
// left of them may be fewer than were seen, and what is new among them is new.
func TestEndsDropped(t *testing.T) {
	old := []End{{Result: "exit-code", Code: "exited", Status: "226", Invocation: "1"}, {Result: "timeout", Code: "killed", Status: "KILL", Invocation: "2", At: 100}}
	oom, hung := End{Result: "resources", Invocation: "3", At: 200}, End{Result: Watchdog, Invocation: "4", At: 300}
	j, s := New(Baseline{}, Rules{}, Credit{}), begin()
	s.Ends = old
	if v := j.Look(s); said(v) != early {
		t.Fatalf("%q", said(v))
	}
	data, err := json.Marshal(j.Credit())
	if err != nil {
		t.Fatal(err)
	}
	var credit Credit
	if err := json.Unmarshal(data, &credit); err != nil || credit.Seen != old[1] {
		t.Fatalf("%s, %v", data, err)
	}
	for name, tt := range map[string]struct{ ends, fresh []End }{
		"none is new":          {old, nil},
		"fewer are left":       {[]End{old[1], oom}, []End{oom}},
		"as many as were seen": {[]End{oom, hung}, []End{oom, hung}},
		"more":                 {[]End{old[0], old[1], oom, hung}, []End{oom, hung}},
		"all are gone":         {nil, nil},
		"it began anew":        {[]End{oom}, []End{oom}},
	} {
		if got := credit.Fresh(tt.ends); !slices.Equal(got, tt.fresh) {
			t.Errorf("%s: %v, want %v", name, got, tt.fresh)
		}
		again, next := New(Baseline{}, Rules{}, credit), s
		next.At, next.Restarts, next.Ends, next.Invocation = s.At+tick, 1, tt.ends, "now"
		if v := again.Look(next); len(tt.fresh) == 1 && said(v) != "bad unit_failed environment" {
			t.Errorf("%s: %q", name, said(v))
		}
	}
	if got := (Credit{}).Fresh([]End{{}, oom}); len(got) != 2 {
		t.Errorf("nothing was seen, and %v is fresh", got)
	}
}

// TestEndsSeen are not what the next restart is blamed on, and after a start of
// the machine the gate begins anew.
func TestEndsSeen(t *testing.T) {
	sandbox, watchdog := End{Result: "exit-code", Code: "exited", Status: "226"}, End{Result: "watchdog"}
	base := Baseline{Restarts: 1}
	j, s := New(base, Rules{}, Credit{}), begin()
	s.Restarts, s.Ends = 1, []End{sandbox}
	if v := j.Look(s); said(v) != early {
		t.Fatalf("%q", said(v))
	}
	for name, tt := range map[string]struct {
		ends []End
		want string
	}{
		"it exits with 0": {[]End{sandbox}, "bad restarted candidate"},
		"it hangs":        {[]End{sandbox, watchdog}, "bad watchdog candidate"},
		"after a boot":    {nil, "bad restarted candidate"},
	} {
		again, next := New(base, Rules{}, j.Credit()), s
		next.At, next.Restarts, next.Ends = s.At+tick, 2, tt.ends
		if v := again.Look(next); said(v) != tt.want || v.Blame != deployment.Candidate {
			t.Errorf("%s: %q, want %q", name, said(v), tt.want)
		}
	}
	again := New(base, Rules{}, j.Credit())
	s.Ends = nil
	again.Look(s)
	s.Restarts, s.Ends = 2, []End{{Result: "resources"}}
	if v := again.Look(s); said(v) != "bad unit_failed environment" {
		t.Errorf("%q after a boot", said(v))
	}
}

// TestEndsOfThisRun: one that ends while it is looked at is judged at the next
// look, when systemd has started it again; a stop that took too long is not.
func TestEndsOfThisRun(t *testing.T) {
	slow := End{Result: "timeout", Code: "killed", Status: "KILL", Invocation: "one"}
	for name, end := range map[string]End{"unit_failed": {Result: "resources", Invocation: "two"}, ReasonSignal: {Result: "signal", Status: "SEGV", Invocation: "two"}} {
		j, s := New(Baseline{}, Rules{}, Credit{}), begin()
		j.Look(s)
		s.At, s.Invocation, s.Ends = s.At+tick, "two", []End{slow, end} // somebody has restarted it
		if v := j.Look(s); said(v) != early {
			t.Errorf("%q", said(v))
		}
		s.At, s.Invocation, s.Restarts = s.At+tick, "three", 1
		if v := j.Look(s); v.Reason != name || strings.Contains(strings.Join(v.Evidence, "\n"), "timeout") {
			t.Errorf("%q, want %q: %q", said(v), name, v.Evidence)
		}
	}
}
