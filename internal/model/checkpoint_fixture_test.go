package model

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// fakeCheckpoint writes a Whisper checkpoint in ONNX form whose weights are
// known, in one of the forms that exporters make.
type fakeCheckpoint struct {
	t         *testing.T
	h         hparams
	quantised bool // 8 bits: encoder unsigned and whole, decoder signed and by column
	half      bool // float16
	merged    bool // the decoder's nodes in the branches of a conditional
	folded    bool // linear weights lie transposed, under names that say nothing

	// truth has each weight under whisper.cpp's name, [out, in], as the file says it.
	truth map[string][]float32
}

// fakeWeights makes deterministic numbers between -1 and 1, others for each name.
func fakeWeights(name string, n int64) []float32 {
	h := fnv.New32a()
	io.WriteString(h, name)
	x, out := h.Sum32()|1, make([]float32, n)
	for i := range out {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		out[i] = float32(int32(x)>>8) / (1 << 23)
	}
	return out
}

func (f *fakeCheckpoint) write(dir string) {
	f.truth = map[string][]float32{}
	config := map[string]any{
		"model_type": "whisper", "vocab_size": f.h.Vocab, "max_source_positions": f.h.AudioCtx, "d_model": f.h.AudioState,
		"encoder_attention_heads": f.h.AudioHead, "encoder_layers": f.h.AudioLayer, "max_target_positions": f.h.TextCtx,
		"decoder_attention_heads": f.h.TextHead, "decoder_layers": f.h.TextLayer, "num_mel_bins": f.h.Mels,
	}
	f.json(filepath.Join(dir, "config.json"), config)
	f.json(filepath.Join(dir, "vocab.json"), fakeVocab())
	f.json(filepath.Join(dir, "added_tokens.json"), map[string]int{"<|en|>": 50259})
	suffix := ""
	if f.quantised {
		suffix = "_quantized"
	}
	decoder := "decoder_model"
	if f.merged {
		decoder += "_merged"
	}
	write(f.t, filepath.Join(dir, "onnx", "encoder_model"+suffix+".onnx"), f.graph("encoder"))
	write(f.t, filepath.Join(dir, "onnx", decoder+suffix+".onnx"), f.graph("decoder"))
}

func (f *fakeCheckpoint) json(path string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	write(f.t, path, data)
}

// fakeVocab is smallVocab in GPT-2's spelling, with the special token above it.
func fakeVocab() map[string]int {
	spelled := map[byte]rune{}
	for r, b := range byteAlphabet() {
		spelled[b] = r
	}
	vocab := map[string]int{"<|endoftext|>": vocabText}
	for id, token := range smallVocab() {
		var text strings.Builder
		for _, b := range token {
			text.WriteRune(spelled[b])
		}
		vocab[text.String()] = id
	}
	return vocab
}

// graphWriter collects one ONNX graph.
type graphWriter struct {
	*fakeCheckpoint
	inits, nodes []byte
	merged       string // what a merged decoder's constants end in
	count        int
}

// graph is the whole file of encoder or decoder.
func (f *fakeCheckpoint) graph(system string) []byte {
	w := &graphWriter{fakeCheckpoint: f}
	if f.merged && system == "decoder" {
		w.merged = "_merged_0"
	}
	n := int64(f.h.AudioState)
	prefix, node, layers := "", "/", f.h.AudioLayer
	if system == "decoder" {
		prefix, node, layers = "model.decoder.", "/model/decoder/", f.h.TextLayer
		w.plain(prefix+"embed_positions.weight", "decoder.positional_embedding", int64(f.h.TextCtx), n)
		w.eightBit(prefix+"embed_tokens.weight", "decoder.token_embedding.weight", int64(f.h.Vocab), n)
		w.vector(prefix+"layer_norm", "decoder.ln", n)
	} else {
		w.plain("embed_positions.weight", "encoder.positional_embedding", int64(f.h.AudioCtx), n)
		w.eightBit("conv1.weight", "encoder.conv1.weight", n, int64(f.h.Mels), 3)
		w.plain("conv1.bias", "encoder.conv1.bias", n)
		w.eightBit("conv2.weight", "encoder.conv2.weight", n, n, 3)
		w.plain("conv2.bias", "encoder.conv2.bias", n)
		w.vector("layer_norm", "encoder.ln_post", n)
	}
	for i := range layers {
		layer, block := fmt.Sprintf("layers.%d.", i), fmt.Sprintf("%s.blocks.%d.", system, i)
		w.attention(prefix, node, layer+"self_attn", block+"attn", n)
		if system == "decoder" {
			w.attention(prefix, node, layer+"encoder_attn", block+"cross_attn", n)
		}
		w.vector(prefix+layer+"final_layer_norm", block+"mlp_ln", n)
		w.linear(prefix, node, layer+"fc1", block+"mlp.0", n, 4*n, true)
		w.linear(prefix, node, layer+"fc2", block+"mlp.2", 4*n, n, true)
	}
	// What a real graph also has: a product of two results, and the output head.
	w.node("MatMul", node+"layers.0/self_attn/MatMul", "", "q", "k")
	w.node("MatMul", "/proj_out/MatMul", "", "hidden", "turned")
	return w.file()
}

