package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
)

// zeros is n bytes of nothing, made as they are read.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// bigForm is a form whose recording has n bytes, and its whole length.
func bigForm(n int64) (body io.Reader, length int64, kind string) {
	form, kind := encode(part{"file", "a.wav", "\x00\x01\x02"})
	head, tail, _ := strings.Cut(form, "\x00\x01\x02")
	return io.MultiReader(strings.NewReader(head), zeros(n), strings.NewReader(tail)), int64(len(head)+len(tail)) + n, kind
}

func TestUploadLimit(t *testing.T) {
	noLeaks(t)
	for name, c := range map[string]struct {
		size    int64
		chunked bool
		status  int
	}{
		"at the limit":                {64 << 10, false, 200},
		"at the limit, chunked":       {64 << 10, true, 200},
		"over it":                     {64<<10 + 1, false, 413},
		"over it, chunked":            {64<<10 + 1, true, 413},
		"far over it":                 {8 << 20, false, 413},
		"far over it, chunked":        {8 << 20, true, 413},
		"endless, length not known":   {1 << 30, true, 413},
		"1 GiB that nobody waits for": {1 << 30, false, 413},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := oneOfMany(t, talks)
			r.conf.Server.MaxUpload = 64 << 10
			body, length, kind := bigForm(c.size)
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.start(t).URL+"/v1/audio/transcriptions", body)
			req.Header.Set("Content-Type", kind)
			if !c.chunked {
				req.ContentLength = length
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			a := read(resp)
			a.want(t, c.status)
			if c.status == 413 {
				a.want(t, 413, "64KiB", "65536", `"code":"upload_too_large"`, `"param":"file"`)
			}
		})
	}
}

// TestEndlessForm: a body without an end is bounded also where it is no file.
func TestEndlessForm(t *testing.T) {
	noLeaks(t)
	for name, head := range map[string]string{
		"before the form": "no form",
		"in a field":      "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n",
		"after the form":  "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nsound\r\n--b--\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := oneOfMany(t, talks)
			r.conf.Server.MaxUpload = 64 << 10
			lines := repeatReader("a line that is no boundary\r\n")
			a := do(t, "POST", r.start(t).URL+"/v1/audio/transcriptions", io.MultiReader(strings.NewReader(head), lines),
				"Content-Type", "multipart/form-data; boundary=b")
			if a.status != 413 && a.status != 400 {
				t.Errorf("status %d: %s", a.status, a.body)
			}
		})
	}
}

// repeatReader gives its text for ever.
type repeatReader string

func (r repeatReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], r)
	}
	return n, nil
}

