package main

import (
	"github.com/spf13/cobra"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/transcript"
)

// What the shell offers where TAB is pressed. It is asked before the command
// runs, so it finds the paths for itself; where anything fails it offers nothing.

func isHere(l model.Listed) bool { return l.State == model.Installed || l.State == model.Damaged }
func isAway(l model.Listed) bool { return l.State == model.Absent || l.State == model.Partial }

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeModels offers the names of the models that wanted takes.
func (a *app) completeModels(wanted func(model.Listed) bool) completion {
	return func(*cobra.Command, []string, string) (names []string, _ cobra.ShellCompDirective) {
		var err error
		if a.paths, err = paths.Find(paths.System()); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, _, err := a.store()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := s.List()
		for _, l := range all {
			if err == nil && wanted(l) {
				names = append(names, l.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeTranscribe offers values for the flags that have a few.
func (a *app) completeTranscribe(c *cobra.Command) {
	var formats, languages []string
	for _, f := range transcript.Formats() {
		formats = append(formats, string(f))
	}
	for _, l := range transcript.Languages() {
		languages = append(languages, l.Code+"\t"+l.Name)
	}
	for flag, f := range map[string]completion{
		"format":         cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp),
		"subtitle_style": cobra.FixedCompletions([]string{string(transcript.Broadcast), string(transcript.PerSegment)}, cobra.ShellCompDirectiveNoFileComp),
		"language":       cobra.FixedCompletions(languages, cobra.ShellCompDirectiveNoFileComp),
		"model":          a.completeModels(isHere),
	} {
		c.RegisterFlagCompletionFunc(flag, f) //nolint:errcheck // the flags are there
	}
}

// completeKeys offers the settings' names, where a name comes.
func completeKeys(_ *cobra.Command, args []string, _ string) (keys []string, _ cobra.ShellCompDirective) {
	if len(args)%2 == 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	_, report, err := config.Load(config.Sources{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, v := range report.Values {
		keys = append(keys, v.Key)
	}
	return keys, cobra.ShellCompDirectiveNoFileComp
}
