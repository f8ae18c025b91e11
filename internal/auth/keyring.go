package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// checkEvery is how often the keys file is looked at, at most.
const checkEvery = time.Second

// Keyring is the keys of a file, read again when the file changes. It is safe
// for concurrent use.
type Keyring struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	mu      sync.Mutex
	checked time.Time
	seen    os.FileInfo // as of the last reading; nil where there was none to be seen
	keys    []Key
	broken  error // why the file cannot be used; nil where it can, or is not there
}

// NewKeyring is the keyring of the file at path, which is read at the first
// Find and need not exist. What is wrong with it goes to log.
func NewKeyring(path string, log *slog.Logger) *Keyring {
	return &Keyring{path: path, log: log, now: time.Now}
}

// Find gives the key whose plaintext is given. How long it takes does not
// depend on which key fits, or how nearly.
func (r *Keyring) Find(plaintext string) (Key, bool) {
	sum := sha256.Sum256([]byte(plaintext))
	var found Key
	var ok bool
	for _, k := range r.current() {
		digest, _ := k.digest()
		if subtle.ConstantTimeCompare(sum[:], digest) == 1 {
			found, ok = k, true
		}
	}
	return found, ok
}

// current is the keys as the file has them, not older than checkEvery.
func (r *Keyring) current() []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if !r.checked.IsZero() && now.Sub(r.checked) < checkEvery {
		return r.keys
	}
	first := r.checked.IsZero()
	r.checked = now
	info, err := os.Stat(r.path)
	if err != nil {
		info = nil
	}
	if !first && same(info, r.seen) {
		return r.keys
	}
	r.seen = info
	r.keys, r.broken = r.read()
	return r.keys
}

// Err is why the file cannot be used, nil where it can be, or is not there.
func (r *Keyring) Err() error {
	r.current()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

// read gives no keys at all where anything is wrong with the file: half a file
// may lack the removal that somebody relied on.
func (r *Keyring) read() ([]Key, error) {
	keys, err := List(r.path)
	if err != nil {
		r.log.Error("keys file cannot be used; every key is refused", "path", r.path, "error", err)
		return nil, err
	}
	return keys, nil
}

// same reports whether the file was neither replaced nor changed in between,
// nor its mode, which decides whether it can be read.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	was, ok := a.Sys().(*syscall.Stat_t)
	is, ok2 := b.Sys().(*syscall.Stat_t)
	return ok && ok2 && os.SameFile(a, b) && was.Mtim == is.Mtim && was.Ctim == is.Ctim && was.Size == is.Size
}
