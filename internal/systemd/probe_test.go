package systemd

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/fault"
)

func TestSettingsHaveSystemdsTypes(t *testing.T) {
	for _, c := range []struct {
		setting   Setting
		signature string
		shown     string
	}{
		{Setting{"DynamicUser", "yes"}, "b", "true"},
		{Setting{"PrivateUsers", "no"}, "b", "false"},
		{Setting{"ProtectSystem", "strict"}, "s", `"strict"`},
		{Setting{"ReadWritePaths", "/a /b"}, "as", `["/a", "/b"]`},
		{Setting{"TemporaryFileSystem", "/var:ro /mnt"}, "a(ss)", `[("/var", "ro"), ("/mnt", "")]`},
		{Setting{"BindReadOnlyPaths", "-/a:/b /c"}, "a(ssbt)", `[("/a", "/b", true, 16384), ("/c", "/c", false, 16384)]`},
	} {
		v, err := encode(c.setting)
		if err != nil || v.Signature().String() != c.signature || !strings.HasSuffix(strings.ReplaceAll(v.String(), ",)", ")"), c.shown) {
			t.Errorf("%s is %s %s (%v), want %s %s", c.setting, v.Signature(), v, err, c.signature, c.shown)
		}
	}
	if _, err := encode(Setting{"Nonsense", "yes"}); err == nil {
		t.Error("a setting that is not known was taken")
	}
}

func TestProbeOfARefusal(t *testing.T) {
	f := newFake(t, false)
	f.mu.Lock()
	f.refuse["StartTransientUnit"] = "org.freedesktop.DBus.Error.AccessDenied"
	f.mu.Unlock()
	_, _, err := f.dial().Probe(t.Context(), []Setting{{"PrivateUsers", "yes"}}, "true")
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != "not_allowed" {
		t.Errorf("error %v, want one with the code not_allowed", err)
	}
}

func TestHowAProbeEnded(t *testing.T) {
	f := newFake(t, false)
	b := f.dial()
	for _, c := range []struct {
		all  map[string]any
		want string
	}{
		{map[string]any{"ExecMainStatus": int32(226), "Result": "exit-code"}, "226/NAMESPACE"},
		{map[string]any{"ExecMainStatus": int32(217), "Result": "exit-code"}, "217/USER"},
		{map[string]any{"ExecMainStatus": int32(231), "Result": "exit-code"}, "231/SETUP"},
		{map[string]any{"ExecMainStatus": int32(1), "Result": "exit-code"}, "exit code 1"},
		{map[string]any{"ExecMainStatus": int32(15), "Result": "timeout"}, "timeout"},
	} {
		f.add("probe.service", c.all)
		got, err := b.howItEnded(t.Context(), "probe.service")
		if err != nil || got != c.want {
			t.Errorf("%v: %q (%v), want %q", c.all, got, err, c.want)
		}
	}
}

func TestListening(t *testing.T) {
	f := newFake(t, true)
	f.add("x.socket", map[string]any{"Listen": []struct{ Kind, Address string }{{"Stream", "[::]:5001"}, {"Stream", "/run/x.sock"}}})
	f.add("y.socket", map[string]any{"Listen": dbus.MakeVariant("nonsense")})
	b := f.dial()
	list, err := b.Listening(t.Context(), "x.socket")
	if want := []string{"[::]:5001", "/run/x.sock"}; err != nil || !slices.Equal(list, want) {
		t.Errorf("%q (%v), want %q", list, err, want)
	}
	if _, err := b.Listening(t.Context(), "none.socket"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a socket that is not there: %v", err)
	}
	if _, err := b.Listening(t.Context(), "y.socket"); err == nil {
		t.Error("nonsense was taken for addresses")
	}
}
