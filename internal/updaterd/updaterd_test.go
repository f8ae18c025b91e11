package updaterd

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// question is a method asked through a Client.
type question struct {
	method string
	ask    func(context.Context, *Client) (string, error)
	args   string // as the fake sees them
	answer bool   // it gives a string
	server bool   // the server's user may
}

func questions() []question {
	only := func(f func(context.Context, *Client) error) func(context.Context, *Client) (string, error) {
		return func(ctx context.Context, c *Client) (string, error) { return "", f(ctx, c) }
	}
	beta, none := "beta", ""
	return []question{
		{"Check", func(ctx context.Context, c *Client) (string, error) { return c.Check(ctx) }, "", true, true},
		{"Download", only(func(ctx context.Context, c *Client) error { return c.Download(ctx, "1.2.3") }), "1.2.3", false, true},
		{"Apply", func(ctx context.Context, c *Client) (string, error) { return c.Apply(ctx, "1.2.3\x00\xff") }, "1.2.3\uFFFD\uFFFD", true, true},
		{"Rollback", func(ctx context.Context, c *Client) (string, error) { return c.Rollback(ctx) }, "", true, true},
		{"Commit", only(func(ctx context.Context, c *Client) error { return c.Commit(ctx) }), "", false, false},
		{"Cancel", only(func(ctx context.Context, c *Client) error { return c.Cancel(ctx) }), "", false, true},
		{"Restart", func(ctx context.Context, c *Client) (string, error) { return c.Restart(ctx) }, "", true, true},
		{"Pin", only(func(ctx context.Context, c *Client) error { return c.Pin(ctx, "1.0.0") }), "1.0.0", false, false},
		{"Unpin", only(func(ctx context.Context, c *Client) error { return c.Unpin(ctx) }), "", false, false},
		{"Unquarantine", only(func(ctx context.Context, c *Client) error { return c.Unquarantine(ctx, "abc") }), "abc", false, false},
		{"InstallFile", func(ctx context.Context, c *Client) (string, error) { return c.InstallFile(ctx, "file.wa") }, "file.wa", true, false},
		{"SetPolicy", only(func(ctx context.Context, c *Client) error {
			return c.SetPolicy(ctx, deployment.PolicyChange{Channel: &beta, Window: &none, Days: []string{}})
		}), "beta|-||[]", false, true},
	}
}

func TestEveryMethod(t *testing.T) {
	b := newBus(t, open)
	s, c := serve(t, b), client(t, b)
	asked := map[string]bool{}
	for _, q := range questions() {
		asked[q.method] = true
		answer, err := q.ask(t.Context(), c)
		want := ""
		if q.answer {
			want = "answer to " + q.method
		}
		if err != nil || answer != want {
			t.Errorf("%s gives %q, %v; want %q", q.method, answer, err, want)
		}
		if got := s.latest(); got != (call{q.method, Caller{UID: s.admin}, q.args}) {
			t.Errorf("%s arrived as %+v", q.method, got)
		}
	}
	for _, m := range updaterMembers() {
		if !asked[m.name] {
			t.Errorf("%s was not asked", m.name)
		}
	}
	if s.Idle() <= 0 {
		t.Error("it is not idle with no call under way")
	}
}

// TestCallsAreNoted: the log has which user had what done, and only that.
func TestCallsAreNoted(t *testing.T) {
	b := newBus(t, open)
	var log journal
	s, c := serveAndLog(t, b, slog.New(slog.NewTextHandler(&log, nil))), client(t, b)
	beta := "beta"
	if err := c.SetPolicy(t.Context(), deployment.PolicyChange{Channel: &beta}); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`msg="called over D-Bus" method=SetPolicy uid=%d`, s.admin)
	if !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %s:\n%s", want, log.String())
	}
	s.set(fault.New(fault.Conflict, "locked", "it is fixed"), nil)
	if err := c.Unpin(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(log.String(), "msg=\"called over D-Bus\""); got != 1 {
		t.Errorf("%d are noted:\n%s", got, log.String())
	}
}

