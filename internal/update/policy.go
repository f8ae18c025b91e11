package update

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

const (
	policyFile = "policy.json"
	mostPolicy = 64 << 10 // bytes
	mostValue  = 64       // bytes of one value
)

// Names of what a policy may change, as /etc calls them below [update].
const (
	keyChannel   = "channel"
	keyAutomatic = "automatic"
	keyWindow    = "window"
	keyDays      = "days"
)

// LoadSettings reads what /etc says, and the policy that was set by the page
// where /etc says nothing. Nothing that the server can write is read. A policy
// that cannot be read counts as none, and is told: it must not keep anybody from
// setting another, nor a trial from its end.
func LoadSettings(from config.Sources, dir, source string) (Settings, error) {
	from.Settings = "" // the server's
	conf, report, err := config.Load(from)
	if err != nil {
		return Settings{}, err
	}
	set := Settings{Update: conf.Update, Source: source}
	for _, key := range []string{keyChannel, keyAutomatic, keyWindow, keyDays} {
		if report.Locked("update." + key) {
			set.Locked = append(set.Locked, key)
		}
	}
	saved, err := readPolicy(dir)
	set.Trouble = deployment.ProblemOf(err, time.Time{})
	set.apply(saved)
	return set, nil
}

// apply sets what a policy says and nobody has locked.
func (s *Settings) apply(p deployment.PolicyChange) {
	free := func(key string) bool { return !slices.Contains(s.Locked, key) }
	if p.Channel != nil && free(keyChannel) {
		s.Channel = *p.Channel
	}
	if p.Automatic != nil && free(keyAutomatic) {
		s.Automatic = *p.Automatic
	}
	if p.Window != nil && free(keyWindow) {
		s.Window = *p.Window
	}
	if p.Days != nil && free(keyDays) {
		s.Days = p.Days
	}
}

// readPolicy gives the policy that was set, with the values as they are used.
func readPolicy(dir string) (p deployment.PolicyChange, err error) {
	data, err := durable.ReadRegular(filepath.Join(dir, policyFile), mostPolicy)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err == nil {
		p, err = checkPolicy(p)
	}
	if err != nil {
		return deployment.PolicyChange{}, fault.New(fault.Internal, "bad_policy", "the saved policy %s cannot be read: what was set there does not count", filepath.Join(dir, policyFile)).
			Because(err).Try("set it anew, on the page or by `whisper-appliance update policy set`")
	}
	return p, nil
}

// checkPolicy holds values against the rules of the settings of the same names,
// and gives them as the settings would have them. None of them is long: what was
// checked fits into its file.
func checkPolicy(p deployment.PolicyChange) (deployment.PolicyChange, error) {
	var flags []config.Flag
	for key, v := range map[string]*string{keyChannel: p.Channel, keyAutomatic: p.Automatic, keyWindow: p.Window} {
		if v == nil {
			continue
		}
		if len(*v) > mostValue {
			return p, fault.New(fault.BadInput, "bad_value", "%s has %d bytes; %d are the most", key, len(*v), mostValue).On("update." + key).
				Try("`whisper-appliance config reference` says what it may be")
		}
		flags = append(flags, config.Flag{Key: "update." + key, Text: *v})
	}
	if err := checkDays(p.Days); err != nil {
		return p, err
	}
	conf, _, err := config.Load(config.Sources{Flags: flags})
	var problems config.Problems
	if errors.As(err, &problems) && len(problems) > 0 {
		first := problems[0] // over the bus go a fault's own words, and not those of its cause
		return p, fault.New(first.Kind, first.Code, "%s", first.Message).On(first.Field).Try("%s", fault.Hint(err))
	}
	if err != nil {
		return p, err
	}
	for value, parsed := range map[**string]string{&p.Channel: conf.Update.Channel, &p.Automatic: conf.Update.Automatic, &p.Window: conf.Update.Window} {
		if *value != nil {
			*value = &parsed
		}
	}
	return p, nil
}

func days() []string { return []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"} }

// checkDays looks at each day by itself: what is no day is one on which nothing
// would ever be installed.
func checkDays(given []string) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.BadInput, "bad_value", "days "+format, args...).On("update."+keyDays).
			Try("give some of %s, each once; none is every day", strings.Join(days(), ", "))
	}
	if len(given) > len(days()) {
		return bad("has %d entries; a week has %d days", len(given), len(days()))
	}
	for i, day := range given {
		if !slices.Contains(days(), day) {
			return bad("has %q, which is no day of the week", fault.Short(day))
		}
		if slices.Contains(given[:i], day) {
			return bad("has %s twice", day)
		}
	}
	return nil
}

// merged is what p says with what change changes.
func merged(p, change deployment.PolicyChange) deployment.PolicyChange {
	if change.Channel != nil {
		p.Channel = change.Channel
	}
	if change.Automatic != nil {
		p.Automatic = change.Automatic
	}
	if change.Window != nil {
		p.Window = change.Window
	}
	if change.Days != nil {
		p.Days = change.Days
	}
	return p
}

// SetPolicy changes what the updater does by itself. What /etc fixes cannot be
// changed here.
func (u *Updater) SetPolicy(door deployment.Door, change deployment.PolicyChange) error {
	change, err := checkPolicy(change)
	if err != nil {
		return err
	}
	set, err := u.Settings()
	if err != nil {
		return err
	}
	for key, given := range map[string]bool{keyChannel: change.Channel != nil, keyAutomatic: change.Automatic != nil, keyWindow: change.Window != nil, keyDays: change.Days != nil} {
		if given && slices.Contains(set.Locked, key) {
			return fault.New(fault.Conflict, "locked", "%s is fixed by [update] %s in the administrator's settings", key, key).On(key).
				Try("change it there; `whisper-appliance config` shows where")
		}
	}
	return u.change("a change of the policy", func(*state) error {
		saved, err := readPolicy(u.Dir)
		if err != nil {
			u.Log.Warn("what was set before is lost", "error", err)
		}
		data, err := json.MarshalIndent(merged(saved, change), "", " ")
		if err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(u.Dir, policyFile), append(data, '\n'), 0o644); err != nil {
			return cannotWrite(u.Dir, err)
		}
		u.Log.Info("policy changed", "door", door, "policy", strings.Join(strings.Fields(string(data)), " "))
		return nil
	})
}

// inWindow tells whether releases may be installed by themselves now, by the
// machine's clock.
func (s Settings) inWindow(now time.Time) bool {
	from, to, ok := strings.Cut(s.Window, "-")
	if !ok {
		return s.onDay(now)
	}
	begin, end, clock := minutes(from), minutes(to), now.Hour()*60+now.Minute()
	switch {
	case begin < end:
		return begin <= clock && clock < end && s.onDay(now)
	case clock >= begin:
		return s.onDay(now)
	case clock < end: // it began yesterday
		return s.onDay(now.AddDate(0, 0, -1))
	}
	return false
}

func (s Settings) onDay(t time.Time) bool {
	return len(s.Days) == 0 || slices.Contains(s.Days, strings.ToLower(t.Weekday().String()[:3]))
}

// minutes since midnight of a checked HH:MM.
func minutes(clock string) int {
	var h, m int
	fmt.Sscanf(clock, "%d:%d", &h, &m) //nolint:errcheck // checked when it was set
	return h*60 + m
}
