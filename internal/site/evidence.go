package site

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/diagnose"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/systemd"
)

// evidence writes down what is known just now: the journal of the appliance's
// units, which holds more than since then, the units, how runs of the server have
// ended, and what the one that serves says of its health.
func (m *Machine) evidence(ctx context.Context, dir string, _ time.Time) error {
	var errs []error
	for _, part := range []struct {
		name string
		make func(context.Context) ([]byte, error)
	}{
		{"journal.jsonl", diagnose.Journal(filepath.Join(m.Paths.Run, "journal.sock"))},
		{"units.json", diagnose.JSON(m.units)},
		{"ends.txt", m.noted},
		{"health.json", m.health},
	} {
		data, err := part.make(ctx)
		if len(data) > 0 {
			err = errors.Join(err, durable.WriteFile(filepath.Join(dir, part.name), data, 0o600))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (m *Machine) units(ctx context.Context) ([]systemd.Unit, error) {
	return m.bus.Units(ctx, systemd.Ours()...)
}

// noted is what the gate has noted of the server; nothing where none has failed.
func (m *Machine) noted(context.Context) ([]byte, error) {
	data, err := durable.ReadRegular(m.endsFile(), mostEnds)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (m *Machine) health(ctx context.Context) ([]byte, error) {
	client := api.OverSocket(m.Paths.APISocket)
	defer client.HTTP.CloseIdleConnections()
	_, data, err := client.Raw(ctx, "/health/detailed")
	return data, err
}
