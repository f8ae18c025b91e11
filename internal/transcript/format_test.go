package transcript

import (
	"errors"
	"math"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func TestParseFormat(t *testing.T) {
	for _, f := range Formats() {
		if got, err := ParseFormat(string(f)); got != f || err != nil {
			t.Errorf("ParseFormat(%q) = %q, %v", f, got, err)
		}
		if ContentType(f) == "" {
			t.Errorf("%s has no content type", f)
		}
		if !strings.HasPrefix(f.Extension(), ".") {
			t.Errorf("%s has extension %q", f, f.Extension())
		}
	}
	for name, want := range map[string]Format{"text": Txt, "SRT": SRT, "Verbose_JSON": VerboseJSON} {
		if got, err := ParseFormat(name); got != want || err != nil {
			t.Errorf("ParseFormat(%q) = %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "docx", "srt ", "json\x00"} {
		_, err := ParseFormat(name)
		var fe *fault.Error
		if !errors.As(err, &fe) || fe.Kind != fault.BadInput || fe.Code != "unknown_format" || fe.Field != "response_format" {
			t.Errorf("ParseFormat(%q): got %v, want a fault on response_format", name, err)
			continue
		}
		for _, f := range Formats() {
			if !strings.Contains(fe.Hint, string(f)) {
				t.Errorf("hint %q does not name %s", fe.Hint, f)
			}
		}
	}
	if got := ContentType("docx"); got != "" {
		t.Errorf("ContentType of no format is %q", got)
	}
	if !Words.NeedsWords() || SRT.NeedsWords() {
		t.Error("only words needs word times")
	}
}

func TestLanguages(t *testing.T) {
	list := Languages()
	if len(list) != 100 {
		t.Errorf("%d languages, Whisper has 100", len(list))
	}
	seen := map[string]bool{}
	for _, l := range list {
		for _, key := range []string{l.Code, l.Name} {
			if seen[key] || key == "" || key != strings.ToLower(key) {
				t.Errorf("%q is empty, there twice, or not lower case", key)
			}
			seen[key] = true
			if got, err := LanguageCode(key); got != l.Code || err != nil {
				t.Errorf("LanguageCode(%q) = %q, %v", key, got, err)
			}
		}
		if got := LanguageName(l.Code); got != l.Name {
			t.Errorf("LanguageName(%q) = %q, want %q", l.Code, got, l.Name)
		}
	}
}

func TestLanguageCode(t *testing.T) {
	tests := []struct{ in, want, hint string }{
		{in: "EN", want: "en"},
		{in: " German ", want: "de"},
		{in: "Haitian Creole", want: "ht"},
		{in: "burmese", want: "my"},
		{in: "jv", want: "jw"},
		{in: "nb", want: "no"},
		{in: "en-US", hint: `leave out the region: "en" (english)`},
		{in: "zh_TW", hint: `leave out the region: "zh" (chinese)`},
		{in: "", hint: "use an ISO 639-1"},
		{in: "auto", hint: "use an ISO 639-1"},
		{in: "xx", hint: "use an ISO 639-1"},
		{in: "xx-US", hint: "use an ISO 639-1"},
		{in: "klingon", hint: "use an ISO 639-1"},
	}
	for _, tt := range tests {
		got, err := LanguageCode(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("LanguageCode(%q) = %q, %v", tt.in, got, err)
		}
		var fe *fault.Error
		if err != nil && (!errors.As(err, &fe) || fe.Field != "language" || !strings.Contains(fe.Hint, tt.hint)) {
			t.Errorf("LanguageCode(%q): fault %+v, want hint %q", tt.in, fe, tt.hint)
		}
	}
	if got := LanguageName("xx"); got != "" {
		t.Errorf("LanguageName of no language is %q", got)
	}
}

// The sizes on the right are C zlib's at level 6, taken by hand.
func TestCompressionRatio(t *testing.T) {
	tests := []struct {
		text        string
		bytes, zlib float64
	}{
		{"a", 1, 9},
		{" And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country.", 108, 79},
		{strings.Repeat(" no", 40), 120, 14},
		{strings.Repeat(" Thank you for watching.", 12), 288, 37},
		{strings.Repeat("谢谢观看。", 30), 450, 28},
	}
	for _, tt := range tests {
		want := tt.bytes / tt.zlib
		if got := CompressionRatio(tt.text); math.Abs(got/want-1) > 0.08 {
			t.Errorf("CompressionRatio(%.20q) = %.3f, C's zlib gives %.3f", tt.text, got, want)
		}
	}
	if got := CompressionRatio(""); got != 0 {
		t.Errorf("no text has ratio %v, want 0", got)
	}
}
