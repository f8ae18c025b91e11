package model

import (
	"encoding/binary"
	"math"
	"testing"
)

func TestHalfIsExactForEveryHalf(t *testing.T) {
	for h := range uint32(1 << 16) {
		v := unhalf(uint16(h))
		if math.IsNaN(float64(v)) {
			if !math.IsNaN(float64(unhalf(half(v)))) {
				t.Errorf("%#04x: not a number became one", h)
			}
			continue
		}
		if half(v) != uint16(h) {
			t.Fatalf("%#04x → %v → %#04x", h, v, half(v))
		}
	}
}

func TestHalfRoundsToTheNearestAndToEven(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want uint16
	}{
		{0, 0}, {math.Copysign(0, -1), 0x8000}, {1, 0x3c00}, {-2, 0xc000}, {65504, 0x7bff},
		{65519.9, 0x7bff}, {65520, 0x7c00}, {1e30, 0x7c00}, {math.Inf(-1), 0xfc00},
		{1 + 1.0/2048, 0x3c00},    // a tie, down to even
		{1 + 3.0/2048, 0x3c02},    // a tie, up to even
		{1 + 1.01/2048, 0x3c01},   // just above
		{2047.0 / 2048, 0x3bff},   // just below 1
		{4095.0 / 4096, 0x3c00},   // carries into the exponent
		{math.Ldexp(1, -24), 1},   // the smallest
		{math.Ldexp(1, -25), 0},   // a tie with nothing, down to even
		{math.Ldexp(1.1, -25), 1}, // above it
		{math.Ldexp(1, -26), 0},
		{math.Ldexp(1023.7, -24), 0x0400}, // carries out of the subnormal
	} {
		if got := half(float32(c.v)); got != c.want {
			t.Errorf("half(%v) = %#04x and has to be %#04x", c.v, got, c.want)
		}
	}
}

func TestQ8Blocks(t *testing.T) {
	values := make([]float32, 3*quantBlock)
	for i := range 2 * quantBlock {
		values[i] = float32(math.Sin(float64(i))) * float32(1+i/quantBlock*9)
	}
	out := appendQ8(nil, values)
	if len(out) != 3*34 {
		t.Fatalf("three blocks have %d bytes and have to have 102", len(out))
	}
	for b := range 3 {
		block := out[b*34:]
		scale := unhalf(binary.LittleEndian.Uint16(block))
		for i := range quantBlock {
			got, want := float32(int8(block[2+i]))*scale, values[b*quantBlock+i]
			if !closeTo(float64(got), float64(want), float64(scale)*0.56) {
				t.Errorf("block %d value %d is %v and was %v, scale %v", b, i, got, want, scale)
			}
		}
	}
	if binary.LittleEndian.Uint16(out[68:]) != 0 {
		t.Error("a block of zeros has a scale")
	}
}