// TestFaultsComeBack: what the Handler says is what the Client says.
func TestFaultsComeBack(t *testing.T) {
	b := newBus(t, open)
	s, c := serve(t, b), client(t, b)
	for kind := fault.Internal; kind <= fault.NoSpace; kind++ {
		inner := fault.New(kind, "some_code", "it is so").On("window").Try("do otherwise").Because(io.EOF)
		s.set(fmt.Errorf("step: %w", inner), nil)
		_, err := c.Apply(t.Context(), "")
		var f *fault.Error
		if !errors.As(err, &f) {
			t.Fatalf("%v is no fault", err)
		}
		if *f != (fault.Error{Kind: kind, Code: "some_code", Field: "window", Message: "it is so", Hint: "do otherwise"}) {
			t.Errorf("kind %d came back as %+v", kind, *f)
		}
	}
	// Whoever has no Client reads one string, and tells errors apart by their names.
	s.set(fault.New(fault.Conflict, "locked", "window is\nfixed").On("update.window").Try("look\nthere"), nil)
	var e dbus.Error
	if err := raw(t, b).Object(Name, Path).Call(Interface+".Cancel", 0).Err; !errors.As(err, &e) ||
		e.Name != errorPrefix+"Conflict.locked.update.window" || len(e.Body) != 1 || e.Error() != "window is fixed\nlook\nthere" {
		t.Errorf("on the bus: %+v", e)
	}
	s.set(fault.New(fault.BadInput, "bad", "no").On("a b"), nil) // no name for D-Bus
	var odd *fault.Error
	if err := c.Cancel(t.Context()); !errors.As(err, &odd) || odd.Kind != fault.BadInput || odd.Code != "bad" || odd.Field != "" || odd.Hint != "" {
		t.Errorf("a field that cannot be named: %+v", odd)
	}
	s.set(errors.New("secret insides"), nil)
	err := c.Commit(t.Context())
	if fault.KindOf(err) != fault.Internal || strings.Contains(err.Error(), "secret") || fault.Hint(err) == "" {
		t.Errorf("what is no fault came back as %v", err)
	}
	s.set(nil, func(context.Context, string) { panic("a mistake") })
	if err := c.Cancel(t.Context()); fault.KindOf(err) != fault.Internal {
		t.Errorf("a panic came back as %v", err)
	}
	s.set(nil, nil)
	if err := c.Cancel(t.Context()); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

// TestMalformed: what is not as the introspection says reaches no Handler.
func TestMalformed(t *testing.T) {
	b := newBus(t, open)
	s, conn := serve(t, b), raw(t, b)
	const dbusError, badInput = "org.freedesktop.DBus.Error.", errorPrefix + "BadInput."
	policy := func(name string, v any) []any { return []any{map[string]dbus.Variant{name: dbus.MakeVariant(v)}} }
	for _, test := range []struct {
		name, path, method string
		args               []any
		want               string
	}{
		{"a number", Path, Interface + ".Apply", []any{uint32(65)}, dbusError + "InvalidArgs"},
		{"a variant", Path, Interface + ".Apply", []any{dbus.MakeVariant("1.0.0")}, dbusError + "InvalidArgs"},
		{"none", Path, Interface + ".Apply", nil, dbusError + "InvalidArgs"},
		{"two", Path, Interface + ".Apply", []any{"1", "2"}, dbusError + "InvalidArgs"},
		{"one too many", Path, Interface + ".Check", []any{"1"}, dbusError + "InvalidArgs"},
		{"an object path", Path, Interface + ".InstallFile", []any{dbus.ObjectPath("/a")}, dbusError + "InvalidArgs"},
		{"a list for a policy", Path, Interface + ".SetPolicy", []any{[]string{"channel"}}, dbusError + "InvalidArgs"},
		{"a dictionary of strings", Path, Interface + ".SetPolicy", []any{map[string]string{"channel": "beta"}}, dbusError + "InvalidArgs"},
		{"a number as channel", Path, Interface + ".SetPolicy", policy("channel", 5), badInput},
		{"a string as days", Path, Interface + ".SetPolicy", policy("days", "mon"), badInput},
		{"a key that is not there", Path, Interface + ".SetPolicy", policy("chanel", "beta"), badInput},
		{"a long value", Path, Interface + ".SetPolicy", policy("window", strings.Repeat("x", longest+1)), badInput},
		{"many days", Path, Interface + ".SetPolicy", policy("days", make([]string, 65)), badInput},
		{"a long version", Path, Interface + ".Apply", []any{strings.Repeat("x", longest+1)}, badInput},
		{"no such method", Path, Interface + ".Reboot", nil, dbusError + "UnknownMethod"},
		{"no such interface", Path, "org.example.Other.Check", nil, dbusError + "UnknownInterface"},
		{"no such object", "/org/example", Interface + ".Check", nil, dbusError + "NoSuchObject"},
		{"a node on the way", "/org/whisperappliance", Interface + ".Check", nil, dbusError + "UnknownInterface"},
		{"an unknown property", Path, propertiesInterface + ".Get", []any{Interface, "Password"}, dbusError + "UnknownProperty"},
		{"a property of another interface", Path, propertiesInterface + ".Get", []any{"org.example", "State"}, dbusError + "UnknownInterface"},
		{"all of another interface", Path, propertiesInterface + ".GetAll", []any{"org.example"}, dbusError + "UnknownInterface"},
		{"setting a property", Path, propertiesInterface + ".Set", []any{Interface, "State", dbus.MakeVariant("idle")}, dbusError + "PropertyReadOnly"},
		{"setting an unknown one", Path, propertiesInterface + ".Set", []any{Interface, "X", dbus.MakeVariant("idle")}, dbusError + "UnknownProperty"},
	} {
		err := conn.Object(Name, dbus.ObjectPath(test.path)).CallWithContext(t.Context(), test.method, 0, test.args...).Err
		var e dbus.Error
		if !errors.As(err, &e) || e.Name != test.want && !(test.want == badInput && strings.HasPrefix(e.Name, badInput)) {
			t.Errorf("%s: %v (%s), want %s", test.name, err, e.Name, test.want)
		}
	}
	if n := s.count(); n != 0 {
		t.Errorf("%d calls reached the handler: %+v", n, s.seen)
	}
	// The interface may be left out, and an answer may be unwanted.
	if err := conn.Object(Name, Path).CallWithContext(t.Context(), "Cancel", 0).Err; err != nil || s.latest().method != "Cancel" {
		t.Errorf("a call without an interface: %v", err)
	}
	conn.Object(Name, Path).Call(Interface+".Unpin", dbus.FlagNoReplyExpected)
	eventually(t, "the call without an answer", func() bool { return s.latest().method == "Unpin" && s.Idle() > 0 })
}

// sample is a status that says much.
func sample() deployment.Status {
	return deployment.Status{
		State: deployment.Trial, Phase: deployment.OnTrial, Transaction: "tx1", Message: "bad \xff bytes \x00 here",
		Progress: deployment.Progress{Done: 5, Total: 10, LeftSeconds: 2.5},
		Current:  deployment.Release{Version: "1.1.0", Slot: "b"}, Stable: deployment.Release{Version: "1.0.0", Slot: "a"},
		Available: &deployment.Offer{Version: "1.2.0"},
		Trial:     &deployment.TrialStatus{HealthySeconds: 12, Verdict: deployment.Good, Evidence: []string{"a\x00b"}, Extended: true},
		Last:      &deployment.Record{Transaction: "tx0", Outcome: deployment.Committed, Requests: deployment.Requests{Answered: 7}},
		Policy:    deployment.Policy{Channel: "stable", Automatic: "off", Days: []string{"mon"}},
	}
}

func TestProperties(t *testing.T) {
	b := newBus(t, open)
	s, conn, c := serve(t, b), raw(t, b), client(t, b)
	s.Publish(sample())
	whole := conn.Object(Name, Path).Call(propertiesInterface+".GetAll", 0, Interface)
	if whole.Err != nil {
		t.Fatal(whole.Err)
	}
	all, _ := whole.Body[0].(map[string]dbus.Variant) // Store would lose the types
	for _, p := range properties() {
		if got := all[p.name].Signature().String(); got != p.signature {
			t.Errorf("%s has the type %q, want %q", p.name, got, p.signature)
		}
	}
	for name, want := range map[string]string{
		"State": "trial", "Current": "1.1.0", "Stable": "1.0.0", "Available": "1.2.0", "Transaction": "tx1", "Phase": "trial",
		"Message": "bad \uFFFD bytes \uFFFD here", "Progress": "[5 10 2.5]",
	} {
		if got := fmt.Sprint(all[name].Value()); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	trial, _ := all["Trial"].Value().(map[string]dbus.Variant)
	if trial["verdict"].Value() != deployment.Good || trial["healthy_seconds"].Value() != 12.0 || trial["extended"].Value() != true ||
		fmt.Sprint(trial["evidence"].Value()) != "[a\uFFFDb]" {
		t.Errorf("Trial is %v", trial)
	}
	last, _ := all["LastOutcome"].Value().(map[string]dbus.Variant)
	if last["outcome"].Value() != deployment.Committed || !strings.Contains(fmt.Sprint(last["requests"].Value()), `"answered":7`) {
		t.Errorf("LastOutcome is %v", last)
	}
	st, err := c.Status(t.Context())
	if err != nil || st.Transaction != "tx1" || st.Trial == nil || st.Trial.HealthySeconds != 12 || st.Available.Version != "1.2.0" {
		t.Errorf("status %+v, %v", st, err)
	}
	s.Publish(deployment.Status{State: deployment.Idle, Progress: deployment.Progress{Done: -1}})
	var p dbus.Variant
	if err := conn.Object(Name, Path).Call(propertiesInterface+".Get", 0, Interface, "Progress").Store(&p); err != nil || fmt.Sprint(p.Value()) != "[0 0 -1]" {
		t.Errorf("Progress of nothing is %v, %v", p, err)
	}
}

// nextSignal is the next PropertiesChanged.
func nextSignal(t *testing.T, signals <-chan *dbus.Signal) *dbus.Signal {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case sig := <-signals:
			if sig.Name == propertiesChanged { // the bus greets with signals, too
				return sig
			}
		case <-limit:
			t.Fatal("no signal came")
		}
	}
}

