package systemd

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Unit is what systemd knows of one unit; see systemctl(1) for the words.
type Unit struct {
	Name       string        `json:"name"`
	Load       string        `json:"load"`   // "loaded", "not-found", "masked", "error", …
	Active     string        `json:"active"` // "active", "inactive", "failed", "activating", …
	Sub        string        `json:"sub"`    // "running", "listening", "dead", "auto-restart", …
	Result     string        `json:"result,omitempty"`
	Exit       int           `json:"exit,omitempty"`     // status or signal with which the main process last ended
	MainPID    int           `json:"main_pid,omitempty"` // 0 where no process runs
	Restarts   uint32        `json:"restarts"`           // by systemd itself, since it was last started by somebody
	Since      time.Time     `json:"since,omitzero"`     // of the last change of state
	Watchdog   time.Duration `json:"watchdog,omitempty"` // in nanoseconds; 0 where there is none
	WatchdogAt time.Time     `json:"watchdog_at,omitzero"`

	// Of the control group; nil where systemd does not know, as where the
	// kernel gives a container no such controller.
	Memory *uint64        `json:"memory_bytes,omitempty"`
	Tasks  *uint64        `json:"tasks,omitempty"`
	CPU    *time.Duration `json:"cpu,omitempty"` // in nanoseconds

	ControlGroup string   `json:"control_group,omitempty"` // below the root of the cgroup file system
	Invocation   string   `json:"invocation,omitempty"`    // 32 hex digits: _SYSTEMD_INVOCATION_ID in the journal
	Description  string   `json:"description,omitempty"`
	Fragment     string   `json:"fragment,omitempty"` // path of the unit file
	DropIns      []string `json:"drop_ins,omitempty"` // in the order in which they are read
	Run          *Run     `json:"-"`                  // nil for what is no service
}

// Run is how a service is run, drop-ins counted in; see systemd.service(5) and
// systemd.exec(5) for the words.
type Run struct {
	Type            string // "notify", "simple", …
	User            string // "" for root
	NoNewPrivileges bool
	ProtectSystem   string // "strict", "full", "yes", "no"
}

// Units asks for units by name or, where a name has a star, by pattern. They
// come in the order asked for, matches of a pattern by name. One that is not
// there is listed with Load "not-found"; a pattern may match none.
func (b *Bus) Units(ctx context.Context, names ...string) ([]Unit, error) {
	found, err := b.listUnits(ctx, names)
	if err != nil {
		return nil, err
	}
	list := make([]Unit, 0, len(found))
	for _, l := range found {
		unit, err := b.unit(ctx, l)
		if err != nil {
			return nil, refused("look at", l.Name, err)
		}
		list = append(list, unit)
	}
	return list, nil
}

// listUnits asks for all plain names at once and for each pattern, and puts
// them in the order of names.
func (b *Bus) listUnits(ctx context.Context, names []string) ([]listed, error) {
	var plain []string
	for _, name := range names {
		if !strings.ContainsAny(name, "*?[") && !slices.Contains(plain, name) {
			plain = append(plain, name)
		}
	}
	var known []listed
	if len(plain) > 0 {
		if err := b.askManager(ctx, "ListUnitsByNames", []any{plain}, &known); err != nil {
			return nil, refused("look for", strings.Join(plain, " "), err)
		}
	}
	var list []listed
	for _, name := range names {
		// systemd answers in the order of the names, but with the unit's own
		// name where one is an alias.
		if i := slices.Index(plain, name); i >= 0 && i < len(known) {
			list = append(list, known[i])
			continue
		}
		var matches []listed
		if err := b.askManager(ctx, "ListUnitsByPatterns", []any{[]string{}, []string{name}}, &matches); err != nil {
			return nil, refused("look for", name, err)
		}
		slices.SortFunc(matches, func(x, y listed) int { return cmp.Compare(x.Name, y.Name) })
		list = append(list, matches...)
	}
	return list, nil
}

// Unit asks for one unit by name. One that is not there has Load "not-found".
func (b *Bus) Unit(ctx context.Context, name string) (Unit, error) {
	list, err := b.Units(ctx, name)
	if err != nil || len(list) != 1 {
		return Unit{}, cmp.Or(err, fmt.Errorf("systemd lists %d units called %s", len(list), name))
	}
	return list[0], nil
}

// listed is a unit as the manager's lists have it.
type listed struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	JobID                                           uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

func (b *Bus) unit(ctx context.Context, l listed) (Unit, error) {
	u := Unit{Name: l.Name, Load: l.Load, Active: l.Active, Sub: l.Sub, Description: l.Description}
	if l.Load == "not-found" {
		return u, nil
	}
	all, err := b.properties(ctx, l.Path)
	if err != nil {
		return u, err
	}
	u.fill(all, clockOffset())
	return u, nil
}

