package appliance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/uuid"

	"whisper-appliance/internal/durable"
)

// ownName is the name that is kept in a file, made up where there is none yet.
func ownName(path string) (string, error) {
	data, err := durable.ReadRegular(path, 1<<10)
	if name := strings.TrimSpace(string(data)); err == nil && name != "" {
		return name, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("name of this appliance: %w", err)
	}
	name := uuid.NewString()[:8]
	if err := durable.WriteFile(path, []byte(name+"\n"), os.FileMode(0o600)); err != nil {
		return "", fmt.Errorf("name of this appliance: %w", err)
	}
	return name, nil
}
