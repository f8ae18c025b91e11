package model

import (
	"encoding/binary"
	"math"
)

// half rounds to the nearest float16, to the even one between two; what is too
// large becomes infinite.
func half(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b >> 16 & 0x8000)
	exp := int(b>>23&0xff) - 127
	frac := b & 0x7fffff
	switch {
	case exp == 128 && frac != 0:
		return sign | 0x7e00 // not a number
	case exp > 15:
		return sign | 0x7c00
	case exp >= -14:
		// A carry out of the fraction rightly raises the exponent.
		return sign | uint16(round(uint32(exp+15)<<23|frac, 13))
	case exp >= -25:
		return sign | uint16(round(frac|0x800000, uint(-exp-1)))
	default:
		return sign
	}
}

// round drops the low bits, to the nearest and then to the even.
func round(v uint32, bits uint) uint32 {
	kept := v >> bits
	rest, tie := v&(1<<bits-1), uint32(1)<<(bits-1)
	if rest > tie || rest == tie && kept&1 == 1 {
		kept++
	}
	return kept
}

// unhalf widens a float16.
func unhalf(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0:
		v := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	default:
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	}
}

func appendF32(out []byte, values []float32) []byte {
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}

func appendF16(out []byte, values []float32) []byte {
	for _, v := range values {
		out = binary.LittleEndian.AppendUint16(out, half(v))
	}
	return out
}

// quantBlock is the number of values that share a scale in q8_0.
const quantBlock = 32

// appendQ8 writes blocks of q8_0: a float16 scale and 32 signed bytes each.
// Values pass through float16 first, so that the file is the one that upstream's
// quantiser makes of the f16 file.
func appendQ8(out []byte, values []float32) []byte {
	for ; len(values) >= quantBlock; values = values[quantBlock:] {
		out = appendBlock(out, values[:quantBlock])
	}
	return out
}

func appendBlock(out []byte, values []float32) []byte {
	var v [quantBlock]float32
	var most float32
	for i := range v {
		v[i] = unhalf(half(values[i]))
		most = max(most, float32(math.Abs(float64(v[i]))))
	}
	scale := most / 127
	inverse := float32(0)
	if scale != 0 {
		inverse = 1 / scale
	}
	out = binary.LittleEndian.AppendUint16(out, half(scale))
	for _, x := range v {
		out = append(out, byte(int8(math.Round(float64(x*inverse)))))
	}
	return out
}
