package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/update"
)

func checkCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Ask the sources for a newer release", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			offer, err := u.Check(c.Context())
			if err != nil {
				return err
			}
			return a.print(map[string]any{"available": offer}, offerWords(offer))
		},
	}
}

func offerWords(o *deployment.Offer) string {
	if o == nil {
		return "nothing newer is on offer"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "version %s (%s, %s) is on offer", o.Version, o.Channel, fault.Bytes(o.Bytes))
	if o.Fetched {
		b.WriteString(", and fetched")
	}
	if o.Refused != "" {
		fmt.Fprintf(&b, "; it is not installed by itself: %s", o.Refused)
	}
	if o.Notes != "" {
		fmt.Fprintf(&b, "\n\n%s", o.Notes)
	}
	return b.String()
}

func downloadCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "download [VERSION]", Short: "Bring a release and verify it, to be installed later", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			var offer *deployment.Offer
			err = a.following(c.Context(), func(ctx context.Context) (err error) {
				offer, err = u.Download(ctx, first(args))
				return err
			})
			if err != nil {
				return err
			}
			return a.print(map[string]any{"downloaded": offer}, offerWords(offer))
		},
	}
}

func applyCommand(a *app) *cobra.Command {
	version, wait := "", false
	c := &cobra.Command{
		Use: "apply [VERSION]", Short: "Install a release; without a version the newest on offer", Args: cobra.MaximumNArgs(1),
		Long: "Install a release: it is fetched, verified, tried, switched to and put on trial. The command ends when the trial\n" +
			"begins; with --wait when it has ended.",
		RunE: func(c *cobra.Command, args []string) error {
			if version != "" && len(args) > 0 && args[0] != version {
				return wrongUsage(c, fmt.Errorf("--version is %q, and the argument is %q", fault.Short(version), fault.Short(args[0])))
			}
			return a.apply(c, update.Want{Version: cmp.Or(version, first(args)), Trial: true}, 0, wait)
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until the trial has ended; exits with 69 where it was taken back")
	c.Flags().StringVar(&version, "version", "", "the `version`, as the argument")
	return c
}

func installCommand(a *app) *cobra.Command {
	wait := false
	c := &cobra.Command{
		Use: "install FILE", Short: "Install a release from a file *.wa, without a network", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			file, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if a.door == string(deployment.DoorCLI) {
				a.door = string(deployment.DoorFile)
			}
			return a.apply(c, update.Want{Bundle: file, Trial: true}, 0, wait)
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until the trial has ended; exits with 69 where it was taken back")
	return c
}

// deployCommand is for the package's scripts, and for who has a tree.
func deployCommand(a *app) *cobra.Command {
	from, was, within, trial, wait := "", "", time.Duration(0), true, false
	c := &cobra.Command{
		Use: "deploy", Short: "Install the package's own release, or one in a directory", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			// What is queued is found again from another directory.
			if from, err = filepath.Abs(cmp.Or(from, u.Slots.Golden)); err != nil {
				return err
			}
			return a.applyWith(c, u, update.Want{Tree: from, Was: was, Trial: trial}, within, wait)
		},
	}
	c.Flags().StringVar(&from, "from", "", "`directory` of the release; else the package's own")
	c.Flags().StringVar(&was, "was", "", "`version` of the package that dpkg had configured before")
	c.Flags().MarkHidden("was") //nolint:errcheck // it is there
	c.Flags().BoolVar(&trial, "trial", true, "put it on trial; else it is committed as soon as it serves")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the trial has ended")
	withinFlag(c, &within)
	return c
}

func switchCommand(a *app) *cobra.Command {
	trial, within, wait := false, time.Duration(0), false
	c := &cobra.Command{
		Use: "switch a|b", Short: "Make what lies in a slot serve", Args: cobra.ExactArgs(1), ValidArgs: []cobra.Completion{slot.A, slot.B},
		RunE: func(c *cobra.Command, args []string) error {
			if err := switchable(args[0]); err != nil {
				return err
			}
			return a.apply(c, update.Want{Slot: args[0], Trial: trial}, within, wait)
		},
	}
	c.Flags().BoolVar(&trial, "trial", false, "put it on trial; else it is committed as soon as it serves")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the trial has ended")
	withinFlag(c, &within)
	return c
}

// switchable refuses what a server is not switched to.
func switchable(name string) error {
	switch name {
	case slot.A, slot.B:
		return nil
	case slot.Golden:
		return fault.New(fault.BadInput, "golden_stays", "golden is the package's own release: it is no slot to switch to, since every upgrade of the package changes it under its server").
			On("slot").Try("`whisper-appliance slot deploy` copies it into the idle slot and switches to that")
	}
	return fault.New(fault.BadInput, "unknown_slot", "there is no slot %q; a server is switched to slot a or b", fault.Short(name)).On("slot")
}

// withinFlag gives c the time for all that it does.
func withinFlag(c *cobra.Command, within *time.Duration) {
	c.Flags().DurationVar(within, "within", slot.Within, "`time` for all of it up to the trial, like 90s; after that what served before serves again, for which there is time besides")
}

// apply runs the transaction.
func (a *app) apply(c *cobra.Command, w update.Want, within time.Duration, wait bool) error {
	u, err := a.openToChange()
	if err != nil {
		return err
	}
	return a.applyWith(c, u, w, within, wait)
}

func (a *app) applyWith(c *cobra.Command, u *update.Updater, w update.Want, within time.Duration, wait bool) error {
	if c.Flags().Changed("within") && within <= 0 {
		return wrongUsage(c, fmt.Errorf("--within is %v: it has to be more than nothing", within))
	}
	ctx := c.Context()
	if within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, within, tooSlow(within))
		defer cancel()
	}
	w.Door = deployment.Door(a.door)
	var res update.Result
	err := a.following(ctx, func(ctx context.Context) (err error) {
		res, err = u.Apply(ctx, w)
		return err
	})
	if err != nil {
		return inTime(ctx, err)
	}
	if wait && res.Outcome == update.OnTrial {
		return a.waitForTrial(c.Context(), res.Transaction)
	}
	return a.print(res, resultWords(res))
}

