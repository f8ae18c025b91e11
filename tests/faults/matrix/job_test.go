//go:build e2e && faults

package matrix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/fetch"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/site"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/update"
	"whisper-appliance/tests/faults/supervise"
)

// The variables that make this program an updater: what it is to do, and where.
const (
	jobIs   = "FAULTS_MATRIX_JOB"
	placeIs = "FAULTS_MATRIX_PLACE"
)

// What an updater ends with.
const (
	exitFailed = 3
	exitBusy   = 75
)

// place is where an updater works.
type place struct {
	Home, State, Run, Package string
	Root                      string   // the root of trust
	Sources                   []string // of releases
	Buses                     []string // sockets of the supervisor, asked in order
	Boot                      string
	Clock                     string // file with what the wall clock is wrong by
	Trial, Tick               time.Duration
}

func TestMain(m *testing.M) {
	what := os.Getenv(jobIs)
	if what == "" {
		code := m.Run()
		os.RemoveAll(goodsDir()) //nolint:errcheck // there may be none
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var p place
	err := json.Unmarshal([]byte(os.Getenv(placeIs)), &p)
	if err == nil {
		err = p.work(ctx, strings.Fields(what))
	}
	os.Exit(exitOf(err))
}

func exitOf(err error) int {
	if err == nil {
		return 0
	}
	var f *fault.Error
	if errors.As(err, &f) {
		fmt.Fprintf(os.Stderr, "code %s: ", f.Code)
	}
	fmt.Fprintln(os.Stderr, err)
	if fault.KindOf(err) == fault.Busy {
		return exitBusy
	}
	return exitFailed
}

// work is one of the verbs.
func (p place) work(ctx context.Context, words []string) error {
	u, err := p.updater()
	if err != nil {
		return err
	}
	if words[0] == "daemon" {
		return p.daemon(func(words []string) error { return does(ctx, u, words) })
	}
	return does(ctx, u, words)
}

func does(ctx context.Context, u *update.Updater, words []string) (err error) {
	arg := func(n int) string {
		if len(words) > n {
			return words[n]
		}
		return ""
	}
	apply := func(w update.Want) error {
		res, err := u.Apply(ctx, w)
		fmt.Println("outcome", res.Outcome)
		if err != nil || res.Outcome != update.OnTrial {
			return err
		}
		return u.Watch(ctx)
	}
	switch words[0] {
	case "update":
		return apply(update.Want{Door: deployment.DoorCLI, Version: arg(1), Trial: true})
	case "begin": // without its trial
		_, err = u.Apply(ctx, update.Want{Door: deployment.DoorCLI, Version: arg(1), Trial: true})
		return err
	case "install":
		return apply(update.Want{Door: deployment.DoorFile, Bundle: arg(1), Trial: true})
	case "deploy":
		return apply(update.Want{Door: deployment.DoorDpkg, Tree: arg(1), Trial: arg(2) == ""})
	case "switch":
		return apply(update.Want{Door: deployment.DoorCLI, Slot: arg(1)})
	case "rollback":
		_, err = u.Rollback(ctx, deployment.DoorCLI)
		return err
	case "recover":
		_, err = u.Recover(ctx, arg(1) == "boot")
		return err
	case "watch":
		return u.Watch(ctx)
	case "settle": // what the updater's unit does when it is started
		if _, err = u.Recover(ctx, false); err != nil {
			return err
		}
		return u.Watch(ctx)
	case "scrub":
		found, err := u.Scrub(ctx, nil)
		json.NewEncoder(os.Stdout).Encode(found) //nolint:errcheck // for whoever reads along
		return err
	case "download":
		_, err = u.Download(ctx, arg(1))
		return err
	}
	return fmt.Errorf("there is no job %q", words[0])
}

// paths are those of an installed appliance, moved.
func (p place) paths() paths.Paths {
	updater := filepath.Join(p.State, "updater")
	return paths.Paths{
		Slots: filepath.Join(p.Home, "slots"), Current: filepath.Join(p.Home, "current"), Stable: filepath.Join(p.Home, "stable"),
		Golden: filepath.Join(p.Package, "golden"), GoldenOld: filepath.Join(p.Package, "golden.old"), TrustRoot: p.Root,
		Updater: updater, UpdaterRun: filepath.Join(p.Run, "u"), Fetched: filepath.Join(p.State, "fetch"),
		GateRun: filepath.Join(p.Run, "gate"),
		Run:     p.Run, APISocket: filepath.Join(p.Run, "api.sock"), Proc: "/proc",
	}
}

func (p place) slots() *slot.Slots {
	w := p.paths()
	s := slot.Of(w.Slots, w.Current, w.Stable, w.Golden)
	s.GoldenBefore = w.GoldenOld
	return s
}

// updater is the real one on the real site; but for systemd, the settings and
// the clock.
func (p place) updater() (*update.Updater, error) {
	b := &bus{place: p}
	for _, path := range p.Buses {
		c, err := supervise.Dial(path)
		if err != nil {
			return nil, err
		}
		b.clients = append(b.clients, c)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	m := site.Over(p.paths(), log, b)
	m.Watching = true
	u, err := m.Updater()
	if err != nil {
		return nil, err
	}
	u.MachineID, u.BootID, u.Version, u.Now, u.Trust.Now = "matrix", p.Boot, "1.0.0", p.now, p.now
	u.Settings = func() (update.Settings, error) {
		set := update.Settings{Update: config.Default().Update, Tick: p.Tick}
		set.Trial, set.Sources = p.Trial, p.Sources
		return set, nil
	}
	return u, nil
}

// now is the wall clock, wrong by what a file says.
func (p place) now() time.Time {
	text, err := os.ReadFile(p.Clock)
	if err != nil {
		return time.Now()
	}
	wrong, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		return time.Now()
	}
	return time.Now().Add(wrong)
}

// bus is systemd as site wants it: the private socket first, then the system
// bus. The fetcher's unit is played here.
type bus struct {
	place   place
	clients []*supervise.Client
}

func (b *bus) Close() error { return nil }

// each does something at the first socket that answers.
func (b *bus) each(units []string, do func(c *supervise.Client, unit string) error) error {
	for _, unit := range units {
		var err error
		for _, c := range b.clients {
			var f *fault.Error
			if err = do(c, unit); !errors.As(err, &f) || f.Code != "no_systemd" {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bus) Start(ctx context.Context, units ...string) error {
	if len(units) == 1 && units[0] == systemd.Fetch {
		return b.fetch(ctx)
	}
	return b.each(units, func(c *supervise.Client, unit string) error { return c.Start(ctx, unit) })
}

func (b *bus) Stop(ctx context.Context, units ...string) error {
	if len(units) == 1 && units[0] == systemd.Fetch {
		return nil // it ends with the process that plays it
	}
	return b.each(units, func(c *supervise.Client, unit string) error { return c.Stop(ctx, unit) })
}

func (b *bus) Restart(ctx context.Context, units ...string) error {
	return b.each(units, func(c *supervise.Client, unit string) error { return c.Restart(ctx, unit) })
}

func (b *bus) ResetFailed(ctx context.Context, units ...string) error {
	return b.each(units, func(c *supervise.Client, unit string) error { return c.ResetFailed(ctx, unit) })
}

func (b *bus) Units(ctx context.Context, names ...string) (list []systemd.Unit, err error) {
	err = b.each(names, func(c *supervise.Client, name string) error {
		u, err := c.Unit(ctx, name)
		list = append(list, systemd.Unit{Name: name, Load: "loaded", Active: u.Active, Sub: u.Sub, Result: u.Result, Exit: u.Exit,
			MainPID: u.PID, Restarts: u.Restarts, Invocation: u.Invocation})
		return err
	})
	return list, err
}

// fetch is the fetcher's program.
func (b *bus) fetch(ctx context.Context) error {
	root, err := os.ReadFile(b.place.Root)
	if err != nil {
		return err
	}
	client := fetch.NewClient()
	defer client.CloseIdleConnections() // as the end of its process does
	f := &fetch.Fetcher{Client: client, Dir: b.place.paths().Fetched, Root: root, Now: b.place.now, Pause: 50 * time.Millisecond, Stall: 2 * time.Second}
	_, err = f.RunFile(ctx, b.place.paths().Order())
	return err
}
