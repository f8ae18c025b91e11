package supervise

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAsTheUnitsSay: what this package does stands in the units, too. Where a
// line there is changed this package has to follow.
func TestAsTheUnitsSay(t *testing.T) {
	for file, want := range map[string][]string{
		Service: {"Type=notify", "Restart=always", "RestartPreventExitStatus=64 78", "NonBlocking=yes", "Requires=" + Socket,
			"ExecStartPre=+/usr/lib/whisper-appliance/gate start %N", "ExecStartPost=+/usr/lib/whisper-appliance/gate ready %N", "ExecStopPost=+/usr/lib/whisper-appliance/gate ended %N"},
		"whisper-appliance-next@.service":      {"Type=notify", "Restart=no", "NonBlocking=yes", "Sockets=whisper-appliance.socket whisper-appliance-next@%i.socket"},
		"whisper-appliance-preflight@.service": {"Type=notify", "Restart=no", "PropagatesStopTo=whisper-appliance-preflight@%i.socket"},
		"whisper-appliance-next@.socket":       {"RemoveOnStop=yes", "ListenStream=/run/whisper-appliance/next-%i.sock"},
		"whisper-appliance-preflight@.socket":  {"RemoveOnStop=yes", "ListenStream=/run/whisper-appliance/preflight-%i.sock"},
		Socket:                                 {"ListenStream=5001", "ListenStream=/run/whisper-appliance/api.sock"},
	} {
		data, err := os.ReadFile(filepath.Join("..", "..", "..", "units", file))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(data), "\n")
		for _, line := range want {
			if !slices.Contains(lines, line) {
				t.Errorf("%s has no line %q", file, line)
			}
		}
	}
	for unit, want := range map[string]string{"whisper-appliance-next@a.socket": "next-a.sock", "whisper-appliance-preflight@b.socket": "preflight-b.sock"} {
		if got := fileOf(unit); got != want {
			t.Errorf("%s listens at %s, want %s", unit, got, want)
		}
	}
}
