package audio

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

func TestPCMFile(t *testing.T) {
	dir := t.TempDir()
	p, err := CreatePCM(dir)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("the spool has a name: %v", left)
	}
	want := ramp(50000)
	raw := make([]byte, len(want)*SampleSize)
	encodeF32(raw, want)
	for step, rest := 1, raw; len(rest) > 0; step = step*3 + 1 { // pieces from 1 byte to more than the buffer
		n := min(step, len(rest))
		if _, err := p.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if p.Duration() != Duration(50000) {
		t.Errorf("duration %v, want %v", p.Duration(), Duration(50000))
	}
	got, err := p.ReadWindow(0, time.Hour)
	if err != nil || !equal(got, want) {
		t.Errorf("whole window: %d samples, %v", len(got), err)
	}
	got, err = p.ReadWindow(time.Second, 2*time.Second)
	if err != nil || !equal(got, want[16000:32000]) {
		t.Errorf("second window: %d samples, %v", len(got), err)
	}
	if _, err := p.ReadWindow(2*time.Second, time.Second); err == nil {
		t.Error("a window that ends before it starts was read")
	}
	if got, err := p.ReadWindow(p.Duration(), p.Duration()); err != nil || len(got) != 0 {
		t.Errorf("empty window: %d samples, %v", len(got), err)
	}
	if n, err := p.ReadSamples(make([]float32, 10), 49995); n != 5 || err != io.EOF {
		t.Errorf("read over the end: %d, %v; want 5, EOF", n, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPCMFileSilencesWhatIsNoNumber(t *testing.T) {
	p, err := CreatePCM(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	in := []float32{0.25, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), -0.25}
	raw := make([]byte, len(in)*SampleSize)
	encodeF32(raw, in)
	p.Write(raw)
	got, err := p.ReadWindow(0, time.Second)
	if err != nil || !equal(got, []float32{0.25, 0, 0, 0, -0.25}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestPCMFileFullDisk(t *testing.T) {
	full, err := os.OpenFile(filepath.Join(filepath.Dir(os.DevNull), "full"), os.O_RDWR, 0)
	if err != nil {
		t.Skip("no device that is always full: ", err)
	}
	p := &PCMFile{f: full}
	defer p.Close()
	_, err = p.Write(make([]byte, 2*pcmBuffer))
	if fault.KindOf(err) != fault.NoSpace || !errors.Is(err, syscall.ENOSPC) || fault.Hint(err) == "" {
		t.Errorf("got %v, want NoSpace with a hint", err)
	}
	if _, again := p.Write([]byte{0}); again == nil {
		t.Error("a write after the failed one passed")
	}
	if _, err := CreatePCM(t.TempDir() + "/absent"); err == nil {
		t.Error("made in a directory that does not exist")
	}
}

func ramp(n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(i%2000)/1000 - 1
	}
	return s
}

func equal(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// encodeF32 is the reverse of decodeF32.
func encodeF32(dst []byte, src []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint32(dst[i*SampleSize:], math.Float32bits(v))
	}
}