// fill reads a unit's properties. boot is the wall time at which the monotonic
// clock stood at zero.
func (u *Unit) fill(all map[string]dbus.Variant, boot time.Time) {
	// The lists may be older than the properties; the states go together.
	u.Load = cmp.Or(value[string](all, "LoadState"), u.Load)
	u.Active = cmp.Or(value[string](all, "ActiveState"), u.Active)
	u.Sub = cmp.Or(value[string](all, "SubState"), u.Sub)
	u.Exit = int(value[int32](all, "ExecMainStatus"))
	u.Result = value[string](all, "Result")
	u.MainPID = int(value[uint32](all, "MainPID"))
	u.Restarts = value[uint32](all, "NRestarts")
	if usec := value[uint64](all, "StateChangeTimestamp"); usec > 0 {
		u.Since = time.UnixMicro(int64(usec))
	}
	if usec := value[uint64](all, "WatchdogUSec"); usec != math.MaxUint64 {
		u.Watchdog = time.Duration(usec) * time.Microsecond
	}
	if usec := value[uint64](all, "WatchdogTimestampMonotonic"); usec > 0 {
		u.WatchdogAt = boot.Add(time.Duration(usec) * time.Microsecond)
	}
	u.Memory, u.Tasks = counter(all, "MemoryCurrent"), counter(all, "TasksCurrent")
	if nsec := counter(all, "CPUUsageNSec"); nsec != nil {
		cpu := time.Duration(*nsec)
		u.CPU = &cpu
	}
	u.ControlGroup = value[string](all, "ControlGroup")
	u.Invocation = invocation(value[[]byte](all, "InvocationID"))
	u.Description = cmp.Or(value[string](all, "Description"), u.Description)
	u.Fragment = value[string](all, "FragmentPath")
	u.DropIns = value[[]string](all, "DropInPaths")
	if kind := value[string](all, "Type"); kind != "" {
		u.Run = &Run{
			Type: kind, User: value[string](all, "User"),
			NoNewPrivileges: value[bool](all, "NoNewPrivileges"), ProtectSystem: value[string](all, "ProtectSystem"),
		}
	}
}

// value is a property, or its zero where there is none of that type.
func value[T any](all map[string]dbus.Variant, name string) T {
	v, _ := all[name].Value().(T)
	return v
}

// counter is a property that is [not set] where all its bits are.
func counter(all map[string]dbus.Variant, name string) *uint64 {
	n, ok := all[name].Value().(uint64)
	if !ok || n == math.MaxUint64 {
		return nil
	}
	return &n
}

// invocation is the id as the journal writes it, "" for a unit that never ran.
func invocation(id []byte) string {
	if len(id) != 16 || !slices.ContainsFunc(id, func(c byte) bool { return c != 0 }) {
		return ""
	}
	return hex.EncodeToString(id)
}

// clockOffset is the wall time at which the monotonic clock stood at zero, by
// today's wall clock: a clock that was set since then does not move stamps.
func clockOffset() time.Time {
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(mono.Nano())).Round(0)
}

// Manager is systemd itself.
type Manager struct {
	Version        string    `json:"version"`                  // "252.30-1~deb12u2"
	Virtualization string    `json:"virtualization,omitempty"` // "lxc", "kvm", …; "" on bare metal
	State          string    `json:"state"`                    // "running", "degraded", "starting", …
	Started        time.Time `json:"started,omitzero"`         // when user space was started
	Finished       time.Time `json:"finished,omitzero"`        // when starting up was done
	FailedUnits    uint32    `json:"failed_units"`
}

// Manager asks how systemd is.
func (b *Bus) Manager(ctx context.Context) (Manager, error) {
	all, err := b.properties(ctx, managerPath)
	if err != nil {
		return Manager{}, refused("look at", "the service manager", err)
	}
	m := Manager{
		Version:        value[string](all, "Version"),
		Virtualization: value[string](all, "Virtualization"),
		State:          value[string](all, "SystemState"),
		FailedUnits:    value[uint32](all, "NFailedUnits"),
	}
	for name, to := range map[string]*time.Time{"UserspaceTimestamp": &m.Started, "FinishTimestamp": &m.Finished} {
		if usec := value[uint64](all, name); usec > 0 {
			*to = time.UnixMicro(int64(usec))
		}
	}
	return m, nil
}

// String is the unit in a line: "whisper-appliance.service active (running)".
func (u Unit) String() string {
	if u.Load != "loaded" && u.Load != "" {
		return fmt.Sprintf("%s %s", u.Name, u.Load)
	}
	return fmt.Sprintf("%s %s (%s)", u.Name, u.Active, u.Sub)
}
