//go:build faults

package faultpoint

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

const variable = "WHISPER_APPLIANCE_FAULTS"

// Here lets the fault happen that the file asks for at the place name, if any.
// It returns at once, later (slow), or never (hang, crash).
func Here(name string) {
	path := os.Getenv(variable)
	if path == "" {
		return
	}
	kind, err := take(path, name)
	if err != nil {
		// A fault that cannot be taken out would come again for ever.
		fmt.Fprintf(os.Stderr, "fault point %s: %v\n", name, err)
		return
	}
	happen(kind)
}

func happen(kind []string) {
	switch {
	case len(kind) == 0:
	case kind[0] == "hang":
		for {
			time.Sleep(time.Hour)
		}
	case kind[0] == "crash":
		syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // of ourselves
		select {}
	case kind[0] == "slow" && len(kind) == 2:
		if d, err := time.ParseDuration(kind[1]); err == nil {
			time.Sleep(d)
		}
	}
}

// take takes the first line for name out of the file and gives what is left of
// it; nil where there is none. Processes take turns.
func take(path, name string) (kind []string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rest []string
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); kind == nil && len(words) > 1 && words[0] == name {
			kind = words[1:]
			continue
		}
		rest = append(rest, line)
	}
	if kind == nil {
		return nil, nil
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	_, err = f.WriteAt([]byte(strings.Join(rest, "")), 0)
	return kind, err
}
