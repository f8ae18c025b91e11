package paths

import (
	"io/fs"
	"path/filepath"
)

// rule is what should be at a path.
type rule struct {
	kind    string // of Finding
	shipped bool   // the package brings it, or what it installs does
	made    bool   // the server makes it
	write   bool   // the server writes there
	read    bool   // the server must be able to read it
	grows   bool   // it needs free space
	closed  fs.FileMode
	missing string // what to do where it should be there and is not; "" where it may be missing
}

// rehearsalState is the last part of the state directory that the unit of a
// rehearsal names.
const rehearsalState = product + "-preflight"

// ruleOf is the rule for a name of List as this server goes by it. A rehearsal
// has a link to the models, and may read them alone.
func (p Paths) ruleOf(name string) rule {
	r := ruleOf(name)
	if name == "models" && filepath.Base(p.State) == rehearsalState {
		r.made, r.write, r.grows, r.read = false, false, false, true
	}
	return r
}

// ruleOf is the rule for a name of List. Units make the run directory of an
// installed appliance, and systemd its sockets.
func ruleOf(name string) rule {
	switch name {
	case "slot":
		return rule{kind: "directory", shipped: true, read: true}
	case "slots":
		return rule{kind: "directory", shipped: true, grows: true}
	case "golden", "units":
		return rule{kind: "directory", shipped: true}
	case "current", "stable":
		return rule{kind: "link", shipped: true}
	case "updater", "updater run", "fetched", "golden before", "drop-ins", "config.d", "configuration":
		return rule{kind: "directory"}
	case "updater program", "fetcher program", "trust root":
		return rule{kind: "file", shipped: true}
	case "source":
		return rule{kind: "file"}
	case "config":
		return rule{kind: "file", read: true}
	case "keys":
		return rule{kind: "file", read: true, closed: 0o007}
	case "database":
		return rule{kind: "file", write: true, closed: 0o077}
	case "settings":
		return rule{kind: "file", read: true, write: true}
	case "state", "models":
		return rule{kind: "directory", made: true, write: true, grows: true}
	case "spool", "jobs", "uploads":
		return rule{kind: "directory", made: true, write: true, grows: true, closed: 0o077}
	case "tls":
		return rule{kind: "directory", made: true, write: true, closed: 0o077}
	case "cache":
		return rule{kind: "directory", write: true}
	case "pending":
		return rule{kind: "directory", made: true, write: true}
	case "run":
		return rule{kind: "directory", made: true, write: true, shipped: true}
	case "api socket", "engine socket", "decode socket":
		return rule{kind: "socket"}
	case "unit ffmpeg", "ffmpeg":
		return rule{kind: "file", read: true, missing: "install ffmpeg: without it only WAV files of 16 kHz can be transcribed"}
	}
	return rule{kind: "directory"}
}
