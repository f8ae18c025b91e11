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

type requestKey struct{}

// named gives a request its name, and tells the client.
func named(w http.ResponseWriter, r *http.Request) *http.Request {
	var id [8]byte
	rand.Read(id[:]) //nolint:errcheck // it never fails
	name := hex.EncodeToString(id[:])
	w.Header().Set(requestHeader, name)
	return r.WithContext(context.WithValue(r.Context(), requestKey{}, name))
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
