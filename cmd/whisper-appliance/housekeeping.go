package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
)

// abandoned is how long a begun download keeps its place.
const abandoned = 14 * 24 * time.Hour

func housekeepingCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "housekeeping",
		Short: "Remove what nobody will come back for (a timer runs this daily)",
		Long:  "Remove begun downloads of models that were not touched for two weeks. A timer runs this once a day.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			store, _, err := a.store()
			if err != nil {
				return err
			}
			removed, bytes, err := store.Tidy(abandoned)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(map[string]any{"removed": removed, "bytes": bytes})
			}
			for _, name := range removed {
				fmt.Fprintf(a.out, "removed the begun download %s\n", name)
			}
			_, err = fmt.Fprintf(a.out, "%s freed\n", fault.Bytes(bytes))
			return err
		},
	}
	a.jsonFlag(c)
	return c
}
