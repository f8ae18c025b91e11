package server

import (
	"fmt"
	"testing"
	"time"
)

func TestMistakes(t *testing.T) {
	t.Parallel()
	var m mistakes
	now := time.Now()
	for i := range 30 {
		m.note(now, fmt.Sprintf("code_%d", i), 503, "/transcribe")
	}
	m.note(now, "bad_field", 400, "/transcribe")
	got := m.sum(now)
	if len(got.Recent) != recentErrors || got.Recent[0].Code != "code_29" || got.Recent[0].Door != "/transcribe" || got.Counts["bad_field"] != 1 || got.Rate != 6 {
		t.Errorf("%+v", got)
	}
	for later, want := range map[time.Duration]float64{4 * time.Minute: 6, 5*time.Minute + errorSlot: 0, time.Hour: 0} {
		if got := m.sum(now.Add(later)).Rate; got != want {
			t.Errorf("%v later the rate is %v, want %v", later, got, want)
		}
	}
	m.note(now.Add(errorWindow), "again", 500, "") // the slot of the first ones
	if got := m.sum(now.Add(errorWindow)).Rate; got != 0.2 {
		t.Errorf("rate %v", got)
	}
	for i := range 10 * errorCodes {
		m.note(now, fmt.Sprintf("made_up_%d", i), 400, "")
	}
	if n := len(m.sum(now).Counts); n > errorCodes+1 {
		t.Errorf("%d codes are counted", n)
	}
}

func TestPressure(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"some avg10=1.5 avg60=2 avg300=0 total=1\n": true, "": true,
		"some\n": false, "some avg10=x avg60=2\n": false, "some avg10=1 avg60=x\n": false,
	} {
		if v, err := parsePressure(text); (err == nil) != ok || (ok && text != "" && v.Some10 != 1.5) {
			t.Errorf("%q: %+v, %v", text, v, err)
		}
	}
}