// TestPropertiesChanged: one signal for each change, with what changed alone.
func TestPropertiesChanged(t *testing.T) {
	b := newBus(t, open)
	s, conn := serve(t, b), raw(t, b)
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	if err := conn.AddMatchSignal(dbus.WithMatchSender(Name), dbus.WithMatchInterface(propertiesInterface)); err != nil {
		t.Fatal(err)
	}
	next := func() string {
		sig := nextSignal(t, signals)
		if sig.Path != Path || sig.Body[0] != Interface {
			t.Errorf("signal %+v", sig)
		}
		changed, _ := sig.Body[1].(map[string]dbus.Variant)
		var names []string
		for _, p := range properties() {
			if _, ok := changed[p.name]; ok {
				names = append(names, p.name)
			}
		}
		return strings.Join(names, " ")
	}
	st := sample()
	s.Publish(st)
	if got := next(); got != "State Phase Progress Message Transaction Current Stable Available Trial LastOutcome Policy Status" {
		t.Errorf("first change: %s", got)
	}
	s.Publish(st) // nothing
	st.Message = "on it goes"
	s.Publish(st)
	if got := next(); got != "Message Status" {
		t.Errorf("a new message: %s", got)
	}
	st.Progress.Done, st.Available = 6, nil
	s.Publish(st)
	if got := next(); got != "Progress Available Status" {
		t.Errorf("progress: %s", got)
	}
}

