package updaterd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// unitFile is a file of units/.
func unitFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "units", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// packaged is a bus with the policy that the package brings, for the tests' users.
func packaged(t *testing.T) *bus {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the policy is about root and other users: it takes root to be them")
	}
	policy := unitFile(t, Name+".conf")
	_, policy, _ = strings.Cut(policy, "<busconfig>")
	policy = strings.Replace(policy, "</busconfig>", "", 1)
	ours := strings.Replace(policy, `user="whisper-appliance"`, `user="`+strconv.Itoa(serverUID)+`"`, 1)
	if ours == policy {
		t.Fatal("the policy does not name the server's user")
	}
	return newBus(t, systemLike+ours)
}

func wantDenied(t *testing.T, what string, err error) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Forbidden || f.Code != CodeDenied || f.Hint == "" {
		t.Errorf("%s: %v, want %s", what, err, CodeDenied)
	}
}

// TestWhoMay: behind the package's policy, and behind a bus that lets everybody
// through, root may all, the server's user what is marked, others nothing.
func TestWhoMay(t *testing.T) {
	for name, b := range map[string]*bus{"package's policy": packaged(t), "open bus": newBus(t, open)} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, b)
			server, stranger, root := clientAs(t, b, serverUID), clientAs(t, b, strangerUID), client(t, b)
			for _, q := range questions() {
				before := s.count()
				_, err := q.ask(t.Context(), stranger)
				wantDenied(t, q.method+" by a stranger", err)
				if _, err = q.ask(t.Context(), server); !q.server {
					wantDenied(t, q.method+" by the server", err)
				}
				if !q.server && s.count() != before {
					t.Errorf("%s reached the handler", q.method)
				}
				if q.server && (err != nil || s.latest().caller != Caller{UID: serverUID, Server: true}) {
					t.Errorf("%s by the server: %v, %+v", q.method, err, s.latest())
				}
				if _, err := q.ask(t.Context(), root); err != nil {
					t.Errorf("%s by root: %v", q.method, err)
				}
			}
			if _, err := server.Status(t.Context()); err != nil {
				t.Errorf("the server cannot read: %v", err)
			}
		})
	}
}

// TestPolicyLeavesNoGap: with the package's policy the server's user cannot do
// by other ways what it may not, and everybody is told of changes.
func TestPolicyLeavesNoGap(t *testing.T) {
	b := packaged(t)
	s := serve(t, b)
	server, stranger := rawAs(t, b, serverUID), rawAs(t, b, strangerUID)
	for _, conn := range []*dbus.Conn{server, stranger} {
		if _, err := conn.RequestName(Name, dbus.NameFlagReplaceExisting); err == nil {
			t.Error("the name could be taken")
		}
		for _, method := range []string{"Commit", Interface + ".Commit", propertiesInterface + ".Set", "org.example.Check"} {
			var e dbus.Error
			if err := conn.Object(Name, Path).Call(method, 0).Err; !errors.As(err, &e) || e.Name != "org.freedesktop.DBus.Error.AccessDenied" {
				t.Errorf("%s: %v", method, err)
			}
		}
		// What needs no answer is not let through either.
		conn.Object(Name, Path).Call(Interface+".Commit", dbus.FlagNoReplyExpected)
		// Nor is the connection itself open where the name is not.
		var owner string
		if err := conn.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, Name).Store(&owner); err != nil {
			t.Fatal(err)
		}
		if err := conn.Object(owner, Path).Call(Interface+".Commit", 0).Err; err == nil {
			t.Error("Commit by the connection's own name")
		}
	}
	for _, ok := range []string{introspectable + ".Introspect", peer + ".Ping"} {
		if err := server.Object(Name, Path).Call(ok, 0).Err; err != nil {
			t.Errorf("%s by the server: %v", ok, err)
		}
	}
	if s.count() != 0 {
		t.Errorf("reached the handler: %+v", s.seen)
	}
	c := clientAs(t, b, serverUID)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	as(t, serverUID, func() { // Watch dials by itself
		s.Publish(deployment.Status{Message: "first"})
		if err := c.Watch(ctx, func(st deployment.Status) {
			if st.Message == "first" {
				s.Publish(deployment.Status{Message: "second"})
				return
			}
			cancel()
		}); err != nil {
			t.Errorf("the server is not told of changes: %v", err)
		}
	})
}

// TestServerIsBounded: a server taken over cannot have more than a few calls
// under way, and root is served beside them.
func TestServerIsBounded(t *testing.T) {
	b := packaged(t)
	s := serve(t, b)
	server, root := rawAs(t, b, serverUID), client(t, b)
	release := make(chan struct{})
	s.set(nil, func(_ context.Context, method string) {
		if method == "Check" {
			<-release
		}
	})
	const many = 4 * mostCalls
	done := make(chan *dbus.Call, many)
	for range many {
		server.Object(Name, Path).Go(Interface+".Check", 0, done)
	}
	for range many - callsOfServer {
		var f *fault.Error
		if call := <-done; !errors.As(fromBus(call.Err), &f) || f.Kind != fault.Busy || f.Code != CodeBusy {
			t.Fatalf("%v", call.Err)
		}
	}
	if err := root.Cancel(t.Context()); err != nil {
		t.Errorf("root beside it: %v", err)
	}
	close(release)
	for range callsOfServer {
		if call := <-done; call.Err != nil {
			t.Error(call.Err)
		}
	}
}

// TestPackagedFiles: policy, activation file and table say the same.
func TestPackagedFiles(t *testing.T) {
	policy := unitFile(t, Name+".conf")
	for _, m := range updaterMembers() {
		line := fmt.Sprintf(`send_destination="%s" send_interface="%s" send_member="%s"`, Name, Interface, m.name)
		if got := strings.Contains(policy, line); got != (m.may == servers) {
			t.Errorf("the policy names %s: %v", m.name, got)
		}
	}
	service := unitFile(t, Name+".service")
	for _, want := range []string{"Name=" + Name + "\n", "SystemdService=whisper-appliance-updater.service\n"} {
		if !strings.Contains(service, want) {
			t.Errorf("the activation file lacks %q", want)
		}
	}
}

// TestDocumentedCalls: what docs/updates.md shows works as it stands there, with
// the programs that people have.
func TestDocumentedCalls(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "updates.md"))
	if err != nil {
		t.Fatal(err)
	}
	b := newBus(t, open)
	s := serve(t, b)
	s.Publish(deployment.Status{State: deployment.Trial, Message: "watched"})
	shown := map[string]int{}
	for line := range strings.Lines(string(page)) {
		program, _, _ := strings.Cut(line, " ")
		if program != "busctl" && program != "gdbus" || strings.HasPrefix(line, "gdbus monitor") { // which does not end
			continue
		}
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+b.socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s%v: %s", line, err, out)
		}
		shown[program]++
	}
	if shown["busctl"] < 4 || shown["gdbus"] < 2 {
		t.Errorf("the page shows %v", shown)
	}
	if got := s.latest(); got.method != "SetPolicy" || got.args != "-|-|02:00-05:00|-" {
		t.Errorf("what came last is %+v", got)
	}
}
