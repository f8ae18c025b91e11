package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"whisper-appliance/internal/fault"
)

// Info is what a model file says of itself.
type Info struct {
	Kind         Kind   `json:"kind"`
	Type         string `json:"type"`              // tiny … large-v3-turbo; silero-16k
	Version      string `json:"version,omitempty"` // of a VAD model
	Format       string `json:"format"`            // f16, q8_0, …: how the weights are stored
	Multilingual bool   `json:"multilingual,omitempty"`
	Vocab        int    `json:"vocab,omitempty"` // tokens, special ones included
	Mels         int    `json:"mels,omitempty"`  // 80 or 128
	Tensors      int    `json:"tensors"`
	Size         int64  `json:"size"` // bytes
}

// Inspect reads the structure of a model file, from its first byte to its last,
// without the weights. What it accepts is complete and of the shapes that
// whisper.cpp needs. A file that is not is a BadInput fault, bad_model_file,
// that says what is wrong with it.
func Inspect(path string) (Info, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, fault.New(fault.NotFound, "no_such_file", "there is no file %s", path).Because(err)
	}
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	if !st.Mode().IsRegular() {
		return Info{}, bad(path, errors.New("it is not a regular file"))
	}
	info, err := inspect(&cursor{r: f, size: st.Size()})
	if err != nil {
		return Info{}, bad(path, err)
	}
	info.Size = st.Size()
	return info, nil
}

func bad(path string, err error) error {
	return fault.New(fault.BadInput, "bad_model_file", "%s is not a model that can be used", filepath.Base(path)).
		Because(err).Try("fetch it again: `whisper-appliance models pull NAME`")
}

func inspect(c *cursor) (Info, error) {
	if first := uint32(c.int32()); c.err == nil && first != magic {
		return Info{}, fmt.Errorf("it begins with %#08x and a GGML file with %#08x", first, magic)
	}
	first := c.int32()
	c.off = 4
	if first == int32(len(vadType)) {
		return inspectVAD(c)
	}
	return inspectSpeech(c)
}

func inspectSpeech(c *cursor) (Info, error) {
	var h hparams
	for _, field := range h.fields() {
		*field = c.int32()
	}
	if c.err != nil {
		return Info{}, c.err
	}
	if err := h.check(); err != nil {
		return Info{}, err
	}
	if err := checkMels(c, h); err != nil {
		return Info{}, fmt.Errorf("mel filters: %w", err)
	}
	if err := checkVocab(c, h); err != nil {
		return Info{}, fmt.Errorf("vocabulary: %w", err)
	}
	want, err := h.tensors()
	if err != nil {
		return Info{}, err
	}
	if err := checkTensors(c, want); err != nil {
		return Info{}, err
	}
	wide, _ := h.wideType()
	return Info{
		Kind: Speech, Type: h.typeName(), Format: wide.name, Multilingual: !h.english(),
		Vocab: int(h.Vocab), Mels: int(h.Mels), Tensors: len(want),
	}, nil
}

// check refuses numbers that whisper.cpp would stumble over: it sizes its
// buffers by some and assumes others.
func (h hparams) check() error {
	type rule struct {
		what string
		is   int32
		ok   bool
		want string
	}
	wide, known := h.wideType()
	rules := []rule{
		{"the vocabulary", h.Vocab, h.Vocab >= vocabEnglish && h.Vocab <= vocab100, "51864 to 51866"},
		{"the audio context", h.AudioCtx, h.AudioCtx == 1500, "1500"},
		{"the audio width", h.AudioState, h.AudioState > 0 && h.AudioState <= 4096 && h.AudioState%64 == 0, "a multiple of 64 up to 4096"},
		{"the number of audio heads", h.AudioHead, h.AudioHead == h.AudioState/64, "a head for each 64 of the width"},
		// whisper.cpp looks the model's name up by this number and throws where there is none.
		{"the number of audio layers", h.AudioLayer, slices.Contains([]int32{4, 6, 12, 24, 32}, h.AudioLayer), "4, 6, 12, 24 or 32"},
		{"the text context", h.TextCtx, h.TextCtx == 448, "448"},
		{"the text width", h.TextState, h.TextState == h.AudioState, "the same as the audio width"},
		{"the number of text heads", h.TextHead, h.TextHead == h.TextState/64, "a head for each 64 of the width"},
		{"the number of text layers", h.TextLayer, h.TextLayer > 0 && h.TextLayer <= 32, "1 to 32"},
		{"the number of mel bins", h.Mels, h.Mels == 80 || h.Mels == 128, "80 or 128"},
		{"the format", h.FType, known && h.FType >= 0, "f32, f16 or a quantisation"},
		{"the quantisation's version", h.FType / quantVersionFactor,
			!known || wide.block == 1 || h.FType/quantVersionFactor == quantVersion, "2"},
		{"the width", h.AudioState, !known || int64(h.AudioState)%wide.block == 0, "a multiple of the format's block"},
	}
	for _, r := range rules {
		if !r.ok {
			return fmt.Errorf("%s is %d and has to be %s", r.what, r.is, r.want)
		}
	}
	return nil
}

