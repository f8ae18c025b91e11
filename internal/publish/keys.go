package publish

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/trust"
)

// What keys sign, as people say it. TUF's roles snapshot and timestamp share
// one key, since both have to be at hand whenever the short metadata are
// renewed.
const (
	Root    = "root"    // who may sign what; kept offline
	Targets = "targets" // which releases there are; kept offline
	Online  = "online"  // that this is the newest state
)

// RootName is the file beside the keys that says whose signatures count: what
// the package carries as its root of trust. It is no secret.
const RootName = "root.json"

const (
	keyType  = "PRIVATE KEY"
	keyPerm  = 0o600
	maxKey   = 16 << 10 // bytes
	keyFiles = ".pem"
)

// tufRoles are those of TUF that the keys of a role sign.
func tufRoles(role string) ([]string, error) {
	switch role {
	case Root:
		return []string{metadata.ROOT}, nil
	case Targets:
		return []string{metadata.TARGETS}, nil
	case Online:
		return []string{metadata.SNAPSHOT, metadata.TIMESTAMP}, nil
	}
	return nil, fault.New(fault.BadInput, "unknown_role", "there is no role %q", fault.Short(role)).On("role").
		Try("the roles are %s, %s and %s", Root, Targets, Online)
}

// Keys are the private keys in a directory, of which a machine needs only those
// that it works with, and the root that says what each may sign.
type Keys struct {
	Dir  string
	root []byte // metadata
	all  []key  // by file name
}

// key is one private key.
type key struct {
	file   string // its name in the directory
	id     string // as TUF calls it, hex digits
	public *metadata.Key
	signer signature.Signer
}

// Key is what may be told of a key.
type Key struct {
	ID    string   `json:"id"`             // hex digits
	File  string   `json:"file,omitempty"` // "" where the private key is not in this directory
	Roles []string `json:"roles"`          // what it signs; empty for one that was replaced, or never used
}

// InitKeys makes keys in dir, which must hold none: root-1 and root-2, targets,
// online, and the root of trust that names them. threshold is how many of the
// root keys have to sign a new root, 1 or 2.
func InitKeys(dir string, threshold int, now time.Time) (*Keys, error) {
	if threshold < 1 || threshold > 2 {
		return nil, fault.New(fault.BadInput, "bad_threshold", "%d of 2 root keys cannot sign", threshold).On("threshold").Try("1 or 2")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, cannotWrite(dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == RootName || filepath.Ext(e.Name()) == keyFiles }) {
		return nil, fault.New(fault.Conflict, "keys_exist", "%s holds keys already", dir).On("dir").
			Try("`keys rotate` replaces one. New ones need another directory, and machines that trust the old ones refuse what they sign. Keys without a %s are of an init that was cut off: remove them", RootName)
	}
	root := metadata.Root(until(now, rootLife))
	root.Signed.Roles[metadata.ROOT].Threshold = threshold
	k := &Keys{Dir: dir}
	for _, made := range []struct{ file, role string }{{"root-1", Root}, {"root-2", Root}, {"targets", Targets}, {"online", Online}} {
		added, err := k.make(made.file)
		if err != nil {
			return nil, err
		}
		if err := appoint(&root.Signed, made.role, added); err != nil {
			return nil, err
		}
	}
	if err := signAll(root, k.of(root.Signed, metadata.ROOT)); err != nil {
		return nil, err
	}
	return k, k.keepRoot(root)
}

// keepRoot makes root the one that counts.
func (k *Keys) keepRoot(root *metadata.Metadata[metadata.RootType]) error {
	data, err := encode(root)
	if err != nil {
		return err
	}
	path := filepath.Join(k.Dir, RootName)
	if err := durable.WriteFile(path, data, 0o644); err != nil {
		return cannotWrite(path, err)
	}
	k.root = data
	return nil
}

// make adds a new key, in a file of that name or of the first like it that is
// free.
func (k *Keys) make(name string) (key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return key{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return key{}, err
	}
	path := filepath.Join(k.Dir, name+keyFiles)
	if err := durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der}), keyPerm); err != nil {
		return key{}, cannotWrite(path, err)
	}
	made, err := newKey(name+keyFiles, private)
	if err == nil {
		k.all = append(k.all, made)
	}
	return made, err
}

// free is a name for another key of a role: "root-3", "targets-2".
func (k *Keys) free(role string) (string, error) {
	for n := 1; ; n++ {
		name := role + "-" + strconv.Itoa(n)
		if n == 1 && role != Root {
			name = role
		}
		switch _, err := os.Lstat(filepath.Join(k.Dir, name+keyFiles)); {
		case errors.Is(err, fs.ErrNotExist):
			return name, nil
		case err != nil:
			return "", err
		}
	}
}

