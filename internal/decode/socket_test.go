package decode

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// activated is a socket that starts the decoder for each connection, as systemd
// does where a unit says Accept=yes.
func activated(t *testing.T, d *Decoder) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wa")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "decode.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			file, err := conn.(*net.UnixConn).File()
			conn.Close()
			if err != nil {
				continue
			}
			cmd := exec.Command(d.Program[0], d.Program[1:]...)
			cmd.ExtraFiles, cmd.Env = []*os.File{file}, []string{"LISTEN_FDS=1", "PATH=" + os.Getenv("PATH")}
			if cmd.Start() == nil {
				file.Close()
				cmd.Wait() //nolint:errcheck // the client tells
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended; os.RemoveAll(dir) })
	return path
}

func TestDecoderBehindASocket(t *testing.T) {
	var n counter
	d := &Decoder{Socket: activated(t, fake("good"))}
	info, err := d.Decode(t.Context(), file(t, []byte("TEXT")), Limits{}, &n)
	if err != nil || info.Codec != "TEXT" || n != bytesPerSecond {
		t.Errorf("%+v, %d bytes, %v", info, n, err)
	}
	d.Socket = activated(t, fake("dies"))
	_, err = d.Decode(t.Context(), file(t, []byte("TEXT")), Limits{}, &n)
	if f := wantFault(t, err, CodeDecoderDied); !strings.Contains(f.Unwrap().Error(), "journalctl") {
		t.Errorf("%v does not say where the decoder's words are", f.Unwrap())
	}
	d.Socket = filepath.Join(t.TempDir(), "none")
	_, err = d.Decode(t.Context(), file(t, []byte("TEXT")), Limits{}, &n)
	if f := wantFault(t, err, CodeDecoderMissing); !strings.Contains(fault.Hint(f), "whisper-appliance-decode.socket") {
		t.Errorf("hint %q", fault.Hint(f))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	d.Socket = activated(t, fake("endless"))
	_, err = d.Decode(ctx, file(t, []byte("TEXT")), Limits{}, &n)
	wantFault(t, err, CodeCanceled)
}
