package updaterd

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/fault"
)

// errorPrefix begins the names of our errors. Kind and code follow, and the
// field where one is to blame: …Error.Conflict.locked.window. The body is one
// string, because that is all that gdbus and busctl show: the message, and the
// hint in a line of its own.
const errorPrefix = Interface + ".Error."

func kindNames() map[fault.Kind]string {
	return map[fault.Kind]string{
		fault.Internal: "Internal", fault.BadInput: "BadInput", fault.Unauthorized: "Unauthorized", fault.Forbidden: "Forbidden",
		fault.NotFound: "NotFound", fault.Conflict: "Conflict", fault.TooLarge: "TooLarge", fault.Unsupported: "Unsupported",
		fault.Busy: "Busy", fault.Unavailable: "Unavailable", fault.Canceled: "Canceled", fault.NoSpace: "NoSpace",
	}
}

// onBus is err as a caller gets it. What is no fault is our mistake, and stays here.
func onBus(err error) error {
	if wordedForBus(err) {
		return err
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		f = fault.New(fault.Internal, "internal_error", "something went wrong inside the updater").
			Try("see its log: journalctl -u whisper-appliance-updater")
		err = f
	}
	name := errorPrefix + kindNames()[f.Kind]
	for _, part := range []string{f.Code, f.Field} {
		if !nameable(part) {
			break
		}
		name += "." + part
	}
	says := strings.ReplaceAll(clean(f.Message), "\n", " ")
	if hint := clean(fault.Hint(err)); hint != "" {
		says += "\n" + hint
	}
	return dbus.NewError(name, []any{says})
}

// nameable tells whether s may be part of an error's name, which is letters,
// digits and _ in parts between dots, and no longer than 255 bytes.
func nameable(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || part[0] >= '0' && part[0] <= '9' {
			return false
		}
	}
	ok := func(r rune) bool {
		return r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	return len(s) <= 80 && strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0
}

// wordedForBus tells the errors that this package itself words for the bus'
// own interfaces. One that a Handler met with elsewhere is none.
func wordedForBus(err error) bool {
	_, is := err.(*dbus.Error)
	return is
}

// fromBus is an error of a call as the fault that it was.
func fromBus(err error) error {
	var e dbus.Error
	if !errors.As(err, &e) {
		return unreachable(err)
	}
	if name, ours := strings.CutPrefix(e.Name, errorPrefix); ours {
		return faultOf(name, e.Body)
	}
	says := e.Error()
	switch strings.TrimPrefix(e.Name, "org.freedesktop.DBus.Error.") {
	case "AccessDenied", "AuthFailed", "InteractiveAuthorizationRequired":
		return fault.New(fault.Forbidden, CodeDenied, "the bus does not let this user ask the updater for that").Because(err).
			Try("ask as root: `sudo whisper-appliance update …`")
	case "InvalidArgs", "InvalidSignature", "UnknownMethod", "UnknownInterface", "UnknownObject", "UnknownProperty", "NoSuchObject":
		return fault.New(fault.Unsupported, "updater_other", "the updater that answers is of another version: %s", fault.Short(says)).Because(err).
			Try("`apt upgrade` brings the updater that fits; `systemctl restart whisper-appliance-updater` starts it")
	}
	return unreachable(err)
}

// faultOf is the fault in one of our errors, by its name after the prefix and its body.
func faultOf(name string, body []any) error {
	f := fault.New(fault.Internal, "internal_error", "the updater failed and did not say why")
	parts := append(strings.SplitN(name, ".", 3), "", "")
	for k, kind := range kindNames() {
		if kind == parts[0] {
			f.Kind = k
		}
	}
	f.Code, f.Field = cmp.Or(parts[1], f.Code), parts[2]
	if len(body) > 0 {
		if says, ok := body[0].(string); ok && says != "" {
			f.Message, f.Hint, _ = strings.Cut(says, "\n")
		}
	}
	return f
}

// unreachable is for a bus or updater that does not answer. Where the question
// had gone out nobody can say whether it was heard.
func unreachable(err error) error {
	message := "the updater does not answer over D-Bus"
	if errors.Is(err, context.DeadlineExceeded) {
		message = "the updater did not answer in time; it may be at work on it"
	}
	return fault.New(fault.Unavailable, CodeUnreachable, "%s", message).Because(err).
		Try("`systemctl status dbus whisper-appliance-updater` says why; root's `whisper-appliance update …` works without the bus")
}
