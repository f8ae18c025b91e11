package server

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"testing"
)

// modelFile writes the smallest model that the store takes for a good one,
// with holes where its weights would be: the layers of tiny, 64 wide.
type modelFile struct {
	*os.File
	t *testing.T
}

func writeModel(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const width, mels, vocab, tokens = 64, 80, 51865, 50257
	m := modelFile{f, t}
	m.ints(0x67676d6c, vocab, 1500, width, 1, 4, 448, width, 1, 1, mels, 0, mels, 201)
	m.hole(mels * 201 * 4)
	m.ints(tokens, 1)
	m.text(" ")
	m.hole((tokens - 1) * 4) // tokens of no length
	m.tensor("encoder.positional_embedding", width, 1500)
	m.tensor("encoder.conv1.weight", 3, mels, width)
	m.tensor("encoder.conv1.bias", 1, width)
	m.tensor("encoder.conv2.weight", 3, width, width)
	m.tensor("encoder.conv2.bias", 1, width)
	for i := range 4 {
		m.block(fmt.Sprintf("encoder.blocks.%d.", i), width, "attn")
	}
	m.norm("encoder.ln_post", width)
	m.tensor("decoder.positional_embedding", width, 448)
	m.tensor("decoder.token_embedding.weight", width, vocab)
	m.block("decoder.blocks.0.", width, "attn", "cross_attn")
	m.norm("decoder.ln", width)
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(end); err != nil { // the last tensor is a hole, too
		t.Fatal(err)
	}
}

func (m modelFile) ints(values ...int32) {
	if err := binary.Write(m, binary.LittleEndian, values); err != nil {
		m.t.Fatal(err)
	}
}

func (m modelFile) text(s string) {
	if _, err := m.WriteString(s); err != nil {
		m.t.Fatal(err)
	}
}

func (m modelFile) hole(size int64) {
	if _, err := m.Seek(size, io.SeekCurrent); err != nil {
		m.t.Fatal(err)
	}
}

func (m modelFile) tensor(name string, dims ...int32) {
	m.ints(int32(len(dims)), int32(len(name)), 0)
	m.ints(dims...)
	m.text(name)
	size := int64(4)
	for _, d := range dims {
		size *= int64(d)
	}
	m.hole(size)
}

func (m modelFile) block(prefix string, width int32, attentions ...string) {
	for _, a := range attentions {
		m.norm(prefix+a+"_ln", width)
		m.tensor(prefix+a+".key.weight", width, width)
		for _, part := range []string{".query", ".value", ".out"} {
			m.linear(prefix+a+part, width, width)
		}
	}
	m.norm(prefix+"mlp_ln", width)
	m.linear(prefix+"mlp.0", width, 4*width)
	m.linear(prefix+"mlp.2", 4*width, width)
}

func (m modelFile) linear(name string, in, out int32) {
	m.tensor(name+".weight", in, out)
	m.tensor(name+".bias", out)
}

func (m modelFile) norm(name string, width int32) {
	m.tensor(name+".weight", width)
	m.tensor(name+".bias", width)
}
