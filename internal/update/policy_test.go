package update

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// policed is an updater whose settings come from files.
func policed(t *testing.T, etc string) (*world, config.Sources) {
	t.Helper()
	w := newWorld(t)
	from := config.Sources{Config: filepath.Join(w.home, "config.toml"), Settings: filepath.Join(w.home, "settings.toml")}
	must(t, os.WriteFile(from.Config, []byte(etc), 0o644))
	must(t, os.WriteFile(from.Settings, []byte("[update]\nchannel = \"beta\"\nsources = [\"https://evil.example\"]\n"), 0o644))
	w.u.Settings = func() (Settings, error) { return LoadSettings(from, w.u.Dir, "/packages/source") }
	return w, from
}

func word(s string) *string { return &s }

// TestPolicy: /etc counts before what was set, and nothing that the server can
// write counts at all.
func TestPolicy(t *testing.T) {
	w, _ := policed(t, "[update]\nautomatic = \"off\"\n")
	must(t, w.u.SetPolicy(deployment.DoorCLI, deployment.PolicyChange{Channel: word("beta"), Window: word("")}))
	must(t, w.u.SetPolicy(deployment.DoorCLI, deployment.PolicyChange{Days: []string{"sat", "sun"}}))
	err := w.u.SetPolicy(deployment.DoorCLI, deployment.PolicyChange{Automatic: word("install")})
	wantCode(t, err, "locked")
	var f *fault.Error
	if !errors.As(err, &f) || f.Field != "automatic" {
		t.Errorf("field of %v", err)
	}
	set, err := w.u.Settings()
	must(t, err)
	if set.Channel != "beta" || set.Automatic != "off" || set.Window != "" || !slices.Equal(set.Days, []string{"sat", "sun"}) || !slices.Equal(set.Locked, []string{"automatic"}) {
		t.Errorf("%+v", set)
	}
	if !slices.Equal(set.sources(), []string{"/packages/source"}) {
		t.Errorf("sources %v: the server's own file was read", set.sources())
	}
	must(t, w.u.SetPolicy(deployment.DoorCLI, deployment.PolicyChange{Days: []string{}}))
	if set, err = w.u.Settings(); err != nil || len(set.Days) != 0 || set.Channel != "beta" {
		t.Errorf("%+v, %v", set, err)
	}
	if s, err := w.u.Status(); err != nil || s.Policy.Channel != "beta" || !slices.Equal(s.Policy.Locked, []string{"automatic"}) {
		t.Errorf("%+v, %v", s.Policy, err)
	}
}

