package config

import (
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

func TestProfile(t *testing.T) {
	for _, c := range []struct {
		name           string
		environ        []string
		checkout       bool
		profile, from  string
		level, fromFor string
	}{
		{"nobody said", nil, false, "production", "default", "info", "default"},
		{"checkout", nil, true, "development", "checkout", "debug", "profile development"},
		{"checkout, set", []string{"WHISPER_APPLIANCE_ENVIRONMENT_PROFILE=production"}, true, "production",
			"environment WHISPER_APPLIANCE_ENVIRONMENT_PROFILE", "info", "default"},
		{"testing", []string{"WHISPER_APPLIANCE_ENVIRONMENT_PROFILE=testing"}, false, "testing",
			"environment WHISPER_APPLIANCE_ENVIRONMENT_PROFILE", "debug", "profile testing"},
		{"a level that was set wins", []string{"WHISPER_APPLIANCE_ENVIRONMENT_PROFILE=testing", "LOG_LEVEL=ERROR"}, false, "testing",
			"environment WHISPER_APPLIANCE_ENVIRONMENT_PROFILE", "error", "environment LOG_LEVEL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, r, err := Load(Sources{Environ: c.environ, Checkout: c.checkout})
			if err != nil {
				t.Fatal(err)
			}
			if p := got.Profile(); p.Name != c.profile || p.LogLevel == "" || p.UpdateChannel == "" || p.Trial < time.Minute {
				t.Errorf("profile %+v", p)
			}
			if got.Environment.Profile != c.profile || r.Origin(profileKey) != c.from {
				t.Errorf("profile %s from %s", got.Environment.Profile, r.Origin(profileKey))
			}
			if got.Log.Level != c.level || r.Origin("log.level") != c.fromFor {
				t.Errorf("log level %s from %s", got.Log.Level, r.Origin("log.level"))
			}
			if r.Locked("log.level") != (c.level == "error") {
				t.Error("a profile's default is no reason not to save another")
			}
		})
	}
	if _, _, err := Load(Sources{Environ: []string{"WHISPER_APPLIANCE_ENVIRONMENT_PROFILE=prod"}}); fault.KindOf(err) != fault.BadInput {
		t.Errorf("a profile that is none: %v", err)
	}
	if p := (&Config{}).Profile(); p.Name != "" || p.LogLevel != "" {
		t.Errorf("%+v", p)
	}
}

// TestProfilesAreTheChoices: the setting takes what there are profiles for.
func TestProfilesAreTheChoices(t *testing.T) {
	f := fields(Default())[profileKey]
	names := []string{}
	for _, p := range Profiles() {
		names = append(names, p.Name)
		if !f.allows(p.Name) {
			t.Errorf("%s is not allowed", p.Name)
		}
	}
	if len(names) != len(f.oneOf) {
		t.Errorf("%v, %v", names, f.oneOf)
	}
	if d := Default(); d.Profile().LogLevel != d.Log.Level {
		t.Error("the default of log.level is not the default profile's")
	}
}