// TestTooLargeIsReadable: a client that sends all it has before it reads, as
// most do, still gets to read why it was refused.
func TestTooLargeIsReadable(t *testing.T) {
	r := newRig(t, talks)
	r.conf.Server.MaxUpload = 64 << 10
	conn := dial(t, r.start(t))
	body, length, kind := bigForm(32 << 20)
	fmt.Fprintf(conn, "POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", kind, length)
	if _, err := io.Copy(conn, body); err == nil {
		t.Log("everything could be sent")
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	a := read(resp)
	a.want(t, 413, "64KiB", `"field":"audio"`)
	if !resp.Close {
		t.Error("the connection stays open")
	}
}

// TestRefusedBeforeTheBody: nobody has to send 5 GB to learn that they are too many.
func TestRefusedBeforeTheBody(t *testing.T) {
	r := newRig(t, talks)
	conn := dial(t, r.start(t))
	fmt.Fprintf(conn, "POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", int64(5<<30))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	read(resp).want(t, 413, "4GiB")
}

// TestUploadMemory: the recording goes to disk, not into memory.
func TestUploadMemory(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	post(t, srv.URL+"/v1/audio/transcriptions", recording("file")).want(t, 200) // what is made once
	const size = 128 << 20
	r.engine.answer = func(context.Context, int, engine.WindowRequest, func(engine.Event)) (engine.Done, error) {
		return engine.Done{}, nil
	}
	r.Service.Decoder = sizeDecoder{t, size}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	body, length, kind := bigForm(size)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/v1/audio/transcriptions", body)
	req.Header.Set("Content-Type", kind)
	req.ContentLength = length
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	read(resp).want(t, 200)
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d KiB were allocated, both ends together, for %d MiB", allocated>>10, size>>20)
	if allocated > size/8 { // the race detector has pools give away what they keep
		t.Errorf("%d MiB were allocated for an upload of %d MiB", allocated>>20, size>>20)
	}
}

// sizeDecoder checks the file that it is given and finds silence in it.
type sizeDecoder struct {
	t    *testing.T
	size int64
}

func (d sizeDecoder) Decode(_ context.Context, f *os.File, _ decode.Limits, _ io.Writer) (decode.Info, error) {
	st, err := f.Stat()
	if err != nil || st.Size() != d.size || st.Mode().Perm() != 0o444 {
		d.t.Errorf("the decoder got a file of %d bytes, mode %v, %v", st.Size(), st.Mode(), err)
	}
	return decode.Info{}, err
}

// TestStalledUpload: a client that stands still is told so, and let go.
func TestStalledUpload(t *testing.T) {
	for name, sent := range map[string]string{
		"in the recording": "--b\r\nContent-Disposition: form-data; name=\"audio\"; filename=\"a.wav\"\r\n\r\nhalf",
		"in a field":       "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nti",
		"at once":          "",
		"after the form":   "--b\r\nContent-Disposition: form-data; name=\"audio\"; filename=\"a.wav\"\r\n\r\nx\r\n--b--\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, talks)
			r.Stall = 50 * time.Millisecond
			conn := dial(t, r.start(t))
			fmt.Fprintf(conn, "POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n%s", sent)
			answer := bufio.NewReader(conn)
			resp, err := http.ReadResponse(answer, nil)
			if err != nil {
				t.Fatal(err)
			}
			read(resp).want(t, 400, `"code":"upload_stalled"`, "50ms")
			if _, err := answer.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("the connection is still there: %v", err)
			}
		})
	}
}

// TestStalledRefusal: who is refused before the body is read cannot hold the
// connection by not sending it.
func TestStalledRefusal(t *testing.T) {
	for path, status := range map[string]int{"/nothing": 404, "/transcribe": 401, "/api/v1/engine/unload": 401} {
		t.Run(path, func(t *testing.T) {
			r := newRig(t, talks)
			r.Stall = 50 * time.Millisecond
			r.conf.Auth.OpenTo = "nobody"
			conn := dial(t, r.start(t))
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n", path)
			answer := bufio.NewReader(conn)
			resp, err := http.ReadResponse(answer, nil)
			if err != nil {
				t.Fatal(err)
			}
			read(resp).want(t, status)
			if _, err := answer.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("the connection is still there: %v", err)
			}
		})
	}
}

// TestSlowUpload: slow is not stalled.
func TestSlowUpload(t *testing.T) {
	r := newRig(t, talks)
	r.Stall = 400 * time.Millisecond
	body, kind := encode(recording("audio"))
	conn := dial(t, r.start(t))
	fmt.Fprintf(conn, "POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", kind, len(body))
	for piece := range slices.Chunk([]byte(body), len(body)/10+1) { // ten times 60 ms
		time.Sleep(60 * time.Millisecond)
		conn.Write(piece) //nolint:errcheck // the answer would tell
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	read(resp).want(t, 200, whole)
}

// TestDeadlineEndsWithTheUpload: the job may take longer than an upload may
// stand still, and the connection serves on.
func TestDeadlineEndsWithTheUpload(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		t.Run(fmt.Sprintf("chunked=%v", chunked), func(t *testing.T) {
			r := newRig(t, func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
				select {
				case <-time.After(100 * time.Millisecond):
					return talks(ctx, n, req, observe)
				case <-ctx.Done():
					return engine.Done{}, context.Cause(ctx)
				}
			})
			r.Stall = 150 * time.Millisecond
			url := r.start(t).URL + "/transcribe"
			for i := range 2 {
				form, kind := encode(recording("audio"))
				var body io.Reader = strings.NewReader(form)
				if chunked {
					body = io.MultiReader(body)
				}
				reused := false
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
					GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
				})
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
				req.Header.Set("Content-Type", kind)
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				read(resp).want(t, 200, whole)
				if i == 1 && !reused {
					t.Error("the connection was not kept")
				}
			}
		})
	}
}

