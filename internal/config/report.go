package config

import (
	"cmp"
	"net/url"
)

// origin is where a setting's value comes from.
type origin struct {
	text   string // "config.toml:12"
	locked bool
}

// Report tells where each value came from, for people.
type Report struct {
	Values []Value  `json:"values"` // in the order of the reference
	Notes  []string `json:"notes"`  // what was accepted but has no effect
}

// Value is one setting as it stands.
type Value struct {
	Key    string `json:"key"`    // "server.listen"
	Value  any    `json:"value"`  // string, bool, int64 or list of strings, as TOML has it; a password in it is xxxxx
	Origin string `json:"origin"` // "default", "settings.toml", "config.toml:12", "environment HTTPS_PORT", "flag --listen"
	Locked bool   `json:"locked"` // set above settings.toml: saving it would change nothing
}

// Find is the value of key, false where there is no such setting.
func (r *Report) Find(key string) (Value, bool) {
	for _, v := range r.Values {
		if v.Key == key {
			return v, true
		}
	}
	return Value{}, false
}

// Origin says where the value of key comes from, "" where there is no such
// setting.
func (r *Report) Origin(key string) string {
	v, _ := r.Find(key)
	return v.Origin
}

// Locked reports whether key is fixed by config.toml, config.d, the
// environment or a flag, so that saving it would change nothing.
func (r *Report) Locked(key string) bool {
	v, _ := r.Find(key)
	return v.Locked
}

func (l *loader) report() *Report {
	r := &Report{Notes: append([]string{}, l.notes...)}
	for _, s := range sections(l.config) {
		for _, f := range s.fields {
			from := l.origins[f.key()]
			r.Values = append(r.Values, Value{
				Key:    f.key(),
				Value:  f.shown(),
				Origin: cmp.Or(from.text, "default"),
				Locked: from.locked,
			})
		}
	}
	return r
}

// shown is the value as people may see it.
func (f field) shown() any {
	text, ok := f.plain().(string)
	if u, err := url.Parse(text); ok && err == nil && f.check == "database" {
		return redacted(u)
	}
	return f.plain()
}

// redacted is the address of a database without its passwords, which may be
// among its parameters, too.
func redacted(u *url.URL) string {
	parameters, err := url.ParseQuery(u.RawQuery)
	secret := err != nil // then nobody knows what is in it
	for _, name := range []string{"password", "sslpassword"} {
		if parameters.Has(name) {
			parameters.Set(name, "xxxxx")
			secret = true
		}
	}
	if secret {
		u.RawQuery = parameters.Encode()
	}
	return u.Redacted()
}

// Literal is the value as TOML writes it.
func (v Value) Literal() string { return literal(v.Value) }
