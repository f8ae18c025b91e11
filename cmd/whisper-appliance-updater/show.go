package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// glance is how often the status is looked at.
const glance = 250 * time.Millisecond

func statusCommand(a *app) *cobra.Command {
	watch := false
	c := &cobra.Command{
		Use: "status", Short: "Show what serves, what is on offer, and how an update or a trial goes", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.open()
			if err != nil {
				return err
			}
			if watch {
				return a.watch(c.Context(), a.printChange, func(deployment.Status) bool { return false })
			}
			s, err := u.Status()
			if err != nil {
				return err
			}
			return a.print(s, statusWords(s)+goneWords(s.PID))
		},
	}
	c.Flags().BoolVar(&watch, "watch", false, "go on showing it as it changes, until Ctrl-C; with --json a line for each change")
	return c
}

func statusWords(s deployment.Status) string {
	var b strings.Builder
	line := func(key, format string, args ...any) { fmt.Fprintf(&b, "%-12s%s\n", key, fmt.Sprintf(format, args...)) }
	line("state", "%s", s.Message)
	if s.State != deployment.Idle && s.State != deployment.Attention {
		line("doing", "%s", doingWords(s))
	}
	line("serves", "%s", releaseWords(s.Current))
	if s.Stable.Slot != s.Current.Slot {
		line("way back", "%s", releaseWords(s.Stable))
	}
	line("package", "%s", releaseWords(s.Golden))
	if s.Trial != nil {
		trialWords(line, s.Trial)
	}
	if s.Queued != nil {
		line("queued", "version %s, for the end of the trial", s.Queued.Version)
	}
	if s.Available != nil {
		line("on offer", "%s", strings.Split(offerWords(s.Available), "\n")[0])
	}
	if !s.Checked.IsZero() {
		line("checked", "%s, %s", when(s.Checked), cmp.Or(s.Source, "no source"))
	}
	if s.CheckError != nil {
		line("check", "failed: %s", s.CheckError.Message)
	}
	if !s.Stale.IsZero() {
		line("source", "not renewed since %s", when(s.Stale))
	}
	if s.Pinned != "" {
		line("pinned", "version %s", s.Pinned)
	}
	if s.Held != "" {
		line("held", "version %s is not installed by itself: %s", s.Held, heldWords(s))
	}
	if s.Last != nil {
		line("last", "%s", recordLine(*s.Last))
	}
	if s.Alarm != nil {
		line("ALARM", "%s", s.Alarm.Message)
		if s.Alarm.Hint != "" {
			line("", "try: %s", s.Alarm.Hint)
		}
	}
	return b.String()
}

// heldWords say how a version came to be held. A server that was taken over may
// ask for a rollback, too: where one was asked for is there to be noticed.
func heldWords(s deployment.Status) string {
	doors := map[deployment.Door]string{
		deployment.DoorHTTP: "over HTTP", deployment.DoorDBus: "over D-Bus by root", deployment.DoorCLI: "on the command line", deployment.DoorDpkg: "by dpkg",
	}
	switch how, known := doors[s.HeldBy]; {
	case known:
		return fmt.Sprintf("rolled back %s at %s; what is newer may come", how, when(s.HeldSince))
	case !s.HeldSince.IsZero():
		return fmt.Sprintf("taken back, or kept from serving, at %s; what is newer may come", when(s.HeldSince))
	}
	return "it was left by a rollback"
}

// goneWords tells of a status that nobody keeps up any more, "" where somebody
// does, or nothing goes on.
func goneWords(pid int) string {
	if pid == 0 || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return ""
	}
	return fmt.Sprintf("%-12sprocess %d, which was at it, is gone; `whisper-appliance update recover` settles what it has left\n", "", pid)
}

func trialWords(line func(key, format string, args ...any), t *deployment.TrialStatus) {
	line("trial", "%s of %s healthy, %d requests, %d failed; %s", seconds(t.HealthySeconds), seconds(t.NeededSeconds), t.Requests, t.Failed, cmp.Or(t.Says, "no look yet"))
	for _, e := range t.Evidence {
		line("", "%s", e)
	}
}

func releaseWords(r deployment.Release) string {
	if r.Slot == "" {
		return "nothing"
	}
	return fmt.Sprintf("%s in slot %s", cmp.Or(r.Version, "no release"), r.Slot)
}

func doingWords(s deployment.Status) string {
	w := string(s.Phase)
	if p := s.Progress; p.Total > 0 {
		w += fmt.Sprintf(", %s of %s", fault.Bytes(p.Done), fault.Bytes(p.Total))
		if p.LeftSeconds >= 0 && p.Done < p.Total {
			w += fmt.Sprintf(", %s left", seconds(p.LeftSeconds))
		}
	}
	return cmp.Or(w, string(s.State))
}

func seconds(s float64) string {
	return (time.Duration(s * float64(time.Second))).Round(time.Second).String()
}

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }
