package server

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"
	"whisper-appliance/internal/transcribe"

	"whisper-appliance/internal/fault"
)

func TestHasRoom(t *testing.T) {
	for _, c := range []struct {
		name           string
		declared, free int64
		err            error
		full           bool
	}{
		{"plenty", 1 << 20, 1 << 40, nil, false},
		{"just enough", 4 << 30, 4<<30 + transcribe.Reserve, nil, false},
		{"a byte too little", 4 << 30, 4<<30 + transcribe.Reserve - 1, nil, true},
		{"within the reserve", 1, transcribe.Reserve, nil, true},
		{"of unknown length", -1, transcribe.Reserve, nil, false},
		{"of unknown length, within the reserve", -1, transcribe.Reserve - 1, nil, true},
		{"unknown space", 4 << 30, 0, errors.New("no such file system"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, talks)
			r.Free = func(dir string) (int64, error) {
				if dir != r.Spool {
					t.Errorf("asked for %s", dir)
				}
				return c.free, c.err
			}
			err := r.hasRoom(c.declared)
			if (err != nil) != c.full {
				t.Fatalf("%v, want full: %t", err, c.full)
			}
			var f *fault.Error
			if c.full && (!errors.As(err, &f) || f.Kind != fault.NoSpace || f.Code != "disk_full" || f.Hint == "") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestNoRoomAnswersAtOnce: a client that waits for leave to send is spared it.
func TestNoRoomAnswersAtOnce(t *testing.T) {
	r := newRig(t, talks)
	r.Free = func(string) (int64, error) { return transcribe.Reserve, nil }
	srv := r.start(t)
	transport := &http.Transport{ExpectContinueTimeout: time.Minute, DisableKeepAlives: true}
	for _, path := range []string{"/v1/audio/transcriptions", "/transcribe", "/api/v1/transcriptions"} {
		asked := false
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+path, readerFunc(func([]byte) (int, error) {
			asked = true
			return 0, io.EOF
		}))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 1 << 20
		req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		req.Header.Set("Expect", "100-continue")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		read(resp).want(t, 507, "disk_full", "257 MiB", "256 MiB")
		if asked {
			t.Errorf("%s: the body was asked for", path)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