func newKey(file string, private ed25519.PrivateKey) (key, error) {
	signer, err := signature.LoadED25519Signer(private)
	if err != nil {
		return key{}, err
	}
	public, err := metadata.KeyFromPublicKey(private.Public())
	if err != nil {
		return key{}, err
	}
	id, err := public.ID()
	return key{file: file, id: id, public: public, signer: signer}, err
}

// LoadKeys reads the keys in dir. One that others may read is refused, since it
// may be theirs by now.
func LoadKeys(dir string) (*Keys, error) {
	k := &Keys{Dir: dir}
	var err error
	k.root, err = durable.ReadRegular(filepath.Join(dir, RootName), maxRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "no_keys", "there are no keys in %s: it has no %s", dir, RootName).On("keys").
			Try("name their directory with --keys, or make some: `whisper-appliance-release keys init --dir DIR`")
	}
	if err != nil {
		return nil, err
	}
	if _, err := k.trusted(); err != nil {
		return nil, fault.New(fault.BadInput, "bad_root", "%s cannot be relied on", filepath.Join(dir, RootName)).Because(err).
			Try("put back the one that was made with the keys; the newest is in the repository, too: metadata/N.root.json")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != keyFiles || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		one, err := loadKey(dir, e.Name())
		if err != nil {
			return nil, err
		}
		k.all = append(k.all, one)
	}
	return k, nil
}

func loadKey(dir, file string) (key, error) {
	path := filepath.Join(dir, file)
	info, err := os.Stat(path)
	if err != nil {
		return key{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return key{}, fault.New(fault.Forbidden, "key_readable", "others than its owner may read or write %s (mode %04o)", path, info.Mode().Perm()).
			On("keys").Try("`chmod 600 %s`; if anybody else had access to this machine, replace it: `keys rotate`", path)
	}
	data, err := durable.ReadRegular(path, maxKey)
	if err != nil {
		return key{}, err
	}
	private, err := decodeKey(data)
	if err != nil {
		return key{}, fault.New(fault.BadInput, "bad_key", "%s is no private key of kind ed25519", path).Because(err).On("keys").
			Try("take it out of the directory, or put back a good copy")
	}
	return newKey(file, private)
}

func decodeKey(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyType {
		return nil, fmt.Errorf("there is no PEM block %q in it", keyType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T", parsed)
	}
	return private, nil
}

// Root is the metadata that say whose signatures count.
func (k *Keys) Root() []byte { return slices.Clone(k.root) }

// trusted is the root, after a look at its form and signatures.
func (k *Keys) trusted() (*metadata.Metadata[metadata.RootType], error) {
	if err := trust.CheckRoot(k.root); err != nil {
		return nil, err
	}
	return new(metadata.Metadata[metadata.RootType]).FromBytes(k.root)
}

// of are those of the keys at hand that sign a role of TUF.
func (k *Keys) of(root metadata.RootType, role string) (found []key) {
	for _, one := range k.all {
		if slices.Contains(root.Roles[role].KeyIDs, one.id) {
			found = append(found, one)
		}
	}
	return found
}

// List tells of every key, of those in the directory and those that the root
// names.
func (k *Keys) List() ([]Key, error) {
	root, err := k.trusted()
	if err != nil {
		return nil, err
	}
	var list []Key
	for _, one := range k.all {
		list = append(list, Key{ID: one.id, File: one.file, Roles: rolesOf(root.Signed, one.id)})
	}
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.TIMESTAMP, metadata.SNAPSHOT} {
		for _, id := range root.Signed.Roles[role].KeyIDs {
			if !slices.ContainsFunc(list, func(k Key) bool { return k.ID == id }) {
				list = append(list, Key{ID: id, Roles: rolesOf(root.Signed, id)})
			}
		}
	}
	return list, nil
}

func rolesOf(root metadata.RootType, id string) []string {
	found := []string{}
	for _, role := range []string{Root, Targets, Online} {
		names, err := tufRoles(role)
		if err == nil && slices.ContainsFunc(names, func(n string) bool { return slices.Contains(root.Roles[n].KeyIDs, id) }) {
			found = append(found, role)
		}
	}
	return found
}

// appoint lets k sign for a role.
func appoint(root *metadata.RootType, role string, k key) error {
	names, err := tufRoles(role)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := root.AddKey(k.public, name); err != nil {
			return err
		}
	}
	return nil
}
