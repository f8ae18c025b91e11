package model

import (
	"fmt"
	"slices"
)

// vadType is what a Silero file names itself. Its length stands where a Whisper
// file has its vocabulary's size, which tells the two apart.
const vadType = "silero-16k"

// vadShape is the rest of a Silero file's header, fixed because whisper.cpp's
// graph for it is: window and context in samples; layers of the encoder; in,
// out and kernel of each; the LSTM's input and state; the last convolution's
// in and out.
func vadShape() []int32 {
	return []int32{
		512, 64, 4,
		129, 128, 3, 128, 64, 3, 64, 64, 3, 64, 128, 3,
		128, 128, 128, 1,
	}
}

func vadTensors() []tensor {
	l := &layout{}
	l.f32, _ = typeByID(typeF32)
	l.conv, _ = typeByID(typeF16)
	channels := []int32{129, 128, 64, 64, 128}
	for i := range len(channels) - 1 {
		prefix := fmt.Sprintf("_model.encoder.%d.reparam_conv.", i)
		l.add(l.conv, prefix+"weight", 3, channels[i], channels[i+1])
		l.add(l.f32, prefix+"bias", channels[i+1])
	}
	const state = 128
	for _, part := range []string{"ih", "hh"} {
		l.add(l.f32, "_model.decoder.rnn.weight_"+part, state, 4*state)
		l.add(l.f32, "_model.decoder.rnn.bias_"+part, 4*state)
	}
	l.add(l.conv, "_model.decoder.decoder.2.weight", state)
	l.add(l.f32, "_model.decoder.decoder.2.bias")
	l.add(l.conv, "_model.stft.forward_basis_buffer", 256, 1, 258)
	return l.tensors
}

func inspectVAD(c *cursor) (Info, error) {
	name := string(c.next(int(c.int32())))
	if c.err == nil && name != vadType {
		return Info{}, fmt.Errorf("it calls itself %q and has to be %q", name, vadType)
	}
	version := fmt.Sprintf("%d.%d.%d", c.int32(), c.int32(), c.int32())
	want := vadShape()
	got := make([]int32, len(want))
	for i := range got {
		got[i] = c.int32()
	}
	switch {
	case c.err != nil:
		return Info{}, c.err
	case !slices.Equal(got, want):
		return Info{}, fmt.Errorf("its layers are %v and have to be %v", got, want)
	}
	tensors := vadTensors()
	if err := checkTensors(c, tensors); err != nil {
		return Info{}, err
	}
	return Info{Kind: VAD, Type: vadType, Version: version, Format: "f16", Tensors: len(tensors)}, nil
}
