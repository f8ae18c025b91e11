package main

import (
	"io"
	"log/slog"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/environment"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/version"
)

// serverLog is the log as the settings want it. level is set to what they say,
// and may be set again. stream is JOURNAL_STREAM; slot is "" where there are none.
func serverLog(w io.Writer, c config.Log, stream string, level *slog.LevelVar, e environment.Environment, slot string) (*slog.Logger, error) {
	wanted, err := logging.ParseLevel(c.Level)
	if err != nil {
		return nil, err
	}
	level.Set(wanted)
	return logging.New(logging.Options{
		W: w, Format: c.Format, Level: level, JournalStream: stream, Container: e.Image(),
		Attrs: logContext(e, slot),
	})
}

// logContext is what every entry says of where it comes from.
func logContext(e environment.Environment, slot string) []slog.Attr {
	attrs := []slog.Attr{slog.String(logging.Component, "server"), slog.String(logging.Version, version.Build().Version)}
	for _, a := range []slog.Attr{
		slog.String(logging.Slot, slot),
		slog.String(logging.Environment, e.Deployment),
		slog.String(logging.Profile, e.Profile),
		slog.String(logging.ContainerID, e.ContainerID()),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	return attrs
}