func (w *graphWriter) attention(prefix, node, module, name string, n int64) {
	for _, p := range [][2]string{{"q_proj", "query"}, {"k_proj", "key"}, {"v_proj", "value"}, {"out_proj", "out"}} {
		w.linear(prefix, node, module+"."+p[0], name+"."+p[1], n, n, p[1] != "key")
	}
	w.vector(prefix+module+"_layer_norm", name+"_ln", n)
}

func (w *graphWriter) vector(module, name string, n int64) {
	w.plain(module+".weight", name+".weight", n)
	w.plain(module+".bias", name+".bias", n)
}

func (w *graphWriter) linear(prefix, node, module, name string, in, out int64, bias bool) {
	if bias {
		w.plain(prefix+module+".bias", name+".bias", out)
	}
	path := node + strings.ReplaceAll(strings.ReplaceAll(module, ".", "/"), "layers/", "layers.") + "/MatMul"
	weight := name + ".weight"
	w.count++
	switch {
	case w.quantised:
		stored := w.eightBitTurned(fmt.Sprintf("onnx::MatMul_%d", w.count), weight, out, in)
		w.node("MatMulInteger", path+"_quant", "", "x_quantized", stored, "x_zero_point", strings.TrimSuffix(stored, "_quantized")+"_zero_point")
	case w.folded:
		stored := fmt.Sprintf("onnx::MatMul_%d", w.count) + w.merged
		w.tensor(stored, turned(w.values(weight, out*in), out, in), in, out)
		w.node("MatMul", path, "", "x", stored)
	default:
		w.plain(prefix+module+".weight", weight, out, in)
		w.node("Transpose", path+"_turn", "t"+stored(w.count), prefix+module+".weight"+w.merged)
		w.node("Identity", path+"_same", "i"+stored(w.count), "t"+stored(w.count))
		w.node("MatMul", path, "", "x", "i"+stored(w.count))
	}
}

func stored(n int) string { return fmt.Sprintf("_%d", n) }

func turned(values []float32, rows, cols int64) []float32 {
	out := make([]float32, 0, len(values))
	for c := range cols {
		for r := range rows {
			out = append(out, values[r*cols+c])
		}
	}
	return out
}

// values makes a weight and notes it as the truth, rounded where the file is.
func (w *graphWriter) values(name string, n int64) []float32 {
	out := fakeWeights(name, n)
	for i := range out {
		if w.half {
			out[i] = unhalf(half(out[i]))
		}
	}
	w.truth[name] = out
	return out
}

func (w *graphWriter) plain(constant, name string, dims ...int64) {
	w.tensor(constant+w.merged, w.values(name, product(dims)), dims...)
}

func product(dims []int64) int64 {
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	return n
}

