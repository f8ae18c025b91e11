package update

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
)

// Names of what a policy may change, as /etc calls them below [update].
const (
	keyChannel   = "channel"
	keyAutomatic = "automatic"
	keyWindow    = "window"
	keyDays      = "days"
)

// LoadSettings reads what /etc says, and the policy that was set by the page
// where /etc says nothing. Nothing that the server can write is read.
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
	if err != nil {
		return Settings{}, err
	}
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

func readPolicy(dir string) (p deployment.PolicyChange, err error) {
	data, err := durable.ReadRegular(filepath.Join(dir, policyFile), mostPolicy)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		return p, fault.New(fault.Internal, "bad_policy", "the saved policy %s cannot be read", filepath.Join(dir, policyFile)).Because(err).
			Try("remove it: the page and `whisper-appliance update policy set` write it anew")
	}
	return p, checkPolicy(p)
}

// checkPolicy holds values against the rules of the settings of the same names.
func checkPolicy(p deployment.PolicyChange) error {
	var flags []config.Flag
	give := func(key, value string) {
		flags = append(flags, config.Flag{Key: "update." + key, Text: value})
	}
	for key, v := range map[string]*string{keyChannel: p.Channel, keyAutomatic: p.Automatic, keyWindow: p.Window} {
		if v != nil {
			give(key, *v)
		}
	}
	if len(p.Days) > 0 {
		give(keyDays, strings.Join(p.Days, ","))
	}
	_, _, err := config.Load(config.Sources{Flags: flags})
	return err
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
func (u *Updater) SetPolicy(change deployment.PolicyChange) error {
	if err := checkPolicy(change); err != nil {
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
			saved = deployment.PolicyChange{}
		}
		data, err := json.MarshalIndent(merged(saved, change), "", " ")
		if err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(u.Dir, policyFile), append(data, '\n'), os.FileMode(0o644)); err != nil {
			return cannotWrite(u.Dir, err)
		}
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
