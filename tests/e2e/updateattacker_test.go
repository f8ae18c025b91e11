//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/tests/e2e/machine"
)

// as runs a script in the machine as a user, who has no more rights than his
// processes there have by themselves.
func (b *box) as(user, script string, args ...string) machine.Result {
	b.t.Helper()
	return b.Run(b.t.Context(), append([]string{"setpriv", "--reuid=" + user, "--regid=" + user, "--clear-groups", "--no-new-privs", "--", "sh", "-uc", script, "sh"}, args...)...)
}

// ours is the updater on the bus, as busctl names it.
const ours = "org.whisperappliance.Updater1 /org/whisperappliance/Updater1"

// asks has a user ask over the bus, and gives what he is told.
func (b *box) asks(user, what string) machine.Result {
	b.t.Helper()
	return b.as(user, "exec busctl --timeout=60 call "+what)
}

const (
	serverUser  = "whisper-appliance"
	fetcherUser = "whisper-appliance-fetch"
	stranger    = "daemon"
)

// rootsAlone is what nobody but root may ask the updater for.
func rootsAlone() []string {
	const methods = ours + " org.whisperappliance.Updater1 "
	return []string{methods + "Commit", methods + "Pin s 9.9.9", methods + "Unpin", methods + "Unquarantine s ''",
		methods + "InstallFile s /srv/e2e/release.wa", methods + "Nonsense",
		ours + " org.freedesktop.DBus.Properties Set ssv org.whisperappliance.Updater1 State s idle",
		"org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus RequestName su org.whisperappliance.Updater1 7"}
}

// TestUpdateAttacker: who has taken the server's process over can do what the
// server may ask for, and no more; who has taken the fetcher's can do nothing
// that the updater would believe, and anybody else can ask for nothing.
func TestUpdateAttacker(t *testing.T) {
	b := updated(t, sound, older)
	before := b.packaged()
	b.does(nil, "check")
	b.must(`systemctl stop ` + updater) // his first question starts it, or not
	t.Run("denied", func(t *testing.T) {
		b := &box{b.Machine, t, b.client}
		for _, user := range []string{serverUser, fetcherUser, stranger} {
			for _, what := range rootsAlone() {
				if r := b.asks(user, what); r.Code == 0 || !denied(r.Err) {
					t.Errorf("%s: %s: %v", user, what, r)
				}
			}
		}
		const methods = ours + " org.whisperappliance.Updater1 "
		for _, user := range []string{fetcherUser, stranger} {
			for _, what := range []string{methods + "Check", methods + "Download s ''", methods + "Apply s ''", methods + "Rollback", methods + "Cancel", methods + "Restart",
				methods + "SetPolicy a{sv} 0", ours + " org.freedesktop.DBus.Properties GetAll s org.whisperappliance.Updater1"} {
				if r := b.asks(user, what); r.Code == 0 || !denied(r.Err) {
					t.Errorf("%s: %s: %v", user, what, r)
				}
			}
		}
	})
	t.Run("bounded", func(t *testing.T) { (&box{b.Machine, t, b.client}).bounded() })
	t.Run("files", func(t *testing.T) { (&box{b.Machine, t, b.client}).writesNothing() })
	t.Run("forged", func(t *testing.T) { (&box{b.Machine, t, b.client}).forges() })
	b.servesVersion(before)
	if list := b.records(1); len(list) == 1 && list[0].To.Version == sound.Version && list[0].Outcome == deployment.Committed {
		t.Errorf("somebody has come through: %+v", list[0])
	}
}

func denied(said string) bool {
	for _, words := range []string{"Access denied", "AccessDenied", "not allowed", "rejected", "denied"} {
		if strings.Contains(said, words) {
			return true
		}
	}
	return false
}

// bounded holds what the server's user may ask for to its bounds.
func (b *box) bounded() {
	const methods = ours + " org.whisperappliance.Updater1 "
	for what, want := range map[string]string{
		methods + "Apply s " + older.Version:                                   "not been offered",
		methods + "Apply s 9.9.9":                                              "not been offered",
		methods + "Apply s ../../../etc":                                       "not been offered",
		methods + "Rollback":                                                   "no release to go back to",
		methods + "Cancel":                                                     "no update is under way",
		methods + `SetPolicy a{sv} 1 channel s nightly`:                        "channel",
		methods + `SetPolicy a{sv} 1 window s 25:00-26:00`:                     "window",
		methods + `SetPolicy a{sv} 1 automatic s always`:                       "automatic",
		methods + `SetPolicy a{sv} 1 days as 1 someday`:                        "day",
		methods + `SetPolicy a{sv} 1 sources as 1 http://evil.example`:         "sources",
		methods + `SetPolicy a{sv} 1 channel u 7`:                              "channel",
		methods + "Download s '" + strings.Repeat("9", 5000) + "'":             "version",
		methods + "Apply ss 1.1.0 --force":                                     "",
		ours + " org.freedesktop.DBus.Properties Get ss a.b State":             "",
		"org.whisperappliance.Updater1 / org.freedesktop.DBus.Peer Ping extra": "",
	} {
		r := b.asks(serverUser, what)
		if r.Code == 0 || !strings.Contains(r.Err, want) || strings.Contains(r.Err, "goroutine") {
			b.t.Errorf("%s: want %q: %v", what, want, r)
		}
	}
	for _, what := range []string{methods + "Check", ours + " org.freedesktop.DBus.Properties GetAll s org.whisperappliance.Updater1"} {
		if r := b.asks(serverUser, what); r.Code != 0 {
			b.t.Errorf("%s: %v", what, r)
		}
	}
}

