package doctor

import (
	"path/filepath"
	"slices"
	"strings"

	"whisper-appliance/internal/systemd"
)

// service is one of the package's services: what its unit file and the
// package's drop-ins say in [Service].
type service struct {
	name     string // "whisper-appliance-engine@.service"
	settings []systemd.Setting
}

// value is what stands for a directive, "" where nothing does.
func (s service) value(directive string) string {
	for _, set := range s.settings {
		if set.Name == directive {
			return set.Value
		}
	}
	return ""
}

// uses tells whether the service has a directive switched on.
func (s service) uses(directive string) bool {
	v := s.value(directive)
	return v != "" && v != "no"
}

// services reads the package's services from its own files, which say what is
// wanted; what systemd was told may be relaxed already.
func (d *Doctor) services() ([]service, error) {
	files, err := filepath.Glob(filepath.Join(d.Paths.Shipped, "whisper-appliance*.service"))
	if err != nil {
		return nil, err
	}
	var list []service
	for _, file := range files {
		dropIns, err := filepath.Glob(filepath.Join(file+".d", "*.conf"))
		if err != nil {
			return nil, err
		}
		s := service{name: filepath.Base(file)}
		for _, part := range append([]string{file}, dropIns...) {
			data, err := readFile(part)
			if err != nil {
				return nil, err
			}
			s.settings = readService(s.settings, string(data))
		}
		list = append(list, s)
	}
	return list, nil
}

// lists are directives whose lines add up; of others the last counts.
func lists() []string {
	return []string{"TemporaryFileSystem", "BindReadOnlyPaths", "BindPaths", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths"}
}

// readService adds the [Service] section of a unit file to settings.
func readService(settings []systemd.Setting, text string) []systemd.Setting {
	section := ""
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		name, value, isSetting := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			section = line
		case isSetting && section == "[Service]":
			settings = set(settings, strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return settings
}

func set(settings []systemd.Setting, name, value string) []systemd.Setting {
	i := slices.IndexFunc(settings, func(s systemd.Setting) bool { return s.Name == name })
	switch {
	case i < 0:
		return append(settings, systemd.Setting{Name: name, Value: value})
	case value != "" && slices.Contains(lists(), name):
		settings[i].Value += " " + value
	default:
		settings[i].Value = value
	}
	return settings
}
