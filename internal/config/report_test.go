package config

import (
	"strings"
	"testing"
)

// TestNoPasswordIsShown: neither that of an address nor one among its parameters.
func TestNoPasswordIsShown(t *testing.T) {
	for address, want := range map[string]string{
		"postgres://me:secret@host/jobs":                                   "postgres://me:xxxxx@host/jobs",
		"postgres://me@host/jobs?password=secret&sslmode=require":          "postgres://me@host/jobs?password=xxxxx&sslmode=require",
		"postgres://host/jobs?sslpassword=secret&password=secret":          "postgres://host/jobs?password=xxxxx&sslpassword=xxxxx",
		"postgres://host/jobs?p%61ssword=secret":                           "postgres://host/jobs?password=xxxxx",
		"postgres://host/jobs?sslmode=require&connect_timeout=5&host=/run": "postgres://host/jobs?sslmode=require&connect_timeout=5&host=/run",
		"postgres://host/jobs?a=b;password=secret":                         "",
	} {
		_, r, err := Load(files(t, map[string]string{"config.toml": "[database]\nurl = \"" + address + "\"\n"}))
		if err != nil {
			t.Fatal(err)
		}
		v, _ := r.Find("database.url")
		shown, _ := v.Value.(string)
		if want != "" && shown != want || strings.Contains(shown, "secret") {
			t.Errorf("%s is shown as %s, want %s", address, shown, want)
		}
	}
}
