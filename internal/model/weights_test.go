package model

import (
	"slices"
	"testing"
)

// hostileGraph is a graph whose one node says that it multiplies with a layer
// norm's weight, which is no matrix.
func hostileGraph() []byte {
	w := &graphWriter{fakeCheckpoint: &fakeCheckpoint{truth: map[string][]float32{}}}
	w.plain("onnx::MatMul_1", "x", 64)
	w.node("MatMul", "/layers.0/self_attn_layer_norm/MatMul", "", "x", "onnx::MatMul_1")
	return w.file()
}

// getAll asks for every weight of a small model, and gives how many there were.
func getAll(t *testing.T, data []byte) (found int) {
	w, err := readWeights(data)
	if err != nil {
		return 0
	}
	want, err := smallShape().tensors()
	if err != nil {
		t.Fatal(err)
	}
	for _, tensor := range want {
		shape := checkpointShape(tensor)
		values, err := w.get(checkpointName(tensor.name), shape)
		if err == nil && int64(len(values)) != product(shape) {
			t.Errorf("%s: %d values for the shape %v", tensor.name, len(values), shape)
		}
		if err == nil {
			found++
		}
	}
	return found
}

func TestWeightsOfAHostileGraph(t *testing.T) {
	if n := getAll(t, hostileGraph()); n != 0 {
		t.Errorf("%d weights were found in a graph without any", n)
	}
}

// TestWeightsBehindAMisnamedNode: a node's name cannot hide the right weight.
func TestWeightsBehindAMisnamedNode(t *testing.T) {
	w := &graphWriter{fakeCheckpoint: &fakeCheckpoint{truth: map[string][]float32{}}}
	w.plain("layers.0.self_attn_layer_norm.weight", "right", 64)
	w.plain("onnx::MatMul_1", "wrong", 64)
	w.node("MatMul", "/layers.0/self_attn_layer_norm/MatMul", "", "x", "onnx::MatMul_1")
	read, err := readWeights(w.file())
	if err != nil {
		t.Fatal(err)
	}
	values, err := read.get("layers.0.self_attn_layer_norm.weight", []int64{64})
	if err != nil || !slices.Equal(values, w.truth["right"]) {
		t.Errorf("%v, %v", values, err)
	}
}

// smallGraphs are graphs in each form that exporters make, with a few weights.
func smallGraphs() [][]byte {
	var all [][]byte
	for _, form := range []fakeCheckpoint{{}, {folded: true}, {half: true}, {quantised: true}, {merged: true, quantised: true}} {
		form.truth = map[string][]float32{}
		w := &graphWriter{fakeCheckpoint: &form}
		if form.merged {
			w.merged = "_merged_0"
		}
		w.linear("", "/", "layers.0.self_attn.q_proj", "encoder.blocks.0.attn.query", 64, 64, true)
		w.eightBit("conv1.bias", "encoder.conv1.bias", 64)
		w.vector("layer_norm", "encoder.ln_post", 64)
		all = append(all, w.file())
	}
	return append(all, hostileGraph())
}

// FuzzWeights: whatever the file says, reading it ends in weights of the shape
// that was asked for or in an error.
func FuzzWeights(f *testing.F) {
	for _, graph := range smallGraphs() {
		f.Add(graph)
	}
	f.Fuzz(func(t *testing.T, data []byte) { getAll(t, data) })
}

func TestSmallGraphsHaveWeights(t *testing.T) {
	for i, graph := range smallGraphs()[:5] {
		if n := getAll(t, graph); n < 4 {
			t.Errorf("graph %d: %d weights were found", i, n)
		}
	}
}
