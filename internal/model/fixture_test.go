package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"whisper-appliance/internal/fault"
)

// smallShape is the smallest model that passes: tiny's layers, one head wide.
func smallShape() hparams {
	return hparams{
		Vocab: vocab99, AudioCtx: 1500, AudioState: 64, AudioHead: 1, AudioLayer: 4,
		TextCtx: 448, TextState: 64, TextHead: 1, TextLayer: 2, Mels: 80, FType: ftypeF16,
	}
}

// smallVocab has the tokens that matter: every byte, the space, an empty one.
func smallVocab() [][]byte {
	tokens := make([][]byte, vocabText)
	for i := range tokens {
		switch {
		case i < 256:
			tokens[i] = []byte{byte(i)}
		case i == vocabText-1:
			tokens[i] = []byte{}
		default:
			tokens[i] = fmt.Appendf(nil, " t%d\n", i)
		}
	}
	return tokens
}

// header is a model file up to its tensors, written here byte by byte.
func header(h hparams, tokens [][]byte) []byte {
	var b bytes.Buffer
	le := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, binary.LittleEndian, v)
		}
	}
	le(uint32(0x67676d6c), h.Vocab, h.AudioCtx, h.AudioState, h.AudioHead, h.AudioLayer,
		h.TextCtx, h.TextState, h.TextHead, h.TextLayer, h.Mels, h.FType)
	le(h.Mels, int32(201), make([]float32, h.Mels*201))
	le(int32(len(tokens)))
	for _, token := range tokens {
		le(uint32(len(token)))
		b.Write(token)
	}
	return b.Bytes()
}

func tensorEntry(t tensor) []byte {
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, []int32{int32(len(t.dims)), int32(len(t.name)), t.typ.id})
	binary.Write(&b, binary.LittleEndian, t.dims)
	b.WriteString(t.name)
	b.Write(make([]byte, t.size()))
	return b.Bytes()
}

// speechFile is a whole model file with weights of zero.
func speechFile(t *testing.T, h hparams) []byte {
	t.Helper()
	tensors, err := h.tensors()
	if err != nil {
		t.Fatal(err)
	}
	out := header(h, smallVocab())
	for _, tensor := range tensors {
		out = append(out, tensorEntry(tensor)...)
	}
	return out
}

// vadFile is a Silero file with weights of zero; it has the size of the real one.
func vadFile() []byte {
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, []uint32{0x67676d6c, 10})
	b.WriteString("silero-16k")
	binary.Write(&b, binary.LittleEndian, []int32{6, 2, 0})
	binary.Write(&b, binary.LittleEndian, vadShape())
	for _, tensor := range vadTensors() {
		b.Write(tensorEntry(tensor))
	}
	return b.Bytes()
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantFault checks kind and code and that the error says something.
func wantFault(t *testing.T, err error, kind fault.Kind, code string) *fault.Error {
	t.Helper()
	f, ok := err.(*fault.Error)
	if !ok {
		t.Fatalf("error is %T %v and has to be a fault %s", err, err, code)
	}
	if f.Kind != kind || f.Code != code || f.Message == "" {
		t.Fatalf("fault is %+v and has to be of kind %d with code %s", f, kind, code)
	}
	return f
}

// filesIn lists what a directory holds, hidden files included.
func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// shared finds a file of the directory "shared" beside the checkout.
func shared(t *testing.T, path string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if found := existing(filepath.Join(dir, "shared", path)); found != "" {
			return found
		}
	}
	t.Skipf("no shared/%s beside the checkout", path)
	return ""
}

func closeTo(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance }
