package systemd

import "slices"

// The units that stand alone. Those of a slot have a function each.
const (
	Target              = "whisper-appliance.target"
	Socket              = "whisper-appliance.socket"
	Service             = "whisper-appliance.service"
	Path                = "whisper-appliance.path"
	Slice               = "whisperappliance.slice"
	DecodeSocket        = "whisper-appliance-decode.socket"
	JournalSocket       = "whisper-appliance-journal.socket"
	HousekeepingTimer   = "whisper-appliance-housekeeping.timer"
	HousekeepingService = "whisper-appliance-housekeeping.service"
	Updater             = "whisper-appliance-updater.service"
	Fetch               = "whisper-appliance-fetch.service"
	Recover             = "whisper-appliance-recover.service"
	UpdateTimer         = "whisper-appliance-update.timer"
	UpdateService       = "whisper-appliance-update.service"
	ScrubTimer          = "whisper-appliance-scrub.timer"
	ScrubService        = "whisper-appliance-scrub.service"
)

// Patterns of units that come and go with the work.
const (
	DecodeInstances  = "whisper-appliance-decode@*.service"
	JournalInstances = "whisper-appliance-journal@*.service"
)

// Next is the server of slot "a" or "b" while a switch lasts.
func Next(slot string) string { return "whisper-appliance-next@" + slot + ".service" }

// NextSocket is the door at which only the candidate of a slot listens.
func NextSocket(slot string) string { return "whisper-appliance-next@" + slot + ".socket" }

// Preflight is the server of slot "a" or "b" while it is tried in the dark.
func Preflight(slot string) string { return "whisper-appliance-preflight@" + slot + ".service" }

// PreflightSocket is the door at which that one listens, and no other.
func PreflightSocket(slot string) string { return "whisper-appliance-preflight@" + slot + ".socket" }

// EngineSocket is the socket that starts the engine of slot "a", "b" or
// "golden".
func EngineSocket(slot string) string { return "whisper-appliance-engine@" + slot + ".socket" }

// EngineService is the engine of slot "a", "b" or "golden".
func EngineService(slot string) string { return "whisper-appliance-engine@" + slot + ".service" }

// Ours lists the appliance's units, patterns among them, with those of the
// slots given; of all slots where none is.
func Ours(slots ...string) []string {
	if len(slots) == 0 {
		slots = []string{"a", "b", "golden"}
	}
	names := []string{Target, Slice, Socket, Service, Path}
	for _, slot := range slots {
		if slot != "golden" {
			names = append(names, NextSocket(slot), Next(slot), PreflightSocket(slot), Preflight(slot))
		}
	}
	for _, slot := range slots {
		names = append(names, EngineSocket(slot), EngineService(slot))
	}
	return slices.Concat(names, []string{DecodeSocket, DecodeInstances, JournalSocket, JournalInstances,
		HousekeepingTimer, HousekeepingService, Recover, Updater, Fetch, UpdateTimer, UpdateService, ScrubTimer, ScrubService})
}
