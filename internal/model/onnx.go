package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of the fields that are read, from ONNX's protobuf definition.
const (
	modelGraph = 7

	graphNode        = 1
	graphInitializer = 5

	nodeInput  = 1
	nodeOutput = 2
	nodeName   = 3
	nodeOp     = 4
	nodeAttr   = 5

	attrTensor = 5
	attrGraph  = 6

	tensorDims     = 1
	tensorType     = 2
	tensorFloats   = 4
	tensorInts     = 5
	tensorName     = 8
	tensorRaw      = 9
	tensorExternal = 13
	tensorLocation = 14
)

// ONNX's element types that weights come in.
const (
	onnxFloat   = 1
	onnxUint8   = 2
	onnxInt8    = 3
	onnxFloat16 = 10
)

// errExternal says that the weights are in a second file.
var errExternal = errors.New("its weights are in a second file beside it")

// onnxGraph is what conversion needs of an ONNX file: the constants and the
// nodes of its graph and of all graphs inside that.
type onnxGraph struct {
	tensors map[string]onnxTensor
	nodes   []onnxNode
}

type onnxNode struct {
	name, op        string
	inputs, outputs []string
}

// onnxTensor is a constant; its data points into the file's bytes.
type onnxTensor struct {
	dims   []int64
	typ    int64
	raw    []byte
	floats []float32
	ints   []int32
}

// deepest bounds graphs within graphs: a merged decoder has one level.
const deepest = 8

func parseONNX(data []byte) (*onnxGraph, error) {
	g := &onnxGraph{tensors: map[string]onnxTensor{}}
	found := false
	err := eachField(data, func(num protowire.Number, _ uint64, b []byte) error {
		if num != modelGraph {
			return nil
		}
		found = true
		return g.parse(b, 0)
	})
	if err == nil && !found {
		err = errors.New("it has no graph")
	}
	return g, err
}

func (g *onnxGraph) parse(data []byte, depth int) error {
	if depth > deepest {
		return fmt.Errorf("more than %d graphs within each other", deepest)
	}
	return eachField(data, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case graphNode:
			return g.parseNode(b, depth)
		case graphInitializer:
			name, t, err := parseTensor(b)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			g.keep(name, t)
		}
		return nil
	})
}

// keep is for the first of a name: a merged decoder's two branches name their
// constants alike.
func (g *onnxGraph) keep(name string, t onnxTensor) {
	if _, ok := g.tensors[name]; !ok && name != "" {
		g.tensors[name] = t
	}
}

func (g *onnxGraph) parseNode(data []byte, depth int) error {
	var n onnxNode
	var constant *onnxTensor
	err := eachField(data, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case nodeInput:
			n.inputs = append(n.inputs, string(b))
		case nodeOutput:
			n.outputs = append(n.outputs, string(b))
		case nodeName:
			n.name = string(b)
		case nodeOp:
			n.op = string(b)
		case nodeAttr:
			return eachField(b, func(num protowire.Number, _ uint64, b []byte) error {
				switch num {
				case attrGraph:
					return g.parse(b, depth+1)
				case attrTensor:
					_, t, err := parseTensor(b)
					constant = &t
					return err
				}
				return nil
			})
		}
		return nil
	})
	if n.op == "Constant" && constant != nil && len(n.outputs) == 1 {
		g.keep(n.outputs[0], *constant)
		return err
	}
	g.nodes = append(g.nodes, n)
	return err
}

func parseTensor(data []byte) (string, onnxTensor, error) {
	var name string
	var t onnxTensor
	err := eachField(data, func(num protowire.Number, v uint64, b []byte) error {
		switch num {
		case tensorDims:
			return eachVarint(v, b, func(v uint64) { t.dims = append(t.dims, int64(v)) })
		case tensorType:
			t.typ = int64(v)
		case tensorName:
			name = string(b)
		case tensorRaw:
			t.raw = b
		case tensorFloats:
			return eachFloat(v, b, func(f float32) { t.floats = append(t.floats, f) })
		case tensorInts:
			return eachVarint(v, b, func(v uint64) { t.ints = append(t.ints, int32(v)) })
		case tensorExternal:
			return errExternal
		case tensorLocation:
			if v != 0 {
				return errExternal
			}
		}
		return nil
	})
	return name, t, err
}

// eachField calls f with each field of a message: its number and either its
// value or its bytes.
func eachField(data []byte, f func(num protowire.Number, v uint64, b []byte) error) error {
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(data)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(data)
		case protowire.Fixed32Type:
			var v32 uint32
			v32, n = protowire.ConsumeFixed32(data)
			v = uint64(v32)
		default:
			n = protowire.ConsumeFieldValue(num, typ, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if err := f(num, v, b); err != nil {
			return err
		}
	}
	return nil
}

// eachVarint reads a repeated field that is packed (b) or not (v).
func eachVarint(v uint64, b []byte, f func(uint64)) error {
	if b == nil {
		f(v)
	}
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		f(v)
	}
	return nil
}

func eachFloat(v uint64, b []byte, f func(float32)) error {
	if b == nil {
		f(math.Float32frombits(uint32(v)))
	}
	for ; len(b) >= 4; b = b[4:] {
		f(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return nil
}

// count is the number of values that the dimensions make, -1 where they make none.
func (t onnxTensor) count() int64 {
	n := int64(1)
	for _, d := range t.dims {
		if d < 0 || d > math.MaxInt32 || n*d > math.MaxInt32 {
			return -1
		}
		n *= d
	}
	return n
}

// quantised tells whether the values are integers that need a scale.
func (t onnxTensor) quantised() bool { return t.typ == onnxInt8 || t.typ == onnxUint8 }

// values gives the numbers as they are stored: a quantised tensor's integers.
func (t onnxTensor) values() ([]float32, error) {
	n := t.count()
	width := map[int64]int64{onnxFloat: 4, onnxFloat16: 2, onnxInt8: 1, onnxUint8: 1}[t.typ]
	switch {
	case width == 0:
		return nil, fmt.Errorf("values of ONNX type %d are not understood", t.typ)
	case n < 0:
		return nil, fmt.Errorf("the shape %v is impossible", t.dims)
	case int64(len(t.raw)) == n*width && n > 0:
		return t.unpack(n), nil
	case int64(len(t.floats)) == n && t.typ == onnxFloat:
		return t.floats, nil
	case int64(len(t.ints)) == n && t.typ != onnxFloat:
		return t.widen(), nil
	}
	return nil, fmt.Errorf("the shape %v does not fit its %d bytes", t.dims, len(t.raw))
}

func (t onnxTensor) unpack(n int64) []float32 {
	out := make([]float32, n)
	for i := range out {
		switch t.typ {
		case onnxFloat:
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.raw[4*i:]))
		case onnxFloat16:
			out[i] = unhalf(binary.LittleEndian.Uint16(t.raw[2*i:]))
		case onnxInt8:
			out[i] = float32(int8(t.raw[i]))
		case onnxUint8:
			out[i] = float32(t.raw[i])
		}
	}
	return out
}

// widen reads values from the field that ONNX keeps for all small types.
func (t onnxTensor) widen() []float32 {
	out := make([]float32, len(t.ints))
	for i, v := range t.ints {
		switch t.typ {
		case onnxFloat16:
			out[i] = unhalf(uint16(v))
		case onnxInt8:
			out[i] = float32(int8(v))
		default:
			out[i] = float32(uint8(v))
		}
	}
	return out
}