func tooSlow(within time.Duration) *fault.Error {
	return fault.New(fault.Unavailable, "too_slow", "it took more than %v: nothing was switched, and the release before serves on", within).
		Try("give it more, as by --within 10m, and try again")
}

// inTime words what ended because ctx ran out of time. What knows how it ended
// says more.
func inTime(ctx context.Context, err error) error {
	var late *fault.Error
	if !errors.As(context.Cause(ctx), &late) || !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*fault.Error)) {
		return err
	}
	return fault.New(late.Kind, late.Code, "%s", late.Message).Because(err).Try("%s", late.Hint)
}

func resultWords(r update.Result) string {
	v := r.To.Version
	switch r.Outcome {
	case update.Already:
		if r.Left != "" {
			return r.Left
		}
		if v == "" {
			return "nothing newer is on offer"
		}
		if r.Idle != "" {
			return fmt.Sprintf("slot %s has %s already; no server runs: %s", r.To.Slot, v, r.Idle)
		}
		return fmt.Sprintf("slot %s serves %s already", r.To.Slot, v)
	case update.Queued:
		if r.Replaced != "" {
			return fmt.Sprintf("version %s is queued behind the trial of %s, in place of version %s", v, r.Behind, r.Replaced)
		}
		return fmt.Sprintf("version %s is queued behind the trial of %s", v, r.Behind)
	case update.OnTrial:
		return fmt.Sprintf("slot %s serves %s, on trial: `whisper-appliance update status` shows how it goes", r.To.Slot, v)
	case deployment.RolledBack:
		return fmt.Sprintf("slot %s serves %s again", r.To.Slot, v)
	case deployment.Canceled:
		if r.Asked {
			return "asked to stop"
		}
		return "cancelled"
	}
	if r.Idle != "" {
		return fmt.Sprintf("slot %s will serve %s; no server runs: %s", r.To.Slot, v, r.Idle)
	}
	return fmt.Sprintf("slot %s serves %s", r.To.Slot, v)
}

func rollbackCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rollback", Short: "Go back to the release before", Args: cobra.NoArgs,
		Long: "Go back: from a trial to the release before it, else to what the other slot holds. The version that is left is\n" +
			"not installed by itself again, until `update unpin`.",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.do(c, func(ctx context.Context, u *update.Updater) (update.Result, error) {
				return u.Rollback(ctx, deployment.Door(a.door))
			})
		},
	}
}

// do is a verb that ends in a result.
func (a *app) do(c *cobra.Command, work func(context.Context, *update.Updater) (update.Result, error)) error {
	u, err := a.openToChange()
	if err != nil {
		return err
	}
	var res update.Result
	if err := a.following(c.Context(), func(ctx context.Context) (err error) {
		res, err = work(ctx, u)
		return err
	}); err != nil {
		return err
	}
	return a.print(res, resultWords(res))
}

func commitCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "commit", Short: "End the trial well, now", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			to, err := u.Commit(c.Context())
			if err != nil {
				return err
			}
			return a.print(map[string]any{"committed": to}, "version "+to.Version+" is committed")
		},
	}
}

func cancelCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "cancel", Short: "Stop an update before it has taken over, or take a trial back", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.do(c, func(ctx context.Context, u *update.Updater) (update.Result, error) {
				return u.Cancel(ctx, deployment.Door(a.door))
			})
		},
	}
}

func restartCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "restart", Short: "Restart the server, and see that it is another process", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			id, err := restart(c.Context(), u, a.log)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"invocation": id}, "restarted: invocation "+id)
		},
	}
}

// restart restarts the server, and lets everybody see how that ended. What never
// began leaves what is seen of the one before.
func restart(ctx context.Context, u *update.Updater, log *slog.Logger) (invocation string, err error) {
	r := deployment.Restart{Asked: u.Now()}
	r.Invocation, err = u.Restart(ctx)
	if fault.KindOf(err) == fault.Busy {
		return "", err
	}
	r.Ended = u.Now()
	r.Error = deployment.ProblemOf(err, r.Ended)
	if werr := deployment.WriteRestart(u.Run, r); werr != nil {
		log.Warn("how the restart ended cannot be shown", logging.Err(werr))
	}
	return r.Invocation, err
}

// forgetCommand is for the package's script.
func forgetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "forget-slots", Short: "Forget what was in the slots, which are about to be removed", Args: cobra.NoArgs, Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			return u.ForgetSlots(c.Context())
		},
	}
}

func pinCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "pin [VERSION]", Short: "Stay with a version; without one with what serves", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			v, err := u.Pin(first(args))
			if err != nil {
				return err
			}
			return a.print(map[string]string{"pinned": v}, "version "+v+" is pinned")
		},
	}
}

func unpinCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "unpin", Short: "Let every version be installed again", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			if err := u.Unpin(); err != nil {
				return err
			}
			return a.print(map[string]string{"pinned": ""}, "no version is pinned or held")
		},
	}
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
