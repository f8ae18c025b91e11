// Package fault is the error that a person gets to read: what happened, which
// field is to blame, and what to try. The CLI turns its Kind into an exit code
// and the server into a status code, so one failure has the same words through
// every door. What many messages say, a size, an address or the nearest right
// name, is worded here as well, and a stranger's words are made plain. It decides
// nothing else and touches nothing.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind is the class of a failure.
type Kind int

// The kinds, each with the HTTP status it becomes.
const (
	Internal     Kind = iota // 500: our mistake
	BadInput                 // 400: the caller's; Field names what to change
	Unauthorized             // 401: no key, or a wrong one
	Forbidden                // 403: a good key, but not for this
	NotFound                 // 404
	Conflict                 // 409: not in this state
	TooLarge                 // 413: over a limit that Message names
	Unsupported              // 415: media that nothing here can read
	Busy                     // 429: full; try again
	Unavailable              // 503: a part is missing or down
	Canceled                 // 499: the caller left
	NoSpace                  // 507: disk or memory will not hold it
)

// Status is the HTTP status of a kind.
func (k Kind) Status() int {
	if s, ok := statuses()[k]; ok {
		return s
	}
	return 500
}

// OfStatus is the kind that an HTTP status stands for, Internal where none does.
func OfStatus(status int) Kind {
	for k, s := range statuses() {
		if s == status {
			return k
		}
	}
	return Internal
}

func statuses() map[Kind]int {
	return map[Kind]int{
		Internal: 500, BadInput: 400, Unauthorized: 401, Forbidden: 403, NotFound: 404, Conflict: 409,
		TooLarge: 413, Unsupported: 415, Busy: 429, Unavailable: 503, Canceled: 499, NoSpace: 507,
	}
}

// Error is a failure with words for people.
type Error struct {
	Kind    Kind
	Code    string        // stable, snake_case, for programs: "unknown_model"
	Field   string        // request field, flag or configuration key; "" where none is to blame
	Message string        // one sentence, no full stop needed: what happened
	Hint    string        // what to try; "" where there is nothing to try
	Err     error         // the cause, for the log
	After   time.Duration // when trying again may help; 0 = not known
}

// Error gives message and cause; the hint is printed apart (see Hint).
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an Error with a formatted message.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// On names the field to blame.
func (e *Error) On(field string) *Error { e.Field = field; return e }

// Try sets the hint.
func (e *Error) Try(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Because sets the cause.
func (e *Error) Because(err error) *Error { e.Err = err; return e }

// KindOf is the kind of the first Error in err's chain, Internal where there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Hint is the hint of the first Error in err's chain that has one.
func Hint(err error) string {
	var e *Error
	for errors.As(err, &e) {
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
