package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
)

// serverStatus is what of /health the command shows.
type serverStatus struct {
	Status           string   `json:"status"`
	Reasons          []string `json:"reasons,omitempty"`
	Version          string   `json:"version"`
	Uptime           float64  `json:"uptime_seconds"`
	Transcriptions   int64    `json:"total_transcriptions"`
	WhisperAvailable bool     `json:"whisper_available"`
	Model            struct {
		Name   string `json:"current_model_name"`
		Loaded bool   `json:"model_loaded"`
	} `json:"model_status"`
}

func statusCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Say how the server is",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.server(c.Context())
			if err != nil {
				return err
			}
			var s serverStatus
			health, err := client.Health(c.Context())
			if err != nil {
				return err
			}
			if err := json.Unmarshal(health, &s); err != nil {
				return err
			}
			print := a.printStatus
			if a.jsonOut {
				print = func(s serverStatus) error { return a.printJSON(s) }
			}
			if err := print(s); err != nil {
				return err
			}
			return s.wrong()
		},
	}
	a.jsonFlag(c)
	a.serverFlags(c)
	return c
}

// wrong is an error where the server would refuse a recording now, so that
// scripts can ask.
func (s serverStatus) wrong() error {
	if s.WhisperAvailable {
		return nil
	}
	return fault.New(fault.Unavailable, "not_ready", "a recording sent now is refused")
}

func (a *app) printStatus(s serverStatus) error {
	fmt.Fprintf(a.out, "%s, version %s, up %s\n", s.Status, s.Version, clock(time.Duration(s.Uptime*float64(time.Second))))
	for _, r := range s.Reasons {
		fmt.Fprintf(a.out, "  %s\n", r)
	}
	memory := ""
	switch {
	case s.Model.Loaded:
		memory = ", in memory"
	case s.WhisperAvailable:
		memory = ", not in memory: the next recording loads it"
	}
	fmt.Fprintf(a.out, "model %s%s\n", s.Model.Name, memory)
	_, err := fmt.Fprintf(a.out, "%d recordings transcribed\n", s.Transcriptions)
	return err
}
