package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
)

// updateCommand is the updater's own command line. It is the package's program,
// so that what mends an appliance is never part of what is to be mended.
func updateCommand(a *app) *cobra.Command {
	return a.ofUpdater(&cobra.Command{
		Use:   "update",
		Short: "Keep the appliance up to date: check, install, watch, go back",
		Long: "Keep the appliance up to date. A release is verified, put into the slot that does not serve, tried, switched to\n" +
			"without refusing a connection, and committed after a trial; one that fails is taken back.",
	})
}

// ofUpdater makes c hand its arguments to the updater, after those given here,
// and end as that one ends.
func (a *app) ofUpdater(c *cobra.Command, before ...string) *cobra.Command {
	c.DisableFlagParsing = true
	c.RunE = func(_ *cobra.Command, args []string) error {
		return a.becomeUpdater(append(slices.Clip(before), args...))
	}
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.completeUpdater(append(append(slices.Clip(before), args...), word))
	}
	c.ValidArgs = nil
	return c
}

// becomeUpdater replaces this process by the updater.
func (a *app) becomeUpdater(args []string) error {
	if a.paths.UpdaterBin == "" {
		return fault.New(fault.NotFound, "not_installed", "this %s was not installed: there is nothing to update", program).
			Try("install the package; a checkout is updated with git")
	}
	err := syscall.Exec(a.paths.UpdaterBin, append([]string{a.paths.UpdaterBin}, args...), os.Environ())
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Unavailable, "no_updater", "the updater %s is missing", a.paths.UpdaterBin).Because(err).
			Try("apt reinstall whisper-appliance")
	}
	return fault.New(fault.Unavailable, "no_updater", "the updater %s cannot be started", a.paths.UpdaterBin).Because(err).
		Try("apt reinstall whisper-appliance")
}

// completeUpdater asks the updater how its own command line goes on.
func (a *app) completeUpdater(args []string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if a.paths.UpdaterBin == "" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out, err := exec.Command(a.paths.UpdaterBin, append([]string{cobra.ShellCompRequestCmd}, args...)...).Output()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	directive := cobra.ShellCompDirectiveNoFileComp
	if last := lines[len(lines)-1]; strings.HasPrefix(last, ":") {
		lines = lines[:len(lines)-1]
		if slices.Contains(args, "install") {
			directive = cobra.ShellCompDirectiveDefault
		}
	}
	return lines, directive
}

// rootOnly refuses to everybody else what changes the system.
func rootOnly(euid int, what string) error {
	if euid == 0 {
		return nil
	}
	return fault.New(fault.Forbidden, "need_root", "`%s %s` changes the system and is root's alone", program, what).
		Try("sudo %s %s", program, what)
}
