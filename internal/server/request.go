package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"

	"whisper-appliance/internal/logging"
)

// requestHeader tells a client under which name the log has its request.
const requestHeader = "X-Request-ID"

// idempotencyHeader is by which a client names a request that it may send again.
const idempotencyHeader = "Idempotency-Key"

// lastEventHeader is by which a client that comes back to a stream of events says
// which it has.
const lastEventHeader = "Last-Event-ID"

type (
	requestKey     struct{}
	idempotencyKey struct{}
)

// named gives a request its name, and tells the client.
func named(w http.ResponseWriter, r *http.Request) *http.Request {
	var id [8]byte
	rand.Read(id[:]) //nolint:errcheck // it never fails
	name := hex.EncodeToString(id[:])
	w.Header().Set(requestHeader, name)
	ctx := context.WithValue(r.Context(), requestKey{}, name)
	if key := r.Header.Get(idempotencyHeader); key != "" {
		ctx = context.WithValue(ctx, idempotencyKey{}, key)
	}
	return r.WithContext(ctx)
}

// keyOf is the idempotency key of the request that ctx belongs to, "" where it
// has none.
func keyOf(ctx context.Context) string {
	key, _ := ctx.Value(idempotencyKey{}).(string) //nolint:errcheck // "" says so
	return key
}

// requestOf is the name of the request that ctx belongs to, "" where it is none's.
func requestOf(ctx context.Context) string {
	name, _ := ctx.Value(requestKey{}).(string) //nolint:errcheck // "" says so
	return name
}

// logOf is the log with the request's name.
func (s *Server) logOf(ctx context.Context) *slog.Logger {
	return s.Log.With(logging.Request, requestOf(ctx))
}
