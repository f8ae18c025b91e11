package work

import (
	"fmt"
	"syscall"
	"testing"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcribe"
)

// TestNoRoomForRecording: a full directory is told as what it is.
func TestNoRoomForRecording(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		err := keepFault(fmt.Errorf("write: %w", cause))
		wantFault(t, err, fault.NoSpace, "disk_full")
		if fault.Hint(err) == "" {
			t.Error("no hint")
		}
	}
	if err := keepFault(syscall.EIO); fault.KindOf(err) != fault.Internal {
		t.Errorf("another error: %v", err)
	}
}

// TestAttendTellsHowSure: who waits for a job is told what who does it is told,
// also when it is done.
func TestAttendTellsHowSure(t *testing.T) {
	for _, onlyLanguage := range []bool{false, true} {
		r := newRig(t).start(t)
		r.engine.sure = 0.97
		w := r.wish(t, "a", "34")
		w.Key, w.Job.OnlyLanguage = "once", onlyLanguage
		for range 2 {
			sure := 0.0
			got, err := r.Do(t.Context(), w, func(u transcribe.Update) { sure = max(sure, u.LanguageProb) })
			if err != nil || got.Language != "en" || sure != 0.97 {
				t.Errorf("only the language %v: %+v, %v, %v sure", onlyLanguage, got, err, sure)
			}
		}
	}
}
