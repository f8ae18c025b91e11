package trust

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// maxDepth is more than any metadata nest.
const maxDepth = 32

// plain refuses what TUF's own types stumble over, before a signature was seen:
// null in place of an object ends their decoder in a panic.
func plain(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	for depth := 0; ; {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch token {
		case nil:
			return errors.New("there is a null in it")
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth > maxDepth {
			return errors.New("it nests too deep")
		}
	}
}

// parse reads metadata of one role, and believes nothing of it.
func parse[T metadata.Roles](name string, data []byte) (*metadata.Metadata[T], error) {
	err := plain(data)
	var m *metadata.Metadata[T]
	if err == nil {
		m, err = new(metadata.Metadata[T]).FromBytes(data)
	}
	if err != nil {
		return nil, refused("bad_metadata", name, "is no metadata that can be relied on", err)
	}
	return m, nil
}

// parseRoot holds the keys and roles of a root against what may be.
func parseRoot(name string, data []byte) (*metadata.Metadata[metadata.RootType], error) {
	m, err := parse[metadata.RootType](name, data)
	if err != nil {
		return nil, err
	}
	if err := checkRoot(m.Signed); err != nil {
		return nil, refused("bad_metadata", name, "is no root that can be relied on", err)
	}
	return m, nil
}

func checkRoot(r metadata.RootType) error {
	if r.Version < 1 || !r.ConsistentSnapshot {
		return errors.New("its version is below 1, or its snapshots are not consistent")
	}
	for id, key := range r.Keys {
		// Of another length it would end the signature's check in a panic.
		public, err := hex.DecodeString(key.Value.PublicKey)
		if key.Type != metadata.KeyTypeEd25519 || key.Scheme != metadata.KeySchemeEd25519 || err != nil || len(public) != 32 {
			return fmt.Errorf("key %.8s is no ed25519 key", id)
		}
	}
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		r, there := r.Roles[role]
		if !there || r.Threshold < 1 || len(r.KeyIDs) < r.Threshold {
			return fmt.Errorf("the role %s has not enough keys", role)
		}
	}
	return nil
}

// lists tells whether metadata of that name are listed, with a version.
func lists(meta map[string]*metadata.MetaFiles, name string) bool {
	listed, there := meta[name]
	return there && listed.Version >= 1 && listed.Length >= 0
}

// isListed tells whether data, of that version, are what was listed.
func isListed(listed *metadata.MetaFiles, version int64, data []byte) bool {
	return version == listed.Version && listed.VerifyLengthHashes(data) == nil
}

func unsigned(name string, err error) error {
	return refused("bad_signature", name, "is not signed with the keys that are trusted", err)
}

// CheckRoot is nil for metadata that can be a root of trust: in good form, and
// signed by its own keys.
func CheckRoot(data []byte) error {
	_, err := newClient(data)
	return err
}