func TestBadPolicy(t *testing.T) {
	for name, c := range map[string]deployment.PolicyChange{
		"channel":      {Channel: word("nightly")},
		"automatic":    {Automatic: word("yes")},
		"window":       {Window: word("2-5")},
		"days":         {Days: []string{"someday"}},
		"days, joined": {Days: []string{"sat,sun"}},
		"days, empty":  {Days: []string{""}},
		"days, spaced": {Days: []string{" sat"}},
		"days, twice":  {Days: []string{"sat", "sat"}},
		"days, many":   {Days: slices.Repeat([]string{"sat"}, 20_000)},
		"window, long": {Window: word("02:00-05:00" + strings.Repeat(" ", 70_000))},
	} {
		w, _ := policed(t, "")
		err := w.u.SetPolicy(deployment.DoorCLI, c)
		setting, _, _ := strings.Cut(name, ",")
		if err == nil || !strings.Contains(err.Error(), setting) || len(err.Error()) > 500 || fault.KindOf(err) != fault.BadInput {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(w.u.Dir, policyFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was saved", name)
		}
	}
}

// TestPolicyThatCannotBeRead keeps nobody from setting another, and is told
// until then.
func TestPolicyThatCannotBeRead(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "too long": `{"channel":"` + strings.Repeat("x", mostPolicy) + `"}`, "no day": `{"days":["sat,sun"]}`, "no channel": `{"channel":"nightly","window":""}`,
	} {
		w, _ := policed(t, "")
		must(t, os.WriteFile(filepath.Join(w.u.Dir, policyFile), []byte(text), 0o644))
		set, err := w.u.Settings()
		if err != nil || set.Channel != config.Default().Update.Channel || set.Window != config.Default().Update.Window || len(set.Days) != 0 {
			t.Errorf("%s: %+v, %v", name, set.Update, err)
		}
		if s, err := w.u.Status(); err != nil || s.Alarm == nil || s.Alarm.Code != "bad_policy" || s.Alarm.Hint == "" || s.State != deployment.Attention {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		must(t, w.u.SetPolicy(deployment.DoorCLI, deployment.PolicyChange{Channel: word("beta"), Days: days()}))
		if set, err = w.u.Settings(); err != nil || set.Channel != "beta" || len(set.Days) != 7 || set.Trouble != nil {
			t.Errorf("%s: %+v, %v", name, set, err)
		}
		if s, err := w.u.Status(); err != nil || s.Alarm != nil {
			t.Errorf("%s: the alarm stays: %+v, %v", name, s.Alarm, err)
		}
	}
}

func TestWindow(t *testing.T) {
	for _, tt := range []struct {
		window string
		days   []string
		at     string // 2026-03-06 is a Friday
		want   bool
	}{
		{"02:00-05:00", nil, "06 02:00", true},
		{"02:00-05:00", nil, "06 04:59", true},
		{"02:00-05:00", nil, "06 05:00", false},
		{"02:00-05:00", nil, "06 01:59", false},
		{"02:00-05:00", []string{"fri"}, "06 03:00", true},
		{"02:00-05:00", []string{"sat"}, "06 03:00", false},
		{"22:00-03:00", nil, "06 23:00", true},
		{"22:00-03:00", nil, "06 02:59", true},
		{"22:00-03:00", nil, "06 03:00", false},
		{"22:00-03:00", nil, "06 12:00", false},
		{"22:00-03:00", []string{"fri"}, "06 23:00", true},
		{"22:00-03:00", []string{"fri"}, "07 01:00", true},  // it began on Friday
		{"22:00-03:00", []string{"fri"}, "06 01:00", false}, // it began on Thursday
		{"22:00-03:00", []string{"sun"}, "09 01:00", true},
		{"", nil, "06 12:00", true},
		{"", []string{"fri"}, "06 12:00", true},
		{"", []string{"sat"}, "06 12:00", false},
	} {
		now, err := time.Parse("2006-01-02 15:04", "2026-03-"+tt.at)
		must(t, err)
		set := Settings{Update: config.Update{Window: tt.window, Days: tt.days}}
		if got := set.inWindow(now); got != tt.want {
			t.Errorf("%s %v at %s: %v", tt.window, tt.days, now.Format("Mon 15:04"), got)
		}
	}
}

// TestAuto does what the policy says, and no more.
func TestAuto(t *testing.T) {
	noon := time.Date(2026, 3, 6, 12, 0, 0, 0, time.Local)
	for _, tt := range []struct {
		name      string
		automatic string
		window    string
		change    func(w *world)
		outcome   string
		fetched   bool
	}{
		{"off", "off", "", func(*world) {}, Already, false},
		{"no source", "install", "", func(w *world) { w.set.Sources = nil }, Already, false},
		{"download", "download", "", func(*world) {}, Already, true},
		{"install", "install", "", func(*world) {}, OnTrial, true},
		{"outside the window", "install", "02:00-05:00", func(*world) {}, Already, true},
		{"inside", "install", "11:00-13:00", func(*world) {}, OnTrial, true},
		{"held", "install", "", func(w *world) { st := w.state(); st.Held = "1.1.0"; must(w.t, w.u.save(st)) }, Already, false},
		{"pinned", "install", "", func(w *world) { w.u.Pin("") }, Already, false},
		{"during a trial", "install", "", func(w *world) { w.onTrial("1.0.5") }, Already, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.offers("1.1.0")
			tt.change(w)
			w.set.Automatic, w.set.Window = tt.automatic, tt.window
			w.u.Now = func() time.Time { return noon }
			res, err := w.u.Auto(t.Context())
			must(t, err)
			if st := w.state(); res.Outcome != tt.outcome || (st.Check.Fetched != "") != tt.fetched || st.Queued != nil {
				t.Errorf("%+v, fetched %q", res, st.Check.Fetched)
			}
		})
	}
}
