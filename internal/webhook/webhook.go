// Package webhook tells receivers that something has happened, as the Standard
// Webhooks specification has it: a POST with the event as JSON, an id that is the
// same at each attempt, the time, and a signature over all three with a secret
// that both sides have.
//
// It trusts the file of secrets and nobody who answers: of an answer its status
// and its wish for a pause are read. Where messages may be sent to is package
// outbound's to judge. It writes nothing.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/outbound"
)

// CodeGone is the code of a receiver that wants no more of it, and CodeSecret of
// what cannot be signed: nothing has been sent then.
const (
	CodeGone   = "webhook_gone"
	CodeSecret = "webhook_secret"
)

// Message is one event for one receiver.
type Message struct {
	ID   string // by which the receiver knows it again
	To   string // an address
	Body []byte // JSON
}

// Sender sends messages. Its fields are set before its first use.
type Sender struct {
	Places *outbound.Places // of receivers
	Secret func() string    // path of the file of secrets
	Now    func() time.Time // the clock, for tests; nil = the machine's
}

// Check refuses a receiver that may not be sent to, or to which nothing could be
// signed.
//
// Faults: outbound.Places.Check's; webhook_secret (Unavailable).
func (s *Sender) Check(address string) error {
	if _, err := s.Places.Check(address); err != nil {
		return err
	}
	_, err := s.secrets()
	return err
}

// answerRead is how much of an answer is read, for nothing but its end.
const answerRead = 4 << 10

// Send makes one attempt. It is nil where the receiver has taken the message.
//
// Faults: outbound.Places.Do's; webhook_secret, webhook_refused (Unavailable; its
// After is the receiver's wish), webhook_gone (Conflict).
func (s *Sender) Send(ctx context.Context, m Message) error {
	secrets, err := s.secrets()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.To, bytes.NewReader(m.Body))
	if err != nil {
		return fault.New(fault.BadInput, "bad_url", "the webhook is no address").On(s.Places.Field)
	}
	sign(req.Header, secrets, m, s.now())
	resp, err := s.Places.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, answerRead) //nolint:errcheck // the status has come
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusGone:
		return fault.New(fault.Conflict, CodeGone, "the receiver wants no more of it: 410 Gone").On(s.Places.Field)
	default:
		f := fault.New(fault.Unavailable, "webhook_refused", "the receiver answers %d %s", code, http.StatusText(code)).On(s.Places.Field)
		f.After = outbound.RetryAfter(resp.Header, longestWish)
		return f
	}
}

func (s *Sender) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// sign sets a message's headers. There is a signature by each secret, so that one
// can be replaced by another while receivers know either.
func sign(h http.Header, secrets [][]byte, m Message, at time.Time) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	var signatures []string
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s.%s", m.ID, stamp, m.Body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	h.Set("Content-Type", "application/json")
	h["webhook-id"], h["webhook-timestamp"] = []string{m.ID}, []string{stamp}
	h["webhook-signature"] = []string{strings.Join(signatures, " ")}
}

// Bounds of a secret, in bytes, as the specification has them, and of its file.
const (
	secretPrefix = "whsec_"
	shortest     = 24
	longest      = 64
	mostFile     = 4 << 10
)

// secrets are read anew each time: who replaces one restarts nothing. What is wrong
// with them, and where they are, is for the log.
func (s *Sender) secrets() ([][]byte, error) {
	path := s.Secret()
	bad := func(err error) error {
		return fault.New(fault.Unavailable, CodeSecret, "webhooks cannot be signed just now").On(s.Places.Field).
			Because(fmt.Errorf("the secret: %w; let %s hold a line such as %s and the base64 of %d random bytes, for the server's user alone to read", err, path, secretPrefix, shortest+8)).
			Try("an administrator mends the file that webhook_secret_file in [outbound] names; the log says what is wrong with it")
	}
	data, err := durable.ReadRegular(path, mostFile)
	if err != nil {
		return nil, bad(err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o007 != 0 {
		return nil, bad(errors.New("everybody on this machine may read or write it"))
	}
	var all [][]byte
	for line := range strings.FieldsSeq(string(data)) {
		secret, err := ParseSecret(line)
		if err != nil {
			return nil, bad(err)
		}
		all = append(all, secret)
	}
	if len(all) == 0 {
		return nil, bad(errors.New("it is empty"))
	}
	return all, nil
}

// ParseSecret reads a secret as it is written down, "whsec_" and base64. Its
// errors say nothing of it.
func ParseSecret(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return nil, fmt.Errorf("it does not begin with %s", secretPrefix)
	}
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("what follows is no base64")
	}
	if len(secret) < shortest || len(secret) > longest {
		return nil, fmt.Errorf("it has %d bytes, and should have %d to %d", len(secret), shortest, longest)
	}
	return secret, nil
}

// longestWish is the most that a receiver's wish for a pause counts.
const longestWish = time.Hour

// pauses are those after each attempt that failed, about a day in all.
func pauses() []time.Duration {
	return []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour, 10 * time.Hour}
}

// Again is when a message is sent again whose n-th attempt, from 1, came to err;
// more is false where it is given up. Pauses are spread, so that many that failed
// at once do not come back at once.
func Again(n int, err error) (pause time.Duration, more bool) {
	var f *fault.Error
	errors.As(err, &f)
	all := pauses()
	if n > len(all) || f != nil && f.Code == CodeGone {
		return 0, false
	}
	pause = all[max(n, 1)-1]
	pause += time.Duration(rand.Int64N(int64(pause)/4 + 1))
	if f != nil {
		pause = max(pause, min(f.After, longestWish))
	}
	return pause, true
}
