package model

import (
	"fmt"
	"slices"
)

// A GGML file of Whisper, little endian throughout:
//
//	uint32  magic
//	int32   × 11, the hyperparameters
//	int32   mel bins, spectrum bins; then that many float32: the mel filters
//	int32   tokens; per token uint32 length and its bytes
//	tensors to the end: int32 dimensions, name length, type; then the
//	        dimensions (int32, fastest first), the name and the data
const magic = 0x67676d6c

// spectrumBins is half of Whisper's 400 sample transform and the constant part;
// whisper.cpp aborts on any other number.
const spectrumBins = 201

// hparams are a model's eleven numbers, in the order of the file.
type hparams struct {
	Vocab      int32
	AudioCtx   int32
	AudioState int32
	AudioHead  int32
	AudioLayer int32
	TextCtx    int32
	TextState  int32
	TextHead   int32
	TextLayer  int32
	Mels       int32
	FType      int32 // the wide tensors' format, plus 1000 times the quantisation's version
}

func (h *hparams) fields() []*int32 {
	return []*int32{
		&h.Vocab, &h.AudioCtx, &h.AudioState, &h.AudioHead, &h.AudioLayer,
		&h.TextCtx, &h.TextState, &h.TextHead, &h.TextLayer, &h.Mels, &h.FType,
	}
}

// English tells whether the vocabulary is the one without languages.
func (h hparams) english() bool { return h.Vocab == vocabEnglish }

// The sizes of Whisper's vocabulary: English only, 99 languages, 100 languages.
const (
	vocabEnglish = 51864
	vocab99      = 51865
	vocab100     = 51866

	// vocabText is how many of these are text; whisper.cpp makes up the rest.
	vocabText = 50257
)

// ggmlType is how a tensor's values are stored.
type ggmlType struct {
	id    int32 // in a tensor's header
	ftype int32 // in the hyperparameters, where a file can be of this type
	name  string
	block int64 // values in a block
	bytes int64 // bytes of a block
}

const (
	typeF32  = 0
	typeF16  = 1
	typeQ8_0 = 8

	ftypeF16  = 1
	ftypeQ8_0 = 7

	// quantVersion says that the blocks' scales are float16; earlier layouts
	// differ and whisper.cpp does not look.
	quantVersion       = 2
	quantVersionFactor = 1000
)

// types are those that whisper.cpp loads for Whisper's weights.
func types() []ggmlType {
	return []ggmlType{
		{typeF32, 0, "f32", 1, 4},
		{typeF16, ftypeF16, "f16", 1, 2},
		{2, 2, "q4_0", 32, 18},
		{3, 3, "q4_1", 32, 20},
		{6, 8, "q5_0", 32, 22},
		{7, 9, "q5_1", 32, 24},
		{typeQ8_0, ftypeQ8_0, "q8_0", 32, 34},
		{10, 10, "q2_k", 256, 84},
		{11, 11, "q3_k", 256, 110},
		{12, 12, "q4_k", 256, 144},
		{13, 13, "q5_k", 256, 176},
		{14, 14, "q6_k", 256, 210},
	}
}

func typeBy(match func(ggmlType) bool) (ggmlType, bool) {
	all := types()
	i := slices.IndexFunc(all, match)
	if i < 0 {
		return ggmlType{}, false
	}
	return all[i], true
}

func typeByID(id int32) (ggmlType, bool) {
	return typeBy(func(t ggmlType) bool { return t.id == id })
}

// wideType is the type of the file's wide tensors.
func (h hparams) wideType() (ggmlType, bool) {
	return typeBy(func(t ggmlType) bool { return t.ftype == h.FType%quantVersionFactor })
}

// size is the bytes that n values take.
func (t ggmlType) size(n int64) int64 { return n / t.block * t.bytes }

// tensor is one that the file must have.
type tensor struct {
	name string
	dims []int32 // fastest first, as in the file
	typ  ggmlType
}

func (t tensor) values() int64 {
	n := int64(1)
	for _, d := range t.dims {
		n *= int64(d)
	}
	return n
}

func (t tensor) size() int64 { return t.typ.size(t.values()) }

// entrySize is the tensor with its header.
func (t tensor) entrySize() int64 {
	return int64(3*4+4*len(t.dims)+len(t.name)) + t.size()
}

// layout collects the tensors of one model.
type layout struct {
	tensors         []tensor
	f32, conv, wide ggmlType
}

// tensors lists what whisper.cpp expects of such a model. Weights with two
// dimensions are of the file's type; those of the convolutions are f16 in all
// but an f32 file; everything else is f32.
func (h hparams) tensors() ([]tensor, error) {
	wide, ok := h.wideType()
	if !ok {
		return nil, fmt.Errorf("its format %d is not one that can be loaded", h.FType)
	}
	l := &layout{wide: wide}
	l.f32, _ = typeByID(typeF32)
	l.conv, _ = typeByID(typeF16)
	if wide.id == typeF32 {
		l.conv = l.f32
	}
	l.encoder(h)
	l.decoder(h)
	return l.tensors, nil
}

func (l *layout) add(typ ggmlType, name string, dims ...int32) {
	l.tensors = append(l.tensors, tensor{name, dims, typ})
}

func (l *layout) encoder(h hparams) {
	n := h.AudioState
	l.add(l.f32, "encoder.positional_embedding", n, h.AudioCtx)
	l.add(l.conv, "encoder.conv1.weight", 3, h.Mels, n)
	l.add(l.f32, "encoder.conv1.bias", 1, n)
	l.add(l.conv, "encoder.conv2.weight", 3, n, n)
	l.add(l.f32, "encoder.conv2.bias", 1, n)
	for i := range h.AudioLayer {
		l.block(fmt.Sprintf("encoder.blocks.%d.", i), n, false)
	}
	l.norm("encoder.ln_post", n)
}

func (l *layout) decoder(h hparams) {
	n := h.TextState
	l.add(l.f32, "decoder.positional_embedding", n, h.TextCtx)
	l.add(l.wide, "decoder.token_embedding.weight", n, h.Vocab)
	for i := range h.TextLayer {
		l.block(fmt.Sprintf("decoder.blocks.%d.", i), n, true)
	}
	l.norm("decoder.ln", n)
}

func (l *layout) block(prefix string, n int32, cross bool) {
	l.attention(prefix+"attn", n)
	if cross {
		l.attention(prefix+"cross_attn", n)
	}
	l.norm(prefix+"mlp_ln", n)
	l.linear(prefix+"mlp.0", n, 4*n)
	l.linear(prefix+"mlp.2", 4*n, n)
}

func (l *layout) attention(prefix string, n int32) {
	l.norm(prefix+"_ln", n)
	l.linear(prefix+".query", n, n)
	l.add(l.wide, prefix+".key.weight", n, n) // keys have no bias
	l.linear(prefix+".value", n, n)
	l.linear(prefix+".out", n, n)
}

func (l *layout) linear(prefix string, in, out int32) {
	l.add(l.wide, prefix+".weight", in, out)
	l.add(l.f32, prefix+".bias", out)
}

func (l *layout) norm(prefix string, n int32) {
	l.add(l.f32, prefix+".weight", n)
	l.add(l.f32, prefix+".bias", n)
}

// headerSize is everything before the tensors; vocab is the bytes of the
// tokens' text.
func (h hparams) headerSize(tokens int, vocab int64) int64 {
	const fixed = 4 + 11*4 + 2*4 + 4
	return fixed + int64(h.Mels)*spectrumBins*4 + int64(tokens)*4 + vocab
}
