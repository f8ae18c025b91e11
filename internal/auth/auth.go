// Package auth decides who may do what. Keys live in a file of hashes that the
// CLI writes and Keyring reads; Judge weighs where a request comes from and
// what key it carries. It trusts the address of the connection and the user
// that the kernel names on a Unix socket, and a proxy's headers only where the
// settings name the proxy. Without proof it refuses: a keys file that cannot
// be read opens nothing.
package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
)

// Scope is what a key is good for.
type Scope string

// The scopes. Admin includes Transcribe.
const (
	Transcribe Scope = "transcribe" // speech to text, and what it needs to know
	Admin      Scope = "admin"      // whatever changes the appliance
)

// prefix begins every key, so that people and scanners know one when they see it.
const prefix = "wa_"

// Key is an API key as it is kept: without the key itself.
type Key struct {
	Name    string    `toml:"name" json:"name"`
	Hash    string    `toml:"hash" json:"-"` // "sha256:" and 64 hexadecimal digits
	Scopes  []Scope   `toml:"scopes" json:"scopes"`
	Created time.Time `toml:"created" json:"created"`
}

// Has reports whether the key is good for scope.
func (k Key) Has(scope Scope) bool {
	return slices.Contains(k.Scopes, scope) || slices.Contains(k.Scopes, Admin)
}

// New makes a key. The plaintext is given here and nowhere else; with 256
// random bits in it a plain hash is all that keeping it needs. The error is a
// fault: a bad name, no scope, an unknown one.
func New(name string, scopes []Scope, now time.Time) (plaintext string, k Key, err error) {
	random := make([]byte, 32)
	rand.Read(random) // never fails
	plaintext = prefix + base64.RawURLEncoding.EncodeToString(random)
	k = Key{Name: name, Hash: hashOf(plaintext), Scopes: slices.Compact(slices.Sorted(slices.Values(scopes))), Created: now.UTC().Truncate(time.Second)}
	if err := k.check(); err != nil {
		return "", Key{}, err
	}
	return plaintext, k, nil
}

func hashOf(plaintext string) string {
	sum := sha256.Sum256([]byte(plaintext))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// digest is the hash in bytes, false where Hash is not as it should be.
func (k Key) digest() ([]byte, bool) {
	digits, ok := strings.CutPrefix(k.Hash, "sha256:")
	sum, err := hex.DecodeString(digits)
	return sum, ok && err == nil && len(sum) == sha256.Size
}

// check refuses a key that could not be told from others or used.
func (k Key) check() error {
	if !goodName(k.Name) {
		return fault.New(fault.BadInput, "bad_name", "%q cannot be a key's name; it must be 1 to 64 letters, digits, dots, dashes and underscores", k.Name).On("name")
	}
	if len(k.Scopes) == 0 {
		return fault.New(fault.BadInput, "no_scope", "the key %s would be good for nothing; give it the scope transcribe or admin", k.Name).On("scope")
	}
	for _, s := range k.Scopes {
		if s != Transcribe && s != Admin {
			return fault.New(fault.BadInput, "unknown_scope", "there is no scope %q; it must be transcribe or admin", s).On("scope")
		}
	}
	if _, ok := k.digest(); !ok {
		return fault.New(fault.BadInput, "bad_hash", `the hash of the key %s must be "sha256:" and 64 hexadecimal digits`, k.Name).On("hash")
	}
	return nil
}

func goodName(s string) bool {
	for _, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (r < '0' || r > '9') && !strings.ContainsRune(".-_", r) {
			return false
		}
	}
	return s != "" && len(s) <= 64 && s[0] != '-'
}
