package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// weights finds a checkpoint's weights by the names of the modules they belong
// to ("layers.0.self_attn.q_proj.weight"), however the export called them.
type weights struct {
	graph   *onnxGraph
	named   map[string]string  // module name → constant
	matmuls map[string]operand // linear module → what its input is multiplied with
}

// operand is a constant as a node takes it.
type operand struct {
	tensor      string
	scale, zero string // of a quantised one; "" = by the names that quantisers give
	flipped     bool   // went through a transposition
}

func openWeights(path string) (*weights, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	w, err := readWeights(data)
	if errors.Is(err, errExternal) {
		return nil, fmt.Errorf("%s: %w; only checkpoints in one file can be read, such as the quantised ones", filepath.Base(path), err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not an ONNX file: %w", filepath.Base(path), err)
	}
	return w, nil
}

// readWeights indexes an ONNX file's bytes.
func readWeights(data []byte) (*weights, error) {
	g, err := parseONNX(data)
	if err != nil {
		return nil, err
	}
	w := &weights{graph: g, named: map[string]string{}, matmuls: map[string]operand{}}
	w.indexNames()
	w.indexNodes()
	return w, nil
}

// indexNames strips what exporter, merger and quantiser put around a name.
func (w *weights) indexNames() {
	merged := regexp.MustCompile(`_merged_\d+`)
	for name := range w.graph.tensors {
		plain := strings.TrimSuffix(merged.ReplaceAllString(name, ""), "_quantized")
		// Of several forms of one name the first in order: the same in each run.
		if known, ok := w.named[trimModel(plain)]; !ok || name < known {
			w.named[trimModel(plain)] = name
		}
	}
}

func trimModel(name string) string {
	name = strings.TrimPrefix(name, "model.")
	name = strings.TrimPrefix(name, "encoder.")
	return strings.TrimPrefix(name, "decoder.")
}

// indexNodes notes which constant each linear module multiplies with: exports
// fold its transposition in and call the result onnx::MatMul_603, so only the
// node's own name, /layers.0/self_attn/q_proj/MatMul, tells.
func (w *weights) indexNodes() {
	derived := map[string]operand{}
	for _, n := range w.graph.nodes {
		if len(n.inputs) == 0 {
			continue
		}
		first, constant := w.operand(n.inputs[0], derived)
		switch {
		case n.op == "Identity" && constant && len(n.outputs) == 1:
			derived[n.outputs[0]] = first
		case n.op == "Transpose" && constant && len(n.outputs) == 1:
			first.flipped = !first.flipped
			derived[n.outputs[0]] = first
		case n.op == "DequantizeLinear" && constant && len(n.inputs) >= 2 && len(n.outputs) == 1:
			first.scale = n.inputs[1]
			if len(n.inputs) > 2 {
				first.zero = n.inputs[2]
			}
			derived[n.outputs[0]] = first
		case (n.op == "MatMul" || n.op == "MatMulInteger") && len(n.inputs) >= 2:
			w.indexMatMul(n, derived)
		}
	}
}

func (w *weights) indexMatMul(n onnxNode, derived map[string]operand) {
	second, constant := w.operand(n.inputs[1], derived)
	if !constant {
		return
	}
	if n.op == "MatMulInteger" && len(n.inputs) > 3 {
		second.zero = n.inputs[3]
	}
	path := strings.Split(strings.Trim(n.name, "/"), "/")
	module := trimModel(strings.Join(path[:len(path)-1], "."))
	if _, ok := w.matmuls[module]; !ok && module != "" {
		w.matmuls[module] = second
	}
}

func (w *weights) operand(name string, derived map[string]operand) (operand, bool) {
	if o, ok := derived[name]; ok {
		return o, true
	}
	_, ok := w.graph.tensors[name]
	return operand{tensor: name}, ok
}

// get gives a weight in the order that PyTorch and GGML share: [out, in] for a
// linear module. dims is that shape, slowest first.
func (w *weights) get(name string, dims []int64) ([]float32, error) {
	// Only a matrix can be a linear module's, whatever a node calls itself.
	if module, ok := strings.CutSuffix(name, ".weight"); ok && len(dims) == 2 {
		if o, ok := w.matmuls[module]; ok {
			return w.linear(o, dims)
		}
	}
	constant, ok := w.named[name]
	if !ok {
		return nil, errors.New("the checkpoint has no such weight, or keeps it in a form that is not known here")
	}
	values, shape, err := w.read(operand{tensor: constant}, 0)
	if err == nil && !slices.Equal(shape, dims) {
		err = fmt.Errorf("it has the shape %v and has to have %v", shape, dims)
	}
	return values, err
}

// linear reads a factor of a multiplication, which is stored [in, out].
func (w *weights) linear(o operand, dims []int64) ([]float32, error) {
	want, outputs := dims, 0
	if !o.flipped {
		want, outputs = []int64{dims[1], dims[0]}, 1
	}
	values, shape, err := w.read(o, outputs)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(shape, want) {
		return nil, fmt.Errorf("it has the shape %v and has to have %v", shape, want)
	}
	if o.flipped {
		return values, nil
	}
	return transpose(values, int(shape[0]), int(shape[1])), nil
}

func transpose(values []float32, rows, cols int) []float32 {
	out := make([]float32, len(values))
	for r := range rows {
		for c := range cols {
			out[c*rows+r] = values[r*cols+c]
		}
	}
	return out
}

// read gives a constant's values as numbers, quantised or not. axis is the one
// that a quantised tensor with several scales has them along.
func (w *weights) read(o operand, axis int) ([]float32, []int64, error) {
	t, ok := w.graph.tensors[o.tensor]
	if !ok {
		return nil, nil, fmt.Errorf("%s is missing", o.tensor)
	}
	values, err := t.values()
	if err != nil || !t.quantised() {
		return values, t.dims, err
	}
	base := strings.TrimSuffix(o.tensor, "_quantized")
	scales, err := w.side(o.scale, base+"_scale")
	if err != nil {
		return nil, nil, fmt.Errorf("its scale: %w", err)
	}
	zeros, err := w.side(o.zero, base+"_zero_point")
	if errors.Is(err, errNoConstant) {
		zeros, err = []float32{0}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("its zero point: %w", err)
	}
	return values, t.dims, dequantise(values, t.dims, axis, scales, zeros)
}

var errNoConstant = errors.New("there is none")

// side reads a scale or a zero point.
func (w *weights) side(name, byConvention string) ([]float32, error) {
	for _, n := range []string{name, byConvention} {
		if t, ok := w.graph.tensors[n]; ok && n != "" {
			return t.values()
		}
	}
	return nil, errNoConstant
}

// dequantise turns integers into numbers in place: (q - zero) × scale.
func dequantise(values []float32, dims []int64, axis int, scales, zeros []float32) error {
	if len(scales) == 1 && len(zeros) == 1 {
		for i, q := range values {
			values[i] = (q - zeros[0]) * scales[0]
		}
		return nil
	}
	if axis >= len(dims) || int64(len(scales)) != dims[axis] || (len(zeros) != 1 && len(zeros) != len(scales)) {
		return fmt.Errorf("%d scales and %d zero points do not fit the shape %v", len(scales), len(zeros), dims)
	}
	inner := 1
	for _, d := range dims[axis+1:] {
		inner *= int(d)
	}
	for i, q := range values {
		at := i / inner % len(scales)
		values[i] = (q - zeros[at%len(zeros)]) * scales[at]
	}
	return nil
}

// checkpointName is what checkpoints call the weight that whisper.cpp calls name.
func checkpointName(name string) string {
	name = trimModel(name)
	return strings.NewReplacer(
		"blocks.", "layers.",
		"cross_attn_ln", "encoder_attn_layer_norm", "cross_attn.", "encoder_attn.",
		"attn_ln", "self_attn_layer_norm", "attn.", "self_attn.",
		"query", "q_proj", "key", "k_proj", "value", "v_proj", "out.", "out_proj.",
		"mlp_ln", "final_layer_norm", "mlp.0", "fc1", "mlp.2", "fc2",
		"ln_post", "layer_norm", "ln.", "layer_norm.",
		"token_embedding", "embed_tokens", "positional_embedding", "embed_positions.weight",
	).Replace(name)
}
