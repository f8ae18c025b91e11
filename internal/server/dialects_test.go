package server

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/schedule"
)

// TestDialectsAreBounded: no place is no place at any door.
func TestDialectsAreBounded(t *testing.T) {
	r := newRig(t, talks)
	r.Service.Queue = &schedule.Queue{Most: func() int { return 1 }}
	leave, err := r.Service.Queue.Enter("somebody")
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	srv := r.start(t)
	for path, field := range map[string]string{"/asr": "audio_file", "/detect-language": "audio_file", "/inference": "file"} {
		a := post(t, srv.URL+path, recording(field))
		a.want(t, 429, "queue_full")
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("%s: %v", path, a.header)
		}
		if _, told := a.json(t)["detail"].(string); told != asrPath(path) {
			t.Errorf("%s answers %s", path, a.body)
		}
	}
}

// TestDialectsKeepAlive: long answers begin early and end as short ones do.
func TestDialectsKeepAlive(t *testing.T) {
	for path, c := range map[string]struct {
		parts []part
		text  bool
	}{
		"/asr?output=json":          {[]part{recording("audio_file")}, false},
		"/asr?output=txt":           {[]part{recording("audio_file")}, true},
		"/asr?output=vtt":           {[]part{recording("audio_file")}, true},
		"/asr?output=srt":           {[]part{recording("audio_file")}, true},
		"/asr?output=tsv":           {[]part{recording("audio_file")}, true},
		"/inference?json":           {[]part{recording("file")}, false},
		"/inference?verbose_json":   {[]part{recording("file"), {name: "response_format", value: "verbose_json"}}, false},
		"/inference?text":           {[]part{recording("file"), {name: "response_format", value: "text"}}, true},
		"/inference?srt":            {[]part{recording("file"), {name: "response_format", value: "srt"}, {name: "offset_n", value: "7"}}, true},
		"/inference?vtt":            {[]part{recording("file"), {name: "response_format", value: "vtt"}}, true},
		"/detect-language?encode=1": {[]part{recording("audio_file")}, false},
	} {
		t.Run(path, func(t *testing.T) {
			r, gate := early(t)
			url := r.start(t).URL + path
			if c.text {
				gate <- nil
			}
			resp := open(t, url, c.parts...)
			if resp.StatusCode != 200 || resp.ContentLength >= 0 {
				t.Errorf("%s, %d bytes", resp.Status, resp.ContentLength)
			}
			in := bufio.NewReader(resp.Body)
			first, err := in.ReadByte()
			if err != nil || first == ' ' != !c.text && path != "/inference?text" {
				t.Errorf("begins with %q, %v", first, err)
			}
			rest := 3
			if c.text {
				rest = 2
			}
			if strings.HasPrefix(path, "/detect") {
				rest = 1
			}
			for range rest {
				gate <- nil
			}
			body, err := io.ReadAll(in)
			if err != nil {
				t.Fatal(err)
			}
			long := string(first) + string(body)
			r.conf.Transcription.HeaderWait = time.Hour
			for range 3 {
				gate <- nil
			}
			at := post(t, url, c.parts...)
			if !c.text {
				long = strings.TrimLeft(long, " ")
			}
			if long != at.body || at.length < 0 || strings.HasPrefix(path, "/detect") != strings.Contains(long, "confidence") {
				t.Errorf("late  %q\nat once %q", long, at.body)
			}
			for name := range at.header {
				if name != "Content-Length" && name != "Date" && name != http.CanonicalHeaderKey(requestHeader) && at.header.Get(name) != resp.Header.Get(name) {
					t.Errorf("%s is %q at once and %q late", name, at.header.Get(name), resp.Header.Get(name))
				}
			}
			drain(gate)
		})
	}
}

func drain(gate chan error) {
	for len(gate) > 0 {
		<-gate
	}
}

// TestDialectsFailLate: a transfer that breaks off is no whole answer.
func TestDialectsFailLate(t *testing.T) {
	for path, field := range map[string]string{"/asr?output=srt": "audio_file", "/asr?output=json": "audio_file", "/inference": "file"} {
		r, gate := early(t)
		resp := open(t, r.start(t).URL+path, recording(field))
		gate <- nil
		gate <- &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
		if a := read(resp); a.status != 200 || !errors.Is(a.err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: status %d, then %q, %v: that looks whole", path, a.status, a.body, a.err)
		}
	}
}