// writesNothing has both users try to write what root reads or runs.
func (b *box) writesNothing() {
	for user, theirs := range map[string]string{serverUser: "/var/lib/whisper-appliance", fetcherUser: "/var/lib/whisper-appliance-fetch"} {
		for _, path := range []string{stateDir + "/state.json", stateDir + "/policy.json", stateDir + "/deployments.jsonl", stateDir + "/new", stateDir + "/trust/new", stateDir + "/lock",
			"/run/whisper-appliance-updater/order/request.json", "/run/whisper-appliance-updater/status.json", "/run/whisper-appliance-updater/new",
			"/opt/whisper-appliance/new", "/opt/whisper-appliance/slots/a/new", "/opt/whisper-appliance/slots/a/bin/whisper-appliance-server", "/opt/whisper-appliance/.staging/new",
			"/usr/lib/whisper-appliance/trust/root.json", "/etc/whisper-appliance/config.toml", "/run/whisper-appliance-gate/whisper-appliance",
			"/var/lib/whisper-appliance-fetch/result.json", "/var/lib/whisper-appliance-fetch/repository/targets/new", "/var/lib/whisper-appliance/models/new"} {
			if strings.HasPrefix(path, theirs+"/") {
				continue
			}
			if r := b.as(user, `echo forged >"$1"`, path); r.Code == 0 {
				b.t.Errorf("%s may write %s", user, path)
			}
		}
		if r := b.as(user, `ln -sfn /tmp /opt/whisper-appliance/current || rm -f /opt/whisper-appliance/stable || mv /opt/whisper-appliance/stable /opt/whisper-appliance/current`); r.Code == 0 {
			b.t.Errorf("%s may move the links", user)
		}
		if r := b.as(user, `exec whisper-appliance update apply`); r.Code != 77 {
			b.t.Errorf("%s: `update apply` ends with %v", user, r)
		}
		if r := b.as(user, `exec flock --nonblock `+stateDir+`/lock true`); r.Code == 0 {
			b.t.Errorf("%s may hold the updater's lock", user)
		}
	}
	b.must(`systemctl is-active whisper-appliance.service`)
}

// forges has the fetcher's user answer the updater with what he likes.
func (b *box) forges() {
	const address = "http://127.0.0.1:8412"
	b.configure(strings.Replace(settingsOf, offersIn, address, 1))
	d := b.depot(strings.TrimPrefix(address, "http://"), false)
	b.does(nil, "check")
	name, err := shop(b.t).Target(b.t.Context(), sound)
	if err != nil {
		b.t.Fatal(err)
	}
	// The unit does nothing any more: what lies there is the forger's.
	b.must(`mkdir -p /run/systemd/system/whisper-appliance-fetch.service.d
		printf '[Service]\nExecStart=\nExecStart=/bin/true\n' >/run/systemd/system/whisper-appliance-fetch.service.d/99-e2e.conf
		systemctl daemon-reload`)
	defer b.must(`rm /run/systemd/system/whisper-appliance-fetch.service.d/99-e2e.conf; systemctl daemon-reload
		rm -rf /var/lib/whisper-appliance-fetch/*`)
	const here = "cd /var/lib/whisper-appliance-fetch && rm -rf result.json repository && "
	for script, says := range map[string]string{
		`ln -s /etc/shadow result.json`:           "",
		`mkfifo result.json`:                      "",
		`head -c 30000000 /dev/zero >result.json`: "",
		`printf '{"error":{"code":"damaged_release","message":"\033[2Jgone"}}' >result.json`: "",
		`echo '{}' >result.json; ln -s / repository`:                                         "",
		`mkdir -p repository/metadata; echo '{}' >repository/metadata/timestamp.json`:        "",
		`mkdir -p repository/targets; ln -sfn /etc/shadow repository/` + name:                "",
		`mkdir -p repository/targets; head -c 100 /dev/zero >repository/` + name:             "",
		`mkdir -p repository/targets; mkfifo repository/` + name:                             "",
		`mkdir -p repository/metadata; mkfifo repository/metadata/timestamp.json`:            "",
	} {
		if r := b.as(fetcherUser, here+script); r.Code != 0 {
			b.t.Fatalf("%s: %v", script, r)
		}
		r := b.update("apply", sound.Version, "--json")
		if r.Code == 0 || strings.Contains(r.Err, "\x1b") || strings.Contains(r.Err, "root:") || !strings.Contains(r.Err, says) {
			b.t.Errorf("%s: %v", script, r)
		}
		if s := b.status(); len(s.Quarantined) != 0 || s.Transaction != "" {
			b.t.Errorf("%s: quarantined %+v, %+v", script, s.Quarantined, s.State)
		}
	}
	d.Close()
}
