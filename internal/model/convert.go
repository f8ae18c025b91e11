package model

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
)

// conversion writes one checkpoint as a GGML file.
type conversion struct {
	source           checkpoint
	encoder, decoder *weights
	tokens           [][]byte
	tensors          []tensor
	meter            *meter
}

// prepare reads the checkpoint; format is f16 or q8_0.
func prepare(c checkpoint, format Format) (*conversion, error) {
	c.hparams.FType = format.ftype()
	conv := &conversion{source: c}
	var err error
	if conv.tensors, err = c.hparams.tensors(); err != nil {
		return nil, err
	}
	if conv.tokens, err = readVocab(c.dir); err != nil {
		return nil, err
	}
	if conv.encoder, err = openWeights(c.encoder); err != nil {
		return nil, err
	}
	if conv.decoder, err = openWeights(c.decoder); err != nil {
		return nil, err
	}
	return conv, nil
}

// size is what the file will have.
func (c *conversion) size() int64 {
	vocab := int64(0)
	for _, token := range c.tokens {
		vocab += int64(len(token))
	}
	size := c.source.hparams.headerSize(len(c.tokens), vocab)
	for _, t := range c.tensors {
		size += t.entrySize()
	}
	return size
}

func (c *conversion) write(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriterSize(w, 1<<20)
	header := c.header()
	if _, err := out.Write(header); err != nil {
		return err
	}
	c.meter.add(int64(len(header)))
	for _, t := range c.tensors {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := c.tensor(t)
		if err != nil {
			return err
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
		c.meter.add(int64(len(data)))
	}
	return out.Flush()
}

func (c *conversion) header() []byte {
	out := append32(nil, magic)
	for _, field := range c.source.hparams.fields() {
		out = append32(out, *field)
	}
	out = append32(out, c.source.hparams.Mels, spectrumBins)
	out = appendF32(out, melFilters(int(c.source.hparams.Mels)))
	out = append32(out, int32(len(c.tokens)))
	for _, token := range c.tokens {
		out = append32(out, int32(len(token)))
		out = append(out, token...)
	}
	return out
}

func append32(out []byte, values ...int32) []byte {
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, uint32(v))
	}
	return out
}

// tensor is one tensor's header and data.
func (c *conversion) tensor(t tensor) ([]byte, error) {
	from := c.encoder
	if strings.HasPrefix(t.name, "decoder.") {
		from = c.decoder
	}
	name := checkpointName(t.name)
	values, err := from.get(name, checkpointShape(t))
	if err != nil {
		return nil, fmt.Errorf("%s (%s): %w", t.name, name, err)
	}
	out := make([]byte, 0, t.entrySize())
	out = append32(out, int32(len(t.dims)), int32(len(t.name)), t.typ.id)
	out = append32(out, t.dims...)
	out = append(out, t.name...)
	switch t.typ.id {
	case typeF32:
		return appendF32(out, values), nil
	case typeF16:
		return appendF16(out, values), nil
	default:
		return appendQ8(out, values), nil
	}
}

// checkpointShape is the tensor's shape in a checkpoint: slowest first, and a
// convolution's bias is a plain vector there.
func checkpointShape(t tensor) []int64 {
	var shape []int64
	for _, d := range t.dims {
		if d != 1 {
			shape = append(shape, int64(d))
		}
	}
	slices.Reverse(shape)
	return shape
}
