package smoke

import (
	"encoding/binary"
	"io"
	"testing"
	"time"
)

func TestClip(t *testing.T) {
	r, size := Clip()
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != size {
		t.Fatalf("%d bytes of %d, %v", len(data), size, err)
	}
	const header, second = 44, 32_000
	if n := binary.LittleEndian.Uint32(data[40:]); time.Duration(n)*time.Second/second != Length || int(n)+header != len(data) {
		t.Errorf("%d bytes of sound are not %v", n, Length)
	}
}

func TestRight(t *testing.T) {
	for text, want := range map[string]bool{
		said: true, "please open the window and let the fresh air into the room": true, "Please open a window, and let fresh air into the room": true,
		"": false, "thank you": false,
	} {
		if Right(text) != want {
			t.Errorf("%q is right: %v", text, !want)
		}
	}
}
