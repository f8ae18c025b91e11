package updaterd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/fault"
)

// link is one life of a connection to the bus. Callers are asked after over a
// second one, so that the first may stop reading while too much waits there.
type link struct {
	s    *Server
	ctx  context.Context // Run's
	conn *dbus.Conn
	asks *dbus.Conn

	room chan struct{} // a token for each call that has been read and not answered

	mu   sync.Mutex
	open map[callKey]int // those, by name
}

// callKey names calls. The serial is the sender's to choose: one that wants no
// answers may give many calls the same.
type callKey struct {
	sender string
	serial uint32
}

// mostCalls bounds the calls that are read ahead, whoever sent them.
const mostCalls = 64

// greeting bounds what the bus itself may take to answer.
const greeting = 5 * time.Second

func (s *Server) open(ctx context.Context) (*link, error) {
	limited, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	l := &link{s: s, ctx: ctx, room: make(chan struct{}, mostCalls), open: map[callKey]int{}}
	var err error
	if l.asks, err = dial(limited, s.Socket); err != nil {
		return nil, err
	}
	l.conn, err = dial(limited, s.Socket, dbus.WithHandler(objects{l}),
		dbus.WithIncomingInterceptor(l.incoming), dbus.WithOutgoingInterceptor(l.outgoing))
	if err != nil {
		l.asks.Close() //nolint:errcheck // it was never used
		return nil, err
	}
	context.AfterFunc(l.asks.Context(), func() { l.conn.Close() }) //nolint:errcheck // one is of no use without the other
	return l, nil
}

func (l *link) close() {
	l.conn.Close() //nolint:errcheck // it has served
	l.asks.Close() //nolint:errcheck // likewise
}

// own takes the name. The signals that come from then on must be taken; their
// channel is closed when either connection breaks.
func (l *link) own(ctx context.Context) (<-chan *dbus.Signal, error) {
	limited, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	signals := make(chan *dbus.Signal, 8)
	l.conn.Signal(signals)
	var reply uint32
	err := l.conn.BusObject().CallWithContext(limited, "org.freedesktop.DBus.RequestName", 0, Name, uint32(dbus.NameFlagDoNotQueue)).Store(&reply)
	if err != nil {
		return nil, fmt.Errorf("take the name %s: %w", Name, err)
	}
	if r := dbus.RequestNameReply(reply); r != dbus.RequestNameReplyPrimaryOwner && r != dbus.RequestNameReplyAlreadyOwner {
		return nil, fmt.Errorf("take the name %s: %w", Name, errors.New("another process has it"))
	}
	return signals, nil
}

// lost tells whether sig says that the name is no longer ours.
func lost(sig *dbus.Signal) bool {
	return sig.Sender == "org.freedesktop.DBus" && sig.Name == "org.freedesktop.DBus.NameLost" && len(sig.Body) > 0 && sig.Body[0] == Name
}

// emit signals changed.
func (l *link) emit(changed map[string]dbus.Variant) error {
	if len(changed) == 0 {
		return nil
	}
	if err := l.conn.Emit(Path, propertiesChanged, Interface, changed, []string{}); err != nil {
		return fmt.Errorf("signal changed properties: %w", err)
	}
	return nil
}

// drain gives the name up, so that the next call starts a new updater, and
// waits until those that came before have their answers.
func (l *link) drain() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), drainLimit)
	defer cancel()
	if err := l.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.ReleaseName", 0, Name).Err; err != nil {
		return // the bus has gone
	}
	for range mostCalls { // with every token taken back nothing is under way
		select {
		case l.room <- struct{}{}:
		case <-l.conn.Context().Done():
			return
		case <-ctx.Done():
			l.s.Log.Warn("calls cut off: they took longer than the stop may", "limit", drainLimit)
			return
		}
	}
	// Tokens come back a moment before the answer is written. Another round
	// through the bus comes after it.
	l.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetId", 0)
}

// incoming sees every message before godbus does, in order; while it waits
// nothing more is read.
func (l *link) incoming(m *dbus.Message) {
	if m.Type != dbus.TypeMethodCall {
		return
	}
	select {
	case l.room <- struct{}{}:
	case <-l.conn.Context().Done():
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[keyOf(m)]++
}

func keyOf(m *dbus.Message) callKey {
	sender, _ := m.Headers[dbus.FieldSender].Value().(string) //nolint:errcheck // the bus fills it in
	return callKey{sender, m.Serial()}
}

// outgoing sees every message that goes out.
func (l *link) outgoing(m *dbus.Message) {
	if m.Type != dbus.TypeMethodReply && m.Type != dbus.TypeError {
		return
	}
	to, _ := m.Headers[dbus.FieldDestination].Value().(string)     //nolint:errcheck // "" is nobody's
	serial, _ := m.Headers[dbus.FieldReplySerial].Value().(uint32) //nolint:errcheck // likewise
	l.answered(callKey{to, serial})
}

// answered takes the token of one call back.
func (l *link) answered(k callKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.open[k] {
	case 0:
		return
	case 1:
		delete(l.open, k)
	default:
		l.open[k]--
	}
	<-l.room
}

// call judges a call and does it.
func (l *link) call(m member, a asked) (out []any, err error) {
	l.s.working.Add(1)
	defer l.s.working.Done()
	defer func() { // an error goes out whether it is wanted or not, and is seen there
		if err == nil && a.msg.Flags&dbus.FlagNoReplyExpected != 0 {
			l.answered(keyOf(a.msg))
		}
	}()
	c, err := l.judge(m, a.sender)
	if err == nil {
		err = bounded(m, a.in)
	}
	if err != nil {
		return nil, onBus(err)
	}
	if !l.s.begin(c) {
		return nil, onBus(fault.New(fault.Busy, CodeBusy, "%d calls of this user are under way", callsOfServer).Try("wait for their answers"))
	}
	defer l.s.end(c)
	defer func() {
		if p := recover(); p != nil { // one call's failure is not the updater's end
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		if err != nil {
			l.note(m, c, err)
			out, err = nil, onBus(err)
		} else if m.may != anybody {
			l.s.Log.Info("called over D-Bus", "method", m.name, "uid", c.UID)
		}
	}()
	return m.call(l.ctx, l.s, c, a.in)
}

// note logs why a call failed, in full where the caller is not told.
func (l *link) note(m member, c Caller, err error) {
	level := slog.LevelInfo
	switch {
	case wordedForBus(err):
		level = slog.LevelDebug
	case fault.KindOf(err) == fault.Internal:
		level = slog.LevelError
	}
	l.s.Log.Log(l.ctx, level, "call over D-Bus failed", "method", m.name, "uid", c.UID, "error", err)
}

// judge says who sender is, and whether he may call m.
func (l *link) judge(m member, sender string) (Caller, error) {
	if m.may == anybody {
		return Caller{}, nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, greeting)
	defer cancel()
	var uid uint32
	if err := l.asks.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, sender).Store(&uid); err != nil {
		return Caller{}, fault.New(fault.Forbidden, CodeDenied, "nobody can say who asks").Because(err)
	}
	if uid == l.s.admin {
		return Caller{UID: uid}, nil
	}
	if m.may == servers && l.s.ServerUID != nil {
		if server, known := l.s.ServerUID(); known && uid == server {
			return Caller{UID: uid, Server: true}, nil
		}
	}
	l.s.Log.Warn("call over D-Bus refused", "method", m.name, "uid", uid)
	return Caller{}, fault.New(fault.Forbidden, CodeDenied, "user %d may not call %s", uid, m.name).Try("ask as root: `sudo whisper-appliance update …`")
}