func (h hparams) typeName() string {
	name := map[int32]string{4: "tiny", 6: "base", 12: "small", 24: "medium", 32: "large"}[h.AudioLayer]
	if h.AudioLayer == 32 && h.Vocab == vocab100 {
		name = "large-v3"
	}
	switch {
	case h.AudioLayer == 32 && h.TextLayer == 4:
		name += "-turbo"
	case h.TextLayer < h.AudioLayer:
		name = "distil-" + name
	}
	if h.english() {
		name += ".en"
	}
	return name
}

func checkMels(c *cursor, h hparams) error {
	mels, bins := c.int32(), c.int32()
	if c.err != nil {
		return c.err
	}
	if mels != h.Mels || bins != spectrumBins {
		return fmt.Errorf("they are %d × %d and have to be %d × %d", mels, bins, h.Mels, spectrumBins)
	}
	data := c.next(int(mels * bins * 4))
	for ; len(data) > 0; data = data[4:] {
		v := float64(math.Float32frombits(binary.LittleEndian.Uint32(data)))
		if math.IsNaN(v) || v < 0 || v > 1 {
			return fmt.Errorf("%v is not a filter's weight", v)
		}
	}
	return c.err
}

// longestToken bounds one token's bytes; GPT-2's longest has 128.
const longestToken = 1024

func checkVocab(c *cursor, h hparams) error {
	tokens := c.int32()
	if c.err != nil {
		return c.err
	}
	if tokens < vocabText-1 || tokens > h.Vocab {
		return fmt.Errorf("it has %d tokens and has to have %d to %d", tokens, vocabText-1, h.Vocab)
	}
	space := false
	for i := range tokens {
		length := c.int32()
		if length < 0 || length > longestToken {
			return fmt.Errorf("token %d has %d bytes and may have %d at most", i, length, longestToken)
		}
		token := string(c.next(int(length)))
		space = space || token == " "
		if c.err != nil {
			return c.err
		}
	}
	if !space {
		// whisper.cpp looks this token up for each window and crashes without it.
		return errors.New("the token for a space is missing")
	}
	return nil
}

// checkTensors walks over the tensors to the end of the file: each of want has
// to be there once, in any order, and nothing else.
func checkTensors(c *cursor, want []tensor) error {
	missing := make(map[string]tensor, len(want))
	for _, t := range want {
		missing[t.name] = t
	}
	for c.off < c.size {
		name, err := checkTensor(c, missing)
		if err != nil {
			return err
		}
		delete(missing, name)
	}
	for _, t := range want {
		if _, ok := missing[t.name]; ok {
			return fmt.Errorf("%w: %d of %d tensors are missing, the first is %s", errShort, len(missing), len(want), t.name)
		}
	}
	return nil
}

func checkTensor(c *cursor, missing map[string]tensor) (string, error) {
	start := c.off
	nDims, length, typ := c.int32(), c.int32(), c.int32()
	if c.err == nil && (nDims < 0 || nDims > 4 || length < 1 || length > 256) {
		return "", fmt.Errorf("no tensor begins at byte %d", start)
	}
	var dims []int32
	for range nDims {
		dims = append(dims, c.int32())
	}
	name := string(c.next(int(length)))
	if c.err != nil {
		return "", c.err
	}
	t, ok := missing[name]
	switch {
	case !ok:
		return "", fmt.Errorf("tensor %q is one too many", name)
	case typ != t.typ.id:
		return "", fmt.Errorf("tensor %s is of type %d and has to be of type %d (%s)", name, typ, t.typ.id, t.typ.name)
	case !sameShape(dims, t.dims):
		return "", fmt.Errorf("tensor %s has the shape %v and has to have %v", name, dims, t.dims)
	}
	if c.skip(t.size()); c.err != nil {
		return "", fmt.Errorf("tensor %s: %w", name, c.err)
	}
	return name, nil
}

// sameShape compares as ggml does: dimensions that are not given are 1.
func sameShape(a, b []int32) bool {
	for i := range 4 {
		if dim(a, i) != dim(b, i) {
			return false
		}
	}
	return true
}

func dim(dims []int32, i int) int32 {
	if i < len(dims) {
		return dims[i]
	}
	return 1
}
