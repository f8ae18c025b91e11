package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// variablePrefix begins every variable of the appliance.
const variablePrefix = "WHISPER_APPLIANCE_"

// assignment is a value in words, from a variable or a flag.
type assignment struct {
	origin string // "environment HTTPS_PORT", "flag --listen"
	key    string
	text   string
}

// variables sorts the environment into settings, oldest names first so that
// ours win, and notes on what has no effect. unknown lists variables with our
// prefix that are no setting and not reserved.
func variables(environ []string, reserved []string) (list []assignment, notes, unknown []string) {
	env := map[string]string{}
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	for _, old := range oldVariables() {
		text, set := env[old.name]
		if !set || text == "" || old.silent {
			continue
		}
		if old.note != "" {
			notes = append(notes, fmt.Sprintf("%s has no effect: %s", old.name, old.note))
			continue
		}
		if text, ok := old.translate(text); ok {
			list = append(list, assignment{"environment " + old.name, old.key, text})
		}
	}
	ours, unknown := ownVariables(env, reserved)
	return append(list, ours...), notes, unknown
}

// ownVariables finds the variables with our prefix.
func ownVariables(env map[string]string, reserved []string) (list []assignment, unknown []string) {
	byVariable := map[string]field{}
	for _, f := range fields(&Config{}) {
		byVariable[f.variable()] = f
	}
	for name, text := range env {
		f, known := byVariable[name]
		switch {
		case known:
			list = append(list, assignment{"environment " + name, f.key(), text})
		case strings.HasPrefix(name, variablePrefix) && !slices.Contains(reserved, name):
			unknown = append(unknown, name)
		}
	}
	slices.SortFunc(list, func(a, b assignment) int { return strings.Compare(a.key, b.key) })
	slices.Sort(unknown)
	return list, unknown
}

// oldVariable is a variable that the appliance's predecessor documented.
type oldVariable struct {
	name   string
	key    string                      // the setting it stands for
	words  func(string) (string, bool) // its value in our words; nil = as it is; false = leave the setting alone
	note   string                      // why it has no effect; "" where it has one
	silent bool                        // nothing to do with us
}

func (o oldVariable) translate(text string) (string, bool) {
	if o.words == nil {
		return text, true
	}
	return o.words(text)
}

// oldVariables lists them; of two for one setting the later wins.
func oldVariables() []oldVariable {
	return []oldVariable{
		{name: "WHISPER_MODEL", key: "models.default"},
		{name: "WHISPER_CACHE_DIR", key: "models.directory"},
		{name: "WHISPER_DEVICE", key: "engine.device"},
		{name: "PRELOAD_MODEL", key: "models.preload"},
		{name: "MAX_UPLOAD_SIZE", key: "server.max_upload"},
		{name: "HTTPS_PORT", key: "server.listen", words: portWords},
		{name: "HTTP_REDIRECT", key: "server.http_redirect"},
		{name: "SSL_CERT_PATH", key: "tls.certificate"},
		{name: "SSL_KEY_PATH", key: "tls.key"},
		{name: "DEBUG_MODE", key: "log.level", words: debugWords},
		{name: "LOG_LEVEL", key: "log.level", words: levelWords},
		{name: "WORKER_PROCESSES", note: "one process serves everybody"},
		{name: "MODEL_CACHE_SIZE", note: "one model is held in memory at a time"},
		{name: "AUDIO_CHUNK_SIZE", note: "recordings are cut at their quietest points"},
		{name: "SSL_VERIFY", note: "certificates of others are always checked"},
		{name: "FLASK_ENV", note: "there is no Flask here"},
		{name: "FLASK_DEBUG", note: `there is no Flask here; [log] level = "debug" logs more`},
		{name: "PYTHONPATH", silent: true},
	}
}

func portWords(port string) (string, bool) { return ":" + port, true }

// debugWords makes DEBUG_MODE=true a log level. What is not a boolean goes on
// unchanged and is refused as a level.
func debugWords(text string) (string, bool) {
	on, err := strconv.ParseBool(text)
	if err != nil {
		return text, true
	}
	return "debug", on
}

// levelWords translates the names of Python's levels.
func levelWords(text string) (string, bool) {
	level := strings.ToLower(text)
	switch level {
	case "trace":
		level = "debug"
	case "warning":
		level = "warn"
	case "critical", "fatal":
		level = "error"
	}
	return level, true
}
