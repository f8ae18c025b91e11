package model

import (
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

func TestLookup(t *testing.T) {
	for given, want := range map[string]string{
		"tiny": "tiny", "large": "large-v3", "turbo": "large-v3-turbo", "Large": "large-v3",
		"ggml-base.en.bin": "base.en", "whisper-small": "small", " medium ": "medium",
		"TINY-Q8_0": "tiny-q8_0", "silero-v6.2.0": "silero-v6.2.0", "silero": "silero-v6.2.0",
	} {
		e, err := Lookup(given)
		if err != nil || e.Name != want {
			t.Errorf("Lookup(%q) = %q, %v and has to be %q", given, e.Name, err, want)
		}
	}
}

func TestLookupOfUnknownNamesNamesNearOnes(t *testing.T) {
	for given, near := range map[string]string{
		"tinny": "tiny", "bass": "base", "large-v4": "large-v3", "smal.en": "small.en",
		"large-v3-turb": "large-v3-turbo", "siler": "silero-v6.2.0",
	} {
		_, err := Lookup(given)
		f := wantFault(t, err, fault.NotFound, "unknown_model")
		if !strings.Contains(f.Hint, near) || f.Field != "model" {
			t.Errorf("hint for %q is %q and has to name %s", given, f.Hint, near)
		}
	}
	for _, given := range []string{"", "xyzzyxyzzy", "../../etc/passwd"} {
		_, err := Lookup(given)
		f := wantFault(t, err, fault.NotFound, "unknown_model")
		if strings.Contains(f.Hint, "did you mean") {
			t.Errorf("hint for %q is %q; nothing is near", given, f.Hint)
		}
	}
}

func TestCatalogueIsComplete(t *testing.T) {
	var names []string
	for _, e := range Catalogue() {
		names = append(names, e.Name)
		if e.Size <= 0 || len(e.SHA256) != 64 || e.MemoryNeeded <= e.Size || !strings.HasPrefix(e.Hub, "https://") {
			t.Errorf("%s: %+v", e.Name, e)
		}
		languages := map[bool]int{true: 1, false: 99}[strings.Contains(e.Name, ".en")]
		switch {
		case strings.HasPrefix(e.Name, "large-v3"):
			languages = 100
		case e.Kind == VAD:
			languages = 0
		}
		if len(e.Languages) != languages || e.Multilingual() != (languages > 1) {
			t.Errorf("%s knows %d languages and has to know %d", e.Name, len(e.Languages), languages)
		}
	}
	for _, want := range strings.Fields("tiny base small medium tiny.en base.en small.en medium.en large-v1 large-v2 large-v3 large-v3-turbo silero-v6.2.0") {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if distinct := slices.Compact(slices.Sorted(slices.Values(names))); len(distinct) != len(names) {
		t.Error("a name stands there twice")
	}
}

// TestLookupOfALongNameIsQuick: a name that no model can have is not compared.
func TestLookupOfALongNameIsQuick(t *testing.T) {
	begin := time.Now()
	for _, given := range []string{strings.Repeat("a", 9<<20), strings.Repeat("tiny", 1<<20)} {
		_, err := Lookup(given)
		if f := wantFault(t, err, fault.NotFound, "unknown_model"); len(f.Message) > 500 {
			t.Errorf("the message has %d bytes", len(f.Message))
		}
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestNames(t *testing.T) {
	for file, want := range map[string]string{
		"ggml-tiny.bin": "tiny", "ggml-My_Model.v2-q8_0.bin": "My_Model.v2-q8_0",
		"ggml-.bin": "", "tiny.bin": "", "ggml-tiny.bin.partial": "", "ggml-../x.bin": "", "ggml-a/b.bin": "",
	} {
		if name, ok := nameOf(file); ok != (want != "") || ok && name != want {
			t.Errorf("nameOf(%q) = %q, %v", file, name, ok)
		}
	}
}
