package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/systemd"
)

// The names of our drop-ins. An administrator's own, such as override.conf of
// `systemctl edit`, are read after them and win.
const (
	sandboxDropIn = "50-doctor.conf"
	modelsDropIn  = "51-doctor-models.conf" // after the other, which may empty a list
)

// mark is the first line of what is ours.
const mark = "# Written by `whisper-appliance doctor --fix`, which takes it away when it is no longer needed."

// dropIn is one that should be there: nothing is in it where it should not.
type dropIn struct {
	unit, file string
	why        []string // a comment each
	settings   []systemd.Setting
}

func (d *Doctor) dropInPath(in dropIn) string {
	return filepath.Join(d.Paths.DropIns, in.unit+".d", in.file)
}

// isOurs tells a drop-in that doctor wrote.
func isOurs(path string) bool {
	data, err := readFile(path)
	return err == nil && strings.HasPrefix(string(data), mark)
}

// text is the file. The day it was found on stands in a comment.
func (in dropIn) text(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n# Changes of your own belong into another file: systemctl edit %s\n", mark, in.unit)
	for _, why := range in.why {
		fmt.Fprintf(&b, "# %s: %s\n", now.UTC().Format(time.DateOnly), why)
	}
	b.WriteString("[Service]\n")
	for _, s := range in.settings {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}

// inPlace tells whether the file says already what it should; its comments may
// be older.
func (d *Doctor) inPlace(in dropIn) bool {
	data, err := readFile(d.dropInPath(in))
	if len(in.settings) == 0 {
		return errors.Is(err, fs.ErrNotExist) || err == nil && !strings.HasPrefix(string(data), mark)
	}
	if err != nil || !strings.HasPrefix(string(data), mark) {
		return false
	}
	var have []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != '[' {
			have = append(have, line)
		}
	}
	var want []string
	for _, s := range in.settings {
		want = append(want, s.String())
	}
	return strings.Join(have, "\n") == strings.Join(want, "\n")
}

// put writes the drop-in, or takes it away where nothing should be in it.
func (d *Doctor) put(in dropIn) error {
	path := d.dropInPath(in)
	if data, err := readFile(path); err == nil && !strings.HasPrefix(string(data), mark) {
		return fmt.Errorf("%s is not doctor's: move it to another name", path)
	}
	if len(in.settings) == 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
		os.Remove(filepath.Dir(path)) //nolint:errcheck // the administrator's files may be in it
		return nil
	}
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.WriteFile(path, []byte(in.text(d.Now())), 0o644)
}
