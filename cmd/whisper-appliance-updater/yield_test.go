package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// TestDownloadYields to what is more than a look, and to nothing else.
func TestDownloadYields(t *testing.T) {
	t.Parallel()
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	why := make(chan error, 1)
	untilTold := func(ctx context.Context) error {
		<-ctx.Done()
		why <- ctx.Err()
		return ctx.Err()
	}
	wantCode(t, "a download", d.begin(download, untilTold), "")
	wantCode(t, "another download", d.begin(download, untilTold), "updater_busy")
	wantCode(t, "a rollback", d.begin("a rollback", untilTold), "")
	if err := <-why; !errors.Is(err, context.Canceled) {
		t.Errorf("the download ended by %v", err)
	}
	wantCode(t, "an update beside a rollback", d.begin("an update", untilTold), "updater_busy")
	d.interrupt()
	d.work.Wait()
}

// TestPlainLines: no terminal obeys what a server has said.
func TestPlainLines(t *testing.T) {
	for words, want := range map[string]string{
		"one\ntwo": "one\n  two", "it is \x1b[2Jdead\r\n\x1b]0;x\x07": "it is  [2Jdead\n   ]0;x ",
	} {
		if got := fault.PlainLines(words, "  "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	b := newBench(t)
	a := newApp(&b.out, &b.err)
	a.exitCode(fault.New(fault.Unavailable, "x", "\x1b[31mred").Try("\x9b31m"))
	if got := b.err.String(); got != "whisper-appliance:  [31mred\ntry:  31m\n" {
		t.Errorf("%q", got)
	}
}

func TestHeldWords(t *testing.T) {
	s := deployment.Status{Held: "1.1.0"}
	for door, want := range map[deployment.Door]string{
		deployment.DoorHTTP: "rolled back over HTTP at 2026-03-04 12:30; what is newer may come",
		deployment.DoorCLI:  "rolled back on the command line at 2026-03-04 12:30; what is newer may come",
		"":                  "taken back, or kept from serving, at 2026-03-04 12:30; what is newer may come",
	} {
		s.HeldBy, s.HeldSince = door, noon()
		if got := heldWords(s); got != want {
			t.Errorf("%s: %s", door, got)
		}
	}
}
