package server

import (
	"embed"
	"net/http"
	"path"
)

// web is the page. It asks no other host for anything.
//
//go:embed web
var web embed.FS

// contentPolicy lets the page load its own files and talk to its own server, nothing else.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", contentPolicy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, web, "web/page.html")
}

func (s *Server) asset(w http.ResponseWriter, r *http.Request) {
	name := path.Join("web", path.Base(r.URL.Path))
	if _, err := web.Open(name); err != nil {
		s.notFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, web, name)
}
