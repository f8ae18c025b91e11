package transcript

import "testing"

func TestUnspaced(t *testing.T) {
	for code, sample := range map[string]string{
		"zh": "你", "yue": "係", "ja": "こカ語", "th": "ไ", "lo": "ສ", "km": "ខ", "my": "မ",
		"en": "", "ko": "", "ar": "", "": "",
	} {
		if got := Unspaced(code); got != (sample != "") {
			t.Errorf("Unspaced(%q) = %v", code, got)
		}
		for _, r := range sample {
			if !UnspacedRune(r) {
				t.Errorf("%c of %s is not unspaced", r, code)
			}
		}
	}
	for _, r := range "。、！「" {
		if !UnspacedRune(r) {
			t.Errorf("%c is not unspaced", r)
		}
	}
	for _, r := range "aé한عд1. \n" {
		if UnspacedRune(r) {
			t.Errorf("%c is unspaced", r)
		}
	}
}

// TestUnspacedAreLanguages: each code is one of Whisper's.
func TestUnspacedAreLanguages(t *testing.T) {
	n := 0
	for _, l := range Languages() {
		if Unspaced(l.Code) {
			n++
		}
	}
	if n != 7 {
		t.Errorf("%d languages are unspaced, want 7", n)
	}
}
