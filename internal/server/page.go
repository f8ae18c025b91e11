package server

import (
	"bytes"
	"embed"
	"net/http"
	"path"
	"strings"
	"time"
)

// web is the page. It asks no other host for anything.
//
//go:embed web
var web embed.FS

// contentPolicy lets the page load its own files and talk to its own server, nothing else.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, "page.html")
}

func (s *Server) asset(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, strings.TrimPrefix(r.URL.Path, "/assets/"))
}

// serve answers with a file of the page, 404 where name is none.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, name string) {
	data, err := web.ReadFile(path.Join("web", name))
	if err != nil || strings.Contains(name, "/") {
		s.notFound(w, r)
		return
	}
	w.Header().Set("Content-Security-Policy", contentPolicy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
}
