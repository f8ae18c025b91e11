package server

import (
	"context"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/fault"
)

type contextKey int

// peerKey is where connContext keeps a *uint32: the user at the other end of a Unix socket.
const peerKey contextKey = 0

type (
	// accessKey is where a door keeps the auth.Access of a request that it let in.
	accessKey struct{}
	// headKey is set where a GET was a HEAD.
	headKey struct{}
)

// connContext notes who is at the other end of a Unix socket while the
// connection is at hand.
func connContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	raw.Control(func(fd uintptr) { //nolint:errcheck // no credentials: nobody in particular
		cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if cred == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey, &cred.Uid)
}

func caller(r *http.Request) auth.Caller {
	uid, _ := r.Context().Value(peerKey).(*uint32)
	return auth.CallerOf(r, uid)
}

// needNothing marks a door that is open to everybody with a right key or none.
const needNothing auth.Scope = ""

// permit says whether r may do what needs scope, and to whom it was granted.
func (s *Server) permit(r *http.Request, scope auth.Scope) (auth.Access, error) {
	if scope == needNothing {
		return auth.Access{}, nil
	}
	access, err := s.judge(r, scope)
	if err != nil { // what a watcher of the log, fail2ban say, looks for
		s.logOf(r.Context()).Warn("access refused", "from", r.RemoteAddr, "method", r.Method, "path", fault.Short(r.URL.Path), "reason", err.Error())
	} else if scope == auth.Admin {
		s.granted(r, access)
	}
	return access, err
}

// accessOf is what was granted to the request that ctx belongs to. A door that
// needs nothing has granted it to nobody in particular.
func accessOf(ctx context.Context) auth.Access {
	access, _ := ctx.Value(accessKey{}).(auth.Access) //nolint:errcheck // nobody in particular
	return access
}

func (s *Server) judge(r *http.Request, scope auth.Scope) (auth.Access, error) {
	c := s.Config().Auth
	return auth.Judge(caller(r), scope, auth.Policy{
		OpenTo:         auth.Openness(c.OpenTo),
		TrustedProxies: c.TrustedProxies,
		OwnUID:         uint32(os.Getuid()),
	}, s.Keys)
}

// granted notes who administers, and by what right: the key's name, or the user
// on this machine. The updater, which is asked by the server, knows neither.
func (s *Server) granted(r *http.Request, a auth.Access) {
	log := s.logOf(r.Context())
	if a.UID != nil {
		log = log.With("uid", *a.UID)
	}
	log.Info("access granted", "from", r.RemoteAddr, "method", r.Method, "path", fault.Short(r.URL.Path), "key", a.Key)
}

// knownKey refuses a key that is wrong, wherever it is shown: whoever sends
// one believes it to be good and should learn that it is not.
func (s *Server) knownKey(r *http.Request) error {
	c := caller(r)
	if c.Key == "" {
		return nil
	}
	if _, ok := s.Keys.Find(c.Key); ok {
		return nil
	}
	_, err := s.permit(r, auth.Transcribe) // has the words for it
	return err
}

// encrypted reports whether r came by TLS, here or as far as a proxy in front.
// Whoever makes the proxy's header up deceives nobody but himself; without it
// a page behind such a proxy would be redirected to itself for ever.
func encrypted(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
}

// fromThisMachine reports whether r was sent here, not through a proxy.
func fromThisMachine(r *http.Request) bool {
	c := caller(r)
	return c.UnixUID != nil || (c.RemoteAddr.Unmap().IsLoopback() && !c.Forwarded)
}
