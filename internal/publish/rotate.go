package publish

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/trust"
)

// Rotated is what a change of keys came to.
type Rotated struct {
	Root   int64  `json:"root"`   // version of the new root
	Role   string `json:"role"`   // root, targets or online
	Old    string `json:"old"`    // id of the key that counts no longer
	New    string `json:"new"`    // id of the one in its place
	File   string `json:"file"`   // where the new one is
	Notice string `json:"notice"` // what is left to do
}

// Rotate puts a new key in the place of one of a role's, by a new root that old
// keys and new ones sign, so that clients go along by themselves. which is the
// file of the key to replace or the beginning of its id; "" is the oldest. Its
// private half may be lost, as long as enough root keys are at hand.
func (r *Repository) Rotate(ctx context.Context, role, which string) (*Rotated, error) {
	names, err := tufRoles(role)
	if err != nil {
		return nil, err
	}
	release, err := r.lock()
	if err != nil {
		return nil, err
	}
	defer release()
	st, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	if st.timestamp.Signed.Version == 0 {
		return nil, fault.New(fault.NotFound, "no_repository", "there is no repository in %s", r.Dir).On("repository").
			Try("keys that signed nothing yet are made anew: `keys init` in another directory")
	}
	if _, err := r.signers(st.root.Signed, metadata.ROOT); err != nil {
		return nil, err
	}
	old, err := r.pick(st.root.Signed, names[0], which)
	if err != nil {
		return nil, err
	}
	return r.rotate(ctx, st, role, names, old)
}

// pick finds the key to replace.
func (r *Repository) pick(root metadata.RootType, name, which string) (id string, err error) {
	ids := root.Roles[name].KeyIDs
	if which == "" {
		return ids[0], nil
	}
	for _, id := range ids {
		i := slices.IndexFunc(r.Keys.all, func(k key) bool { return k.id == id })
		if i >= 0 && strings.TrimSuffix(r.Keys.all[i].file, keyFiles) == strings.TrimSuffix(which, keyFiles) || len(which) >= 8 && strings.HasPrefix(id, which) {
			return id, nil
		}
	}
	return "", fault.New(fault.NotFound, "unknown_key", "%q is no key of the role %s", fault.Short(which), name).On("key").
		Try("`whisper-appliance-release keys list` shows them")
}

// rotate writes what the new key signs before the root that appoints it, signed
// by the old key as well: at every moment it is good under the root of that
// moment. Where the old key is lost that cannot be, and clients that ask between
// the last two files have to ask again.
func (r *Repository) rotate(ctx context.Context, st *state, role string, names []string, old string) (*Rotated, error) {
	next, fresh, err := r.nextRoot(st.root, role, names, old)
	if err != nil {
		return nil, err
	}
	rootData, err := encode(next)
	if err != nil {
		return nil, err
	}
	rootFile := file{r.metadataPath(next.Signed.Version, metadata.ROOT), rootData}
	files := []file{rootFile}
	if role != Root {
		s, lost, err := r.bothSigners(st.root.Signed, next.Signed, role == Targets)
		if err != nil {
			return nil, err
		}
		if files, err = r.renew(st, s, role == Targets); err != nil {
			return nil, err
		}
		if lost {
			files = slices.Insert(files, len(files)-1, rootFile)
		} else {
			files = append(files, rootFile)
		}
	}
	if err := r.put(files...); err != nil {
		return nil, err
	}
	if err := r.Keys.keepRoot(next); err != nil {
		return nil, err
	}
	if _, err := (&trust.Store{Root: r.Keys.root, Now: r.Now}).Refresh(ctx, trust.Directory(r.Dir)); err != nil {
		return nil, fmt.Errorf("what was published does not verify: %w", err)
	}
	return &Rotated{
		Root: next.Signed.Version, Role: role, Old: old, New: fresh.id, File: filepath.Join(r.Keys.Dir, fresh.file),
		Notice: "publish the repository as ever; keep the old key until every client had time to look, then destroy it",
	}, nil
}

// nextRoot makes the new key, and the root that has it in the old one's place.
func (r *Repository) nextRoot(root *metadata.Metadata[metadata.RootType], role string, names []string, old string) (*metadata.Metadata[metadata.RootType], key, error) {
	data, err := encode(root)
	if err != nil {
		return nil, key{}, err
	}
	next, err := new(metadata.Metadata[metadata.RootType]).FromBytes(data)
	if err != nil {
		return nil, key{}, err
	}
	name, err := r.Keys.free(role)
	if err != nil {
		return nil, key{}, err
	}
	fresh, err := r.Keys.make(name)
	if err != nil {
		return nil, key{}, err
	}
	for _, n := range names {
		if err := next.Signed.RevokeKey(old, n); err != nil {
			return nil, key{}, err
		}
	}
	if err := appoint(&next.Signed, role, fresh); err != nil {
		return nil, key{}, err
	}
	next.Signed.Version++
	next.Signed.Expires = until(r.now(), rootLife)
	if _, err := r.signers(next.Signed, metadata.ROOT); err != nil {
		return nil, key{}, err
	}
	signing := append(r.Keys.of(root.Signed, metadata.ROOT), r.Keys.of(next.Signed, metadata.ROOT)...)
	return next, fresh, signAll(next, signing)
}

// bothSigners are the keys of the old root and of the new one. lost tells that
// those of the old one do not suffice.
func (r *Repository) bothSigners(old, next metadata.RootType, withTargets bool) (s signers, lost bool, err error) {
	roles := []string{metadata.SNAPSHOT, metadata.TIMESTAMP}
	if withTargets {
		roles = append(roles, metadata.TARGETS)
	}
	if s, err = r.signers(next, roles...); err != nil {
		return nil, false, err
	}
	for _, role := range roles {
		before := r.Keys.of(old, role)
		lost = lost || len(before) < old.Roles[role].Threshold
		s[role] = append(s[role], before...)
	}
	return s, lost, nil
}
