package update

import (
	"slices"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// mostBanned bounds the quarantine; the oldest go first.
const mostBanned = 100

// banned is why a release is refused, by the digest of its manifest or of the
// artefact that it comes in.
func (st *state) banned(digest, artefact string) error {
	for _, q := range st.Banned {
		if digest != "" && q.Digest == digest || artefact != "" && q.Artefact == artefact {
			return fault.New(fault.Conflict, "quarantined", "version %s is quarantined since %s: %s", q.Version, q.At.UTC().Format("2006-01-02 15:04"), q.Says).
				Try("`whisper-appliance update quarantine clear %s` lets it be tried again", q.Version)
		}
	}
	return nil
}

// ban refuses a release from now on.
func (st *state) ban(q deployment.Quarantine) {
	q.Version, q.Says = clip(q.Version), clip(q.Says)
	st.Banned = slices.DeleteFunc(st.Banned, func(o deployment.Quarantine) bool { return o.Digest == q.Digest && o.Artefact == q.Artefact })
	st.Banned = append(st.Banned, q)
	if extra := len(st.Banned) - mostBanned; extra > 0 {
		st.Banned = st.Banned[extra:]
	}
}

// banArtefact refuses, as what is in it is refused, an artefact that was not known
// to hold that: or it would be fetched and unpacked at every look.
func (st *state) banArtefact(digest, artefact string) {
	i := slices.IndexFunc(st.Banned, func(q deployment.Quarantine) bool { return q.Digest == digest })
	if i < 0 || st.banned("", artefact) != nil {
		return
	}
	q := st.Banned[i]
	q.Artefact = artefact
	if st.Banned[i].Artefact == "" {
		st.Banned[i] = q
		return
	}
	st.ban(q)
}

// pardon lets a release be tried again that was committed: dpkg may bring what
// every other door refuses.
func (st *state) pardon(digest string) {
	if digest != "" {
		st.Banned = slices.DeleteFunc(st.Banned, func(q deployment.Quarantine) bool { return q.Digest == digest })
	}
}

// refusal is banned for a switch that looks for a way back.
func (st *state) refusal(m slot.Manifest) error { return st.banned(m.Digest(), "") }

// Unquarantine lets a release be tried again, by version or digest; "" is all.
// It gives how many that were.
func (u *Updater) Unquarantine(which string) (int, error) {
	n := 0
	err := u.change("a change of the quarantine", func(st *state) error {
		before := len(st.Banned)
		st.Banned = slices.DeleteFunc(st.Banned, func(q deployment.Quarantine) bool {
			return which == "" || which == q.Version || which == q.Digest || which == q.Artefact
		})
		if n = before - len(st.Banned); n == 0 && which != "" {
			return fault.New(fault.NotFound, "not_quarantined", "no release %q is quarantined", fault.Short(which)).
				Try("`whisper-appliance update quarantine list` shows which are")
		}
		return nil
	})
	return n, err
}

// Pin holds a version: nothing else is installed by itself. "" holds the one
// that serves.
func (u *Updater) Pin(version string) (string, error) {
	err := u.change("a pin", func(st *state) error {
		if version == "" {
			serving, _ := u.links()
			version = u.release(serving).Version
		}
		if err := validVersion(version); err != nil {
			return err
		}
		st.Pinned = version
		return nil
	})
	return version, err
}

// Unpin lets every version be installed again, the one that a rollback left
// among them.
func (u *Updater) Unpin() error {
	return u.change("an unpin", func(st *state) error {
		st.Pinned, st.Held, st.Hold, st.Hindered = "", "", hold{}, hindered{}
		return nil
	})
}

// change alters what the updater keeps beside its transaction.
func (u *Updater) change(what string, alter func(*state) error) error {
	unlock, err := u.lockState(what)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := u.load()
	if err != nil {
		return err
	}
	if err := alter(st); err != nil {
		return err
	}
	if u.aside() != nil {
		return u.store(st) // the update that waits for its source shows it, with how far that is
	}
	return u.save(st)
}
