// Package doctor judges an installation: what is wrong with it, how bad that
// is, and what to do about it. What a machine allows of the sandboxes it finds
// out by trying, and where the machine forbids a directive it writes a drop-in
// that relaxes this one and no other.
//
// It trusts the package's own unit files and what systemd answers; everything
// else it looks at. Examine writes nothing. Mend writes and removes its own
// drop-ins, which begin with its mark, and never touches another file. Where
// there is no systemd, no server, or no right to look, it says what it could
// not look at.
package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
)

// Verdict is what a finding comes to.
type Verdict string

// The verdicts. Only a Problem makes an installation bad; Advice is what an
// administrator should know, or what could not be looked at.
const (
	OK      Verdict = "ok"
	Advice  Verdict = "advice"
	Problem Verdict = "problem"
)

// Finding is one thing that was found.
type Finding struct {
	Check   string  `json:"check"` // "units", "sandbox", "port", …
	Verdict Verdict `json:"verdict"`
	Says    string  `json:"says"`
	Do      string  `json:"do,omitempty"` // what to do about it
	Fixable bool    `json:"fixable"`      // `doctor --fix` does something about it
	Fixed   string  `json:"fixed,omitempty"`
}

// Units is what systemd is asked, as *systemd.Bus answers it.
type Units interface {
	// Units looks at units, in the order asked for.
	Units(ctx context.Context, names ...string) ([]systemd.Unit, error)
	// Effective gives a unit's sandbox settings, drop-ins counted in.
	Effective(ctx context.Context, unit string) (map[string]string, error)
	// Listening gives the addresses of a socket unit.
	Listening(ctx context.Context, socketUnit string) ([]string, error)
	// FileState is "enabled", "disabled", "masked", "static", ….
	FileState(ctx context.Context, unit string) (string, error)
}

// Mender is what of systemd Mend needs; it takes root.
type Mender interface {
	// Probe tries settings; see systemd.Bus.
	Probe(ctx context.Context, settings []systemd.Setting, command ...string) (applied bool, result string, err error)
	// DaemonReload makes systemd read its unit files again.
	DaemonReload(ctx context.Context) error
}

// Doctor is the installation and the means to look at it. Nil functions and
// interfaces mean that this cannot be looked at.
type Doctor struct {
	Paths paths.Paths
	User  paths.User // the server's; whose rights count
	Root  bool       // this process may look at everything

	Units  Units // nil: systemd does not answer, or is not there
	Mender Mender
	Bus    error // why Units is nil

	Settings *config.Config // nil: they cannot be loaded
	Report   *config.Report
	Wrong    error // why Settings is nil
	Models   *model.Store

	Now     func() time.Time
	Built   time.Time                                                         // when this program was made; zero = unknown
	Synced  func() (synced bool, err error)                                   // what the kernel says of the clock
	Lookup  func(ctx context.Context, host string) ([]netip.Addr, error)      // asks the resolver
	FFmpeg  func(ctx context.Context, args ...string) (out string, err error) // runs the one in use
	Decoder func(ctx context.Context) (level string, err error)               // has a small file decoded
	Health  func(ctx context.Context) (Health, error)                         // asks the server
	Free    func(dir string) (bytes int64, err error)
	Devices string // directory of device files
	Host    string // this machine's name
}

// Health is what the server says of itself, as GET /health has it.
type Health struct {
	Status  component.Health `json:"status"`
	Reasons []string         `json:"reasons"`
	Version string           `json:"version"`
}

// limit bounds one check. One that heeds it still has a moment to say what it
// has found.
const (
	limit  = 20 * time.Second
	moment = time.Second
)

// check is one thing to look at.
type check struct {
	name string
	look func(ctx context.Context) []Finding
}

func (d *Doctor) checks() []check {
	return []check{
		{"config", d.config},
		{"paths", d.paths},
		{"units", d.units},
		{"sandbox", d.sandboxes},
		{"decoder", d.decoder},
		{"port", d.port},
		{"time", d.time},
		{"memory", d.memory},
		{"disk", d.disk},
		{"dns", d.dns},
		{"ffmpeg", d.ffmpeg},
		{"model", d.model},
		{"gpu", d.gpu},
		{"certificate", d.certificate},
		{"versions", d.versions},
		{"server", d.server},
	}
}

// Examine looks at everything and changes nothing. tell, where it is not nil,
// hears of each finding as it comes.
func (d *Doctor) Examine(ctx context.Context, tell func(Finding)) []Finding {
	var list []Finding
	for _, c := range d.checks() {
		list = append(list, d.look(ctx, c, tell)...)
	}
	return list
}

func (d *Doctor) look(ctx context.Context, c check, tell func(Finding)) []Finding {
	found := answered(ctx, c)
	for i := range found {
		found[i].Check = c.name
		if tell != nil {
			tell(found[i])
		}
	}
	return found
}

// answered is what a check finds within its limit. One that hangs, as on a pipe
// where a file should be or on a disk that has gone, is left to itself until
// this program ends: an installation waits for us.
func answered(ctx context.Context, c check) []Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	found := make(chan []Finding, 1)
	go func() { found <- c.look(ctx) }()
	select {
	case f := <-found:
		return f
	case <-ctx.Done():
	}
	asked := time.Since(began).Round(time.Millisecond)
	late := time.NewTimer(moment)
	defer late.Stop()
	select {
	case f := <-found:
		return f
	case <-late.C:
		return unseen("`whisper-appliance paths --check`, and `dmesg`: a disk, or what lies in place of a file, keeps it waiting", "no answer in %v", asked)
	}
}

// most is how much of a file is read: of settings, units and certificates it
// is far more than there should be.
const most = 1 << 20

// readFile reads a regular file. Some lie where others may put what they like.
func readFile(path string) ([]byte, error) { return durable.ReadRegular(path, most) }

// Worst is the gravest verdict of findings; OK of none.
func Worst(findings []Finding) Verdict {
	for _, v := range []Verdict{Problem, Advice} {
		if slices.ContainsFunc(findings, func(f Finding) bool { return f.Verdict == v }) {
			return v
		}
	}
	return OK
}

func (d *Doctor) installed() bool { return d.Paths.Kind == paths.Installed }

// The findings, one by one, as checks word them.

func well(format string, args ...any) Finding {
	return Finding{Verdict: OK, Says: fmt.Sprintf(format, args...)}
}

func advice(do, format string, args ...any) Finding {
	return Finding{Verdict: Advice, Says: fmt.Sprintf(format, args...), Do: do}
}

func problem(do, format string, args ...any) Finding {
	return Finding{Verdict: Problem, Says: fmt.Sprintf(format, args...), Do: do}
}

// unseen is what could not be looked at.
func unseen(do, format string, args ...any) []Finding {
	return []Finding{advice(do, "not looked at: "+format, args...)}
}

func one(f Finding) []Finding { return []Finding{f} }
