package model

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// expected lists the tensors that whisper.cpp names, with their shapes fastest
// first, written without the package's own list.
func expected(state, mels, vocab, audioLayers, textLayers int32) map[string][]int32 {
	n := state
	want := map[string][]int32{
		"encoder.positional_embedding": {n, 1500}, "decoder.positional_embedding": {n, 448},
		"encoder.conv1.weight": {3, mels, n}, "encoder.conv1.bias": {1, n},
		"encoder.conv2.weight": {3, n, n}, "encoder.conv2.bias": {1, n},
		"encoder.ln_post.weight": {n}, "encoder.ln_post.bias": {n},
		"decoder.token_embedding.weight": {n, vocab}, "decoder.ln.weight": {n}, "decoder.ln.bias": {n},
	}
	attention := func(at string) {
		for _, part := range []string{"query", "key", "value", "out"} {
			want[at+"."+part+".weight"] = []int32{n, n}
			if part != "key" {
				want[at+"."+part+".bias"] = []int32{n}
			}
		}
		want[at+"_ln.weight"], want[at+"_ln.bias"] = []int32{n}, []int32{n}
	}
	for system, layers := range map[string]int32{"encoder": audioLayers, "decoder": textLayers} {
		for i := range layers {
			b := fmt.Sprintf("%s.blocks.%d.", system, i)
			attention(b + "attn")
			if system == "decoder" {
				attention(b + "cross_attn")
			}
			want[b+"mlp.0.weight"], want[b+"mlp.0.bias"] = []int32{n, 4 * n}, []int32{4 * n}
			want[b+"mlp.2.weight"], want[b+"mlp.2.bias"] = []int32{4 * n, n}, []int32{n}
			want[b+"mlp_ln.weight"], want[b+"mlp_ln.bias"] = []int32{n}, []int32{n}
		}
	}
	return want
}

func family(name string) hparams {
	width, layers, text := map[string]int32{"tiny": 384, "base": 512, "small": 768, "medium": 1024, "large": 1280}, int32(0), int32(0)
	kind, _, _ := strings.Cut(strings.Split(name, ".")[0], "-")
	layers = map[string]int32{"tiny": 4, "base": 6, "small": 12, "medium": 24, "large": 32}[kind]
	if text = layers; strings.Contains(name, "turbo") {
		text = 4
	}
	h := hparams{
		Vocab: vocab99, AudioCtx: 1500, AudioState: width[kind], AudioHead: width[kind] / 64, AudioLayer: layers,
		TextCtx: 448, TextState: width[kind], TextHead: width[kind] / 64, TextLayer: text, Mels: 80, FType: ftypeF16,
	}
	switch {
	case strings.Contains(name, ".en"):
		h.Vocab = vocabEnglish
	case strings.HasPrefix(name, "large-v3"):
		h.Vocab, h.Mels = vocab100, 128
	}
	for suffix, ftype := range map[string]int32{"-q5_0": 2008, "-q5_1": 2009, "-q8_0": 2007} {
		if strings.HasSuffix(name, suffix) {
			h.FType = ftype
		}
	}
	return h
}

func TestTensorsAreThoseOfWhisperCpp(t *testing.T) {
	for name, count := range map[string]int{"tiny": 167, "base": 245, "large-v3-turbo": 587} {
		h := family(name)
		got, err := h.tensors()
		if err != nil {
			t.Fatal(err)
		}
		want := expected(h.AudioState, h.Mels, h.Vocab, h.AudioLayer, h.TextLayer)
		if len(got) != count || len(want) != count {
			t.Errorf("%s has %d tensors, %d are expected, and it has to be %d", name, len(got), len(want), count)
		}
		for _, tensor := range got {
			if !slices.Equal(tensor.dims, want[tensor.name]) {
				t.Errorf("%s has the shape %v and has to have %v", tensor.name, tensor.dims, want[tensor.name])
			}
		}
	}
}

// The bytes of all text tokens: of the multilingual vocabulary and of GPT-2's,
// which the English models have. With them every size in the catalogue follows.
const (
	multilingualText = 307_057
	englishText      = multilingualText + 13_770
)

func TestSizesFollowFromTheLayout(t *testing.T) {
	for _, e := range Catalogue() {
		if e.Kind == VAD {
			if got := int64(len(vadFile())); got != e.Size {
				t.Errorf("%s computes to %d bytes and has %d", e.Name, got, e.Size)
			}
			continue
		}
		h := family(e.Name)
		text := int64(multilingualText)
		if h.english() {
			text = englishText
		}
		size := h.headerSize(vocabText, text)
		tensors, err := h.tensors()
		if err != nil {
			t.Fatal(err)
		}
		for _, tensor := range tensors {
			size += tensor.entrySize()
		}
		if size != e.Size {
			t.Errorf("%s computes to %d bytes and stands with %d", e.Name, size, e.Size)
		}
		if err := h.check(); err != nil {
			t.Errorf("%s would be refused: %v", e.Name, err)
		}
		if kind, _, _ := strings.Cut(e.Name, "-q"); !strings.HasPrefix(kind, h.typeName()) {
			t.Errorf("%s calls itself %s", e.Name, h.typeName())
		}
	}
}