// failingBody fails after its text.
type failingBody struct {
	io.Reader
	err error
}

func (b *failingBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

func (b *failingBody) Close() error { return nil }

// TestReceiveFails: what can go wrong with a body, in words.
func TestReceiveFails(t *testing.T) {
	const head = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nsound"
	const field = "\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ntiny\r\n"
	for name, c := range map[string]struct {
		body string
		err  error
		code string
	}{
		"cut off in the file":       {head, io.ErrUnexpectedEOF, "upload_incomplete"},
		"ends in the file":          {head, io.EOF, "upload_incomplete"},
		"ends in the boundary":      {head + "\r\n--", io.EOF, "upload_incomplete"},
		"connection reset":          {head, syscall.ECONNRESET, "upload_incomplete"},
		"deadline":                  {head, os.ErrDeadlineExceeded, "upload_stalled"},
		"something else":            {head, errors.New("odd"), "bad_multipart"},
		"deadline behind the form":  {head + "\r\n--b--\r\n", os.ErrDeadlineExceeded, "upload_stalled"},
		"no form":                   {"no form at all", io.EOF, "upload_incomplete"},
		"nothing":                   {"", io.EOF, "upload_incomplete"},
		"a part that is no part":    {"--b\r\nnonsense", io.EOF, "bad_multipart"},
		"header that never ends":    {"--b\r\nX: " + strings.Repeat("x", 100<<10), io.EOF, "missing_file"},
		"header lines without end":  {"--b\r\n" + strings.Repeat("X: y\r\n", 20000), io.EOF, "bad_multipart"},
		"many parts":                {strings.Repeat("--b\r\nContent-Disposition: form-data; name=\"include\"\r\n\r\nlogprobs\r\n", 65) + head, io.EOF, "too_many_fields"},
		"whole":                     {head + field + "--b--\r\n", io.EOF, ""},
		"whole, with a tail":        {head + field + "--b--\r\nepilogue", io.EOF, ""},
		"whole, without a line end": {head + "\r\n--b--", io.EOF, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, talks)
			req := httptest.NewRequest(http.MethodPost, "/v1/audio/transcriptions", &failingBody{strings.NewReader(c.body), c.err})
			req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
			u, err := r.receive(httptest.NewRecorder(), req, transcriptionForm)
			if c.code == "" {
				if err != nil || u.size != 5 || u.name != "a.wav" {
					t.Fatalf("%+v, %v", u, err)
				}
				u.Close()
				return
			}
			var f *fault.Error
			if !errors.As(err, &f) || f.Code != c.code || f.Kind != fault.BadInput || u != nil {
				t.Errorf("got %v and %+v, want %s", err, u, c.code)
			}
		})
	}
}

func TestSpoolFails(t *testing.T) {
	r := newRig(t, talks)
	r.Spool = "no such directory"
	a := post(t, r.start(t).URL+"/v1/audio/transcriptions", recording("file"))
	a.want(t, 500, `"code":"internal_error"`)
	if strings.Contains(a.body, "no such") {
		t.Error("the client sees our insides")
	}
	var f *fault.Error
	if err := spoolFault(fmt.Errorf("write: %w", syscall.ENOSPC)); !errors.As(err, &f) || f.Kind != fault.NoSpace || f.Hint == "" {
		t.Errorf("a full disk is %v", err)
	}
}

func TestContentType(t *testing.T) {
	r := newRig(t, talks)
	url := r.start(t).URL + "/v1/audio/transcriptions"
	for kind, code := range map[string]string{
		"application/json": "not_multipart", "": "not_multipart", ";;;": "not_multipart", "multipart/mixed; boundary=b": "not_multipart",
		"multipart/form-data": "bad_multipart", "multipart/form-data; boundary=" + strings.Repeat("x", 5000): "upload_incomplete",
	} {
		do(t, "POST", url, strings.NewReader("x"), "Content-Type", kind).want(t, 400, code)
	}
}
