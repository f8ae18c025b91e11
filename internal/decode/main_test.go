package decode

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// decoderDir holds the decoder program that TestMain builds.
const decoderDir = "WHISPER_APPLIANCE_TEST_DECODER"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == fakeDecoder {
		playDecoder(os.Args[2])
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "decode-test-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir, "../../cmd/whisper-appliance-decode")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the decoder: %v\n%s", err, out)
		return 1
	}
	os.Setenv(decoderDir, dir)
	return m.Run()
}

// realDecoder is the program as it is shipped.
func realDecoder(t testing.TB) *Decoder {
	t.Helper()
	needFFmpeg(t)
	return &Decoder{Program: []string{filepath.Join(os.Getenv(decoderDir), "whisper-appliance-decode")}}
}

func needFFmpeg(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
}

// fakeDecoder as first argument makes this test binary a decoder that
// misbehaves in the way that the second one names.
const fakeDecoder = "fake-decoder"

func fake(mode string) *Decoder {
	return &Decoder{Program: []string{os.Args[0], fakeDecoder, mode}}
}

func playDecoder(mode string) {
	f := os.NewFile(3, "conn")
	c, err := net.FileConn(f)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	conn := c.(*net.UnixConn)
	in, l, err := receiveRequest(conn)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	second := make([]byte, bytesPerSecond)
	switch mode {
	case "good":
		head := make([]byte, 4)
		in.ReadAt(head, 0)
		pcmFrames{conn}.Write(second)
		answer(conn, Info{Codec: string(head), SampleRate: int(l.MaxDuration / time.Second), Duration: time.Hour, Format: "a\x1b[31m\nb"}, nil)
	case "dies":
		pcmFrames{conn}.Write(second)
		fmt.Fprintln(os.Stderr, "a bug")
		os.Exit(3)
	case "huge frame":
		conn.Write(binary.LittleEndian.AppendUint32([]byte{framePCM}, 1<<31))
	case "unknown frame":
		writeFrame(conn, 'X', nil)
	case "half a sample":
		writeFrame(conn, framePCM, second[:6])
		answer(conn, Info{}, nil)
	case "no JSON":
		writeFrame(conn, frameDone, []byte("{"))
	case "strange code":
		answer(conn, Info{}, fail("<script>", "\x1b[2J"))
	case "endless":
		for err == nil {
			_, err = pcmFrames{conn}.Write(second)
		}
	case "silent":
		time.Sleep(time.Hour)
	}
	time.Sleep(50 * time.Millisecond)
	os.Exit(0)
}