// eightBit stores a weight with one scale and zero point where the checkpoint
// is quantised, and plain where it is not.
func (w *graphWriter) eightBit(constant, name string, dims ...int64) {
	if !w.quantised {
		w.plain(constant, name, dims...)
		return
	}
	const scale, zero = 1.0 / 120, 131
	values := w.values(name, product(dims))
	raw := make([]byte, len(values))
	for i, v := range values {
		raw[i] = byte(math.Round(float64(v)/scale) + zero)
		values[i] = (float32(raw[i]) - zero) * float32(scale)
	}
	constant += w.merged
	w.raw(constant+"_quantized", onnxUint8, raw, dims...)
	w.floats(constant+"_scale", scale)
	w.ints(constant+"_zero_point", onnxUint8, zero)
}

// eightBitTurned stores a linear weight [in, out], signed, with a scale and a
// zero point for each output.
func (w *graphWriter) eightBitTurned(constant, name string, out, in int64) string {
	values := w.values(name, out*in)
	scales, zeros := make([]float32, out), make([]byte, out)
	raw := make([]byte, len(values))
	for o := range out {
		scales[o], zeros[o] = 1/float32(100+o%20), byte(int8(o%5-2))
		for i := range in {
			v := &values[o*in+i]
			q := int8(math.Round(float64(*v/scales[o]))) + int8(zeros[o])
			raw[i*out+o] = byte(q)
			*v = (float32(q) - float32(int8(zeros[o]))) * scales[o]
		}
	}
	constant += w.merged
	w.raw(constant+"_quantized", onnxInt8, raw, in, out)
	w.floats(constant+"_scale", scales...)
	w.raw(constant+"_zero_point", onnxInt8, zeros, out)
	return constant + "_quantized"
}

func (w *graphWriter) tensor(name string, values []float32, dims ...int64) {
	var raw []byte
	if w.half {
		for _, v := range values {
			raw = binary.LittleEndian.AppendUint16(raw, half(v))
		}
		w.raw(name, onnxFloat16, raw, dims...)
		return
	}
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	w.raw(name, onnxFloat, raw, dims...)
}

func tensorHead(name string, typ uint64, dims []int64) []byte {
	var packed []byte
	for _, d := range dims {
		packed = protowire.AppendVarint(packed, uint64(d))
	}
	b := field(nil, tensorDims, packed)
	b = protowire.AppendVarint(protowire.AppendTag(b, tensorType, protowire.VarintType), typ)
	return field(b, tensorName, []byte(name))
}

func (w *graphWriter) raw(name string, typ uint64, raw []byte, dims ...int64) {
	w.inits = field(w.inits, graphInitializer, field(tensorHead(name, typ, dims), tensorRaw, raw))
}

func (w *graphWriter) floats(name string, values ...float32) {
	var packed []byte
	for _, v := range values {
		packed = protowire.AppendFixed32(packed, math.Float32bits(v))
	}
	var dims []int64
	if len(values) > 1 {
		dims = []int64{int64(len(values))}
	}
	w.inits = field(w.inits, graphInitializer, field(tensorHead(name, onnxFloat, dims), tensorFloats, packed))
}

func (w *graphWriter) ints(name string, typ uint64, value uint64) {
	b := tensorHead(name, typ, nil)
	b = protowire.AppendVarint(protowire.AppendTag(b, tensorInts, protowire.VarintType), value)
	w.inits = field(w.inits, graphInitializer, b)
}

func (w *graphWriter) node(op, name, output string, inputs ...string) {
	var b []byte
	for _, in := range inputs {
		b = field(b, nodeInput, []byte(in))
	}
	b = field(b, nodeOutput, []byte(output))
	b = field(b, nodeName, []byte(name))
	w.nodes = field(w.nodes, graphNode, field(b, nodeOp, []byte(op)))
}

func (w *graphWriter) file() []byte {
	nodes := w.nodes
	if w.merged != "" {
		var conditional []byte
		for _, branch := range []string{"else_branch", "then_branch"} {
			attr := field(field(nil, 1, []byte(branch)), attrGraph, w.nodes)
			conditional = field(conditional, nodeAttr, attr)
		}
		conditional = field(conditional, nodeOp, []byte("If"))
		nodes = field(nil, graphNode, conditional)
	}
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 8) // ir_version
	return field(b, modelGraph, append(nodes, w.inits...))
}

func field(b []byte, num protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), value)
}
