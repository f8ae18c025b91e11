package config

import "time"

// Profile is what an appliance is for. It decides the defaults of settings
// that nobody has set.
type Profile struct {
	Name     string
	LogLevel string // default of log.level

	// What updates will take from it: the channel that releases come from, and
	// how long a new version must be well before it is kept.
	UpdateChannel string // "stable" or "beta"
	Trial         time.Duration
}

// Profiles lists them, from the workshop to the ward.
func Profiles() []Profile {
	return []Profile{
		{Name: "development", LogLevel: "debug", UpdateChannel: "beta", Trial: time.Minute},
		{Name: "testing", LogLevel: "debug", UpdateChannel: "beta", Trial: 2 * time.Minute},
		{Name: "staging", LogLevel: "info", UpdateChannel: "stable", Trial: 10 * time.Minute},
		{Name: "production", LogLevel: "info", UpdateChannel: "stable", Trial: 10 * time.Minute},
	}
}

// profileKey is the setting that names the profile.
const profileKey = "environment.profile"

// checkoutProfile is the profile of a checkout where nobody has named one.
const checkoutProfile = "development"

// Profile is the profile in force.
func (c *Config) Profile() Profile {
	for _, p := range Profiles() {
		if p.Name == c.Environment.Profile {
			return p
		}
	}
	return Profile{Name: c.Environment.Profile}
}

// applyProfile gives the settings that no source has set the profile's values.
func (l *loader) applyProfile(checkout bool) {
	if l.origins[profileKey].text == "" && checkout {
		l.config.Environment.Profile = checkoutProfile
		l.origins[profileKey] = origin{text: "checkout"}
	}
	p := l.config.Profile()
	if l.origins["log.level"].text == "" && p.LogLevel != l.config.Log.Level && p.LogLevel != "" {
		l.config.Log.Level = p.LogLevel
		l.origins["log.level"] = origin{text: "profile " + p.Name}
	}
}
