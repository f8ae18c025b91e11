package diagnose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestScrub(t *testing.T) {
	for _, c := range []struct{ name, host, given, want string }{
		{"a host named as we are", "whisper", "whisper-appliance.service, whisper.cpp and whisperappliance.slice on whisper, at whisper:5001",
			"whisper-appliance.service, whisper.cpp and whisperappliance.slice on HOST, at HOST:5001"},
		{"its whole name", "whisper.lan", "WHISPER.lan serves whisper.service.", "HOST serves whisper.service."},
		{"a host named as the product", "whisper-appliance", "whisper-appliance.socket of whisper-appliance", "whisper-appliance.socket of whisper-appliance"},
		{"in any domain", "parrot", "parrot.example.net, api.parrot.lan and parrot.", "HOST, HOST and HOST."},
		{"another machine", "parrot", "parrot-2 my-parrot parrots", "parrot-2 my-parrot parrots"},
		{"after a line's end in JSON", "parrot", `{"MESSAGE":"up\nparrot \u003cparrot\u003e"}`, `{"MESSAGE":"up\nHOST \u003cHOST\u003e"}`},
		{"after a word", "", "client:192.168.1.5:5555 from=10.0.0.9, source:2001:db8:1:2:3:4:5:6", "client:ADDRESS:5555 from=ADDRESS, source:ADDRESS"},
		{"IPv6", "", "node:fe80::1%eth0 [2001:db8::17]:443 ::ffff:192.0.2.1, peer 2001:db8::2.", "node:ADDRESS%eth0 [ADDRESS]:443 ADDRESS, peer ADDRESS."},
		{"in JSON", "", `"\u003c192.168.1.5\u003e\n10.1.2.3"`, `"\u003cADDRESS\u003e\nADDRESS"`},
		{"backwards", "", "5.1.168.192.in-addr.arpa", "ADDRESS.in-addr.arpa"},
		{"of every machine", "", "127.0.0.1:5001 [::1]:5001 0.0.0.0:80 [::]:5001", "127.0.0.1:5001 [::1]:5001 0.0.0.0:80 [::]:5001"},
		{"no addresses", "", "at 12:34:56 std::fs 1.2.3 v1.27.0 sha:c0ffee 2026-11-22T00:04:54.123456", "at 12:34:56 std::fs 1.2.3 v1.27.0 sha:c0ffee 2026-11-22T00:04:54.123456"},
		{"network cards", "", "eth0 52:54:00:AB:cd:ef mac=52-54-00-ab-cd-ef, enx525400abcdef", "eth0 ADDRESS mac=ADDRESS, enxADDRESS"},
		{"continued", "", "Environment=A=1 \\\n# of mine\n  \"KEY=s3cret\" \\\n\tB=s3cret\nNice=3\n", "Environment=(removed)\nNice=3\n"},
		{"continued to the end", "", "Environment=A \\\r\n s3cret", "Environment=(removed)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := newScrubber(c.host).text(c.given); got != c.want {
				t.Errorf("%q\nwant %q", got, c.want)
			}
		})
	}
}

// TestScrubbingIsFast: a part as large as parts may be leaves time for others, here a
// piece of one with a generous limit.
func TestScrubbingIsFast(t *testing.T) {
	line := `{"MESSAGE":"parrot: request of 192.168.1.5:5555 at 12:34:56 for https://models.example.net/x?y=z","_PID":"17"}` + "\n"
	text := strings.Repeat(line, partBytes/32/len(line))
	began := time.Now()
	newScrubber("parrot").text(text)
	if took := time.Since(began); took > partLimit/4 {
		t.Errorf("%d bytes took %v", len(text), took)
	} else {
		t.Logf("%d bytes took %v", len(text), took)
	}
}

func TestJournalBytesAreText(t *testing.T) {
	numbers := func(text string) string {
		var b strings.Builder
		for i := range len(text) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(string('0'+rune(text[i]/100)) + string('0'+rune(text[i]/10%10)) + string('0'+rune(text[i]%10)))
		}
		return "[" + strings.ReplaceAll(strings.ReplaceAll(","+b.String(), ",00", ","), ",0", ",")[1:] + "]"
	}
	secret := "\x1b[31mtoken=hunter2hunter2\x1b[0m of \x1b[1m192.0.2.77\x1b[0m \xff"
	for _, c := range []struct{ name, value, want string }{
		{"bytes", numbers(secret), `"token=(removed) of ADDRESS ` + "\uFFFD" + `"`},
		{"several", `["first", ` + numbers("192.0.2.77") + `, null]`, `["first","ADDRESS",null]`},
		{"coloured", `"\u001b[31m192.0.2.77"`, `"ADDRESS"`},
		{"too long", `null`, `null`},
		{"none of those", `{"x":"192.0.2.77"}`, `"(removed)"`},
		{"large numbers", `[300, 1]`, `["(removed)","(removed)"]`},
		{"angle brackets", `"<192.0.2.77>"`, `"<ADDRESS>"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, err := Journal(journalOf(t, `{"MESSAGE":`+c.value+`,"ERROR":`+c.value+`,"OTHER":1}`+"\n"))(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := `{"ERROR":` + c.want + `,"MESSAGE":` + c.want + "}\n"
			if got := newScrubber("").text(string(data)); got != want {
				t.Errorf("%q\nwant %q", got, want)
			}
		})
	}
}

func TestDropInsOfTheSlice(t *testing.T) {
	dir := t.TempDir()
	for _, unit := range []string{"whisperappliance.slice.d", "whisper-appliance.service.d", "other.service.d"} {
		if err := os.Mkdir(filepath.Join(dir, unit), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, unit, "x.conf"), []byte("of "+unit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := DropIns(dir)(t.Context())
	if err != nil || !strings.Contains(string(text), "of whisperappliance.slice.d") || !strings.Contains(string(text), "of whisper-appliance.service.d") ||
		strings.Contains(string(text), "other") {
		t.Errorf("%v:\n%s", err, text)
	}
	if text, err := DropIns(t.TempDir())(t.Context()); err != nil || string(text) != "there are none\n" {
		t.Errorf("%v: %q", err, text)
	}
}