func TestIntrospection(t *testing.T) {
	b := newBus(t, open)
	serve(t, b)
	conn := raw(t, b)
	read := func(path dbus.ObjectPath) introspect.Node {
		var doc string
		var n introspect.Node
		if err := conn.Object(Name, path).Call(introspectable+".Introspect", 0).Store(&doc); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if err := xml.Unmarshal([]byte(doc), &n); err != nil || !strings.HasPrefix(doc, "<!DOCTYPE node PUBLIC") {
			t.Fatalf("%s: %v in %s", path, err, doc)
		}
		return n
	}
	path := dbus.ObjectPath("/")
	for _, child := range []string{"org", "whisperappliance", "Updater1"} {
		n := read(path)
		if len(n.Children) != 1 || n.Children[0].Name != child {
			t.Fatalf("%s has the children %+v", path, n.Children)
		}
		path = dbus.ObjectPath(strings.TrimSuffix(string(path), "/") + "/" + child)
	}
	var said []string
	for _, face := range read(path).Interfaces {
		for _, m := range face.Methods {
			line := face.Name + "." + m.Name
			for _, a := range m.Args {
				line += fmt.Sprintf(" %s:%s:%s", a.Direction, a.Name, a.Type)
				if a.Name == "" {
					t.Errorf("%s has an argument without a name", line)
				}
			}
			for _, a := range m.Annotations {
				line += " " + a.Value
			}
			said = append(said, line)
		}
		for _, p := range face.Properties {
			if p.Access != "read" || len(p.Annotations) != 1 || p.Annotations[0].Value != "true" {
				t.Errorf("property %+v", p)
			}
		}
	}
	all := strings.Join(said, "\n") + "\n"
	for _, want := range []string{
		Interface + ".Apply in:version:s out:transaction:s root, the server's user\n", Interface + ".SetPolicy in:policy:a{sv} root, the server's user\n",
		Interface + ".InstallFile in:path:s out:transaction:s root\n", Interface + ".Commit root\n",
		propertiesInterface + ".Get in:interface_name:s in:property_name:s out:value:v\n", introspectable + ".Introspect", peer + ".Ping",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
	if err := conn.Object(Name, Path).Call(peer+".Ping", 0).Err; err != nil {
		t.Error(err)
	}
}

func TestWordsOfTheBus(t *testing.T) {
	for name, want := range map[string]string{
		"org.freedesktop.DBus.Error.AccessDenied": CodeDenied, "org.freedesktop.DBus.Error.ServiceUnknown": CodeUnreachable,
		"org.freedesktop.DBus.Error.NoReply": CodeUnreachable, "org.freedesktop.systemd1.NoSuchUnit": CodeUnreachable,
		"org.freedesktop.DBus.Error.UnknownMethod": "updater_other", errorPrefix + "Conflict": "internal_error",
	} {
		err := fromBus(dbus.Error{Name: name})
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != want {
			t.Errorf("%s becomes %v", name, err)
		}
	}
	for err, want := range map[error]string{context.DeadlineExceeded: "in time", io.EOF: "does not answer"} {
		if got := fromBus(err); !strings.Contains(got.Error(), want) || fault.KindOf(got) != fault.Unavailable {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}
