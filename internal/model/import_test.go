package model

import (
	"context"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

// stored is a tensor as it lies in a GGML file, its values widened.
type storedTensor struct {
	dims   []int32
	typ    int32
	values []float32
	scales []float32 // of q8_0
}

// readGGML reads a model file without the package's own reader.
func readGGML(t *testing.T, path string) (numbers [11]int32, mels []float32, tokens [][]byte, tensors map[string]storedTensor) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	int32s := func() int32 {
		v := int32(binary.LittleEndian.Uint32(data))
		data = data[4:]
		return v
	}
	take := func(n int) []byte { b := data[:n]; data = data[n:]; return b }
	if int32s() != 0x67676d6c {
		t.Fatal("magic")
	}
	for i := range numbers {
		numbers[i] = int32s()
	}
	for range int32s() * int32s() {
		mels = append(mels, math.Float32frombits(uint32(int32s())))
	}
	for range int32s() {
		tokens = append(tokens, take(int(int32s())))
	}
	tensors = map[string]storedTensor{}
	for len(data) > 0 {
		nDims, length, typ := int32s(), int32s(), int32s()
		s, n := storedTensor{typ: typ}, 1
		for range nDims {
			s.dims = append(s.dims, int32s())
			n *= int(s.dims[len(s.dims)-1])
		}
		name := string(take(int(length)))
		switch typ {
		case 0:
			for range n {
				s.values = append(s.values, math.Float32frombits(uint32(int32s())))
			}
		case 1:
			raw := take(2 * n)
			for i := range n {
				s.values = append(s.values, unhalf(binary.LittleEndian.Uint16(raw[2*i:])))
			}
		case 8:
			for range n / 32 {
				block := take(34)
				scale := unhalf(binary.LittleEndian.Uint16(block))
				s.scales = append(s.scales, scale)
				for _, q := range block[2:] {
					s.values = append(s.values, float32(int8(q))*scale)
				}
			}
		default:
			t.Fatalf("%s is of type %d", name, typ)
		}
		tensors[name] = s
	}
	return numbers, mels, tokens, tensors
}

func TestImportONNX(t *testing.T) {
	for name, c := range map[string]struct {
		fake   fakeCheckpoint
		format Format
	}{
		"plain":               {fakeCheckpoint{}, F16},
		"plain, folded":       {fakeCheckpoint{folded: true, merged: true}, F16},
		"float16":             {fakeCheckpoint{half: true, folded: true}, F16},
		"quantised":           {fakeCheckpoint{quantised: true, merged: true}, F16},
		"quantised to q8_0":   {fakeCheckpoint{quantised: true}, Q8_0},
		"plain, merged, q8_0": {fakeCheckpoint{merged: true}, Q8_0},
	} {
		t.Run(name, func(t *testing.T) {
			fake := c.fake
			fake.t, fake.h = t, smallShape()
			dir := t.TempDir()
			fake.write(filepath.Join(dir, "package", "models", "Owner", "whisper-small"))
			s := &Store{Dir: filepath.Join(t.TempDir(), "models")}
			r, err := s.ImportONNX(context.Background(), dir, ImportOptions{Name: "mine", Type: c.format})
			if err != nil {
				t.Fatal(err)
			}
			if r.Name != "mine" || r.File != "ggml-mine.bin" || r.Already() || r.Report.Info.Format != string(c.format) {
				t.Errorf("%+v", r)
			}
			checkConverted(t, filepath.Join(s.Dir, r.File), &fake, c.format)
			if got, want := filesIn(t, s.Dir), []string{"ggml-mine.bin", "ggml-mine.bin.json"}; !slices.Equal(got, want) {
				t.Errorf("the directory holds %v and has to hold %v", got, want)
			}
		})
	}
}

// checkConverted reads the file back: header, names, shapes, types and values.
func checkConverted(t *testing.T, path string, fake *fakeCheckpoint, format Format) {
	t.Helper()
	numbers, mels, tokens, tensors := readGGML(t, path)
	h := fake.h
	want := [11]int32{h.Vocab, 1500, 64, 1, 4, 448, 64, 1, 2, 80, map[Format]int32{F16: 1, Q8_0: 2007}[format]}
	if numbers != want {
		t.Errorf("the numbers are %v and have to be %v", numbers, want)
	}
	if !slices.Equal(mels, melFilters(80)) {
		t.Error("the filters are others")
	}
	if !slices.EqualFunc(tokens, smallVocab(), slices.Equal) {
		t.Error("the vocabulary is another")
	}
	shapes := expected(64, 80, h.Vocab, 4, 2)
	if len(tensors) != len(shapes) || len(fake.truth) != len(shapes) {
		t.Errorf("%d tensors of %d weights, and it has to be %d", len(tensors), len(fake.truth), len(shapes))
	}
	for name, got := range tensors {
		if !slices.Equal(got.dims, shapes[name]) {
			t.Errorf("%s has the shape %v and has to have %v", name, got.dims, shapes[name])
		}
		if typ := expectedType(name, format); got.typ != typ {
			t.Errorf("%s is of type %d and has to be of %d", name, got.typ, typ)
		}
		checkValues(t, name, got, fake.truth[name])
	}
}

func expectedType(name string, format Format) int32 {
	switch {
	case strings.HasSuffix(name, ".bias"), strings.Contains(name, "positional"), strings.Contains(name, "ln"):
		return 0
	case format == Q8_0 && !strings.Contains(name, "conv"):
		return 8
	}
	return 1
}

func checkValues(t *testing.T, name string, got storedTensor, want []float32) {
	t.Helper()
	if len(got.values) != len(want) {
		t.Errorf("%s has %d values and has to have %d", name, len(got.values), len(want))
		return
	}
	for i, w := range want {
		tolerance := 0.0 // f32 is exact
		switch got.typ {
		case 1:
			tolerance = math.Abs(float64(w))/2048 + 1e-7
		case 8:
			// Half a step, and what the scale loses as a float16.
			tolerance = float64(got.scales[i/32])*(0.5+127.0/2048) + math.Abs(float64(w))/2048 + 1e-7
		}
		if !closeTo(float64(got.values[i]), float64(w), tolerance) {
			t.Errorf("%s at %d is %v and was %v", name, i, got.values[i], w)
			return
		}
	}
}

func TestImportRefusesCheckpoints(t *testing.T) {
	good := t.TempDir()
	(&fakeCheckpoint{t: t, h: smallShape(), merged: true}).write(good)
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(good, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	external := field(nil, modelGraph, field(nil, graphInitializer, field(tensorHead("w", onnxFloat, []int64{4}), tensorExternal, []byte("x"))))
	const encoder, decoder = "onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx"
	for name, c := range map[string]struct {
		file string
		data []byte // nil: the file is not there
		says string
	}{
		"no config":         {"config.json", nil, "no ONNX encoder"},
		"no encoder":        {encoder, nil, "no ONNX encoder"},
		"no vocabulary":     {"vocab.json", nil, "vocab.json"},
		"config not JSON":   {"config.json", []byte("{"), "config.json"},
		"another model":     {"config.json", []byte(`{"model_type":"bert"}`), `model_type is "bert"`},
		"absurd numbers":    {"config.json", []byte(strings.Replace(string(read("config.json")), `"d_model":64`, `"d_model":63`, 1)), "audio width is 63"},
		"other numbers":     {"config.json", []byte(strings.Replace(string(read("config.json")), `"decoder_layers":2`, `"decoder_layers":3`, 1)), "no such weight"},
		"vocabulary short":  {"vocab.json", []byte(`{"a":0,"b":1}`), "no token 2"},
		"vocabulary odd":    {"vocab.json", []byte(`{"a b":0}`), "stands for no byte"},
		"graph not ONNX":    {decoder, []byte("hello there, this is text"), "not an ONNX file"},
		"graph empty":       {decoder, []byte{}, "no graph"},
		"graph cut":         {decoder, read(decoder)[:100_000], "not an ONNX file"},
		"weights elsewhere": {encoder, external, "second file"},
		"weights missing":   {encoder, field(nil, modelGraph, nil), "no such weight"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range []string{"config.json", "vocab.json", "added_tokens.json", encoder, decoder} {
				data := read(f)
				if f == c.file {
					data = c.data
				}
				if data != nil {
					write(t, filepath.Join(dir, f), data)
				}
			}
			s := &Store{Dir: filepath.Join(dir, "store")}
			_, err := s.ImportONNX(context.Background(), dir, ImportOptions{})
			f := wantFault(t, err, fault.BadInput, "bad_checkpoint")
			if !strings.Contains(f.Error(), c.says) {
				t.Errorf("%q does not say %q", f.Error(), c.says)
			}
			if left := filesIn(t, s.Dir); len(left) > 0 {
				t.Errorf("%v were left", left)
			}
		})
	}
}

func TestImportRefusesBadArguments(t *testing.T) {
	dir := t.TempDir()
	fake := &fakeCheckpoint{t: t, h: smallShape()}
	fake.write(filepath.Join(dir, "a"))
	fake.write(filepath.Join(dir, "b"))
	s := &Store{Dir: filepath.Join(t.TempDir(), "models")}
	ctx := context.Background()
	_, err := s.Import(ctx, dir, ImportOptions{})
	wantFault(t, err, fault.BadInput, "several_checkpoints")
	one := filepath.Join(dir, "a")
	_, err = s.Import(ctx, one, ImportOptions{Type: "q2"})
	wantFault(t, err, fault.BadInput, "bad_model_type")
	_, err = s.Import(ctx, one, ImportOptions{Name: "../escape"})
	wantFault(t, err, fault.BadInput, "bad_model_name")
	_, err = s.Import(ctx, one, ImportOptions{Name: "base"})
	wantFault(t, err, fault.BadInput, "name_taken")
	_, err = s.Import(ctx, filepath.Join(dir, "absent"), ImportOptions{})
	wantFault(t, err, fault.NotFound, "no_such_file")
	_, err = s.ImportONNX(ctx, filepath.Join(dir, "absent"), ImportOptions{})
	wantFault(t, err, fault.NotFound, "no_such_directory")
	if left := filesIn(t, s.Dir); len(left) > 0 {
		t.Errorf("%v were left", left)
	}
}

func TestImportStopsAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	(&fakeCheckpoint{t: t, h: smallShape()}).write(dir)
	s := &Store{Dir: filepath.Join(t.TempDir(), "models")}
	ctx, cancel := context.WithCancel(context.Background())
	_, err := s.ImportONNX(ctx, dir, ImportOptions{Progress: func(p Progress) {
		if p.Phase == Converting {
			cancel()
		}
	}})
	wantFault(t, err, fault.Canceled, "canceled")
	if left := filesIn(t, s.Dir); len(left) > 0 {
		t.Errorf("%v were left", left)
	}
}

func TestImportGGML(t *testing.T) {
	from := write(t, filepath.Join(t.TempDir(), "ggml-mine.bin"), speechFile(t, smallShape()))
	s := &Store{Dir: filepath.Join(t.TempDir(), "models")}
	ctx := context.Background()
	r, err := s.Import(ctx, from, ImportOptions{})
	if err != nil || r.Name != "mine" || r.Report.Info.Type != "distil-tiny" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := s.Verify(ctx, "mine", nil); err != nil {
		t.Error(err)
	}
	_, err = s.Import(ctx, from, ImportOptions{})
	wantFault(t, err, fault.Conflict, "model_exists")
	if _, err = s.Import(ctx, from, ImportOptions{Replace: true}); err != nil {
		t.Error(err)
	}
	other := write(t, filepath.Join(t.TempDir(), "other.dat"), vadFile())
	_, err = s.Import(ctx, other, ImportOptions{})
	wantFault(t, err, fault.BadInput, "bad_model_name")
	r, err = s.Import(ctx, other, ImportOptions{Name: "silero-v6.2.0"})
	if err != nil || len(r.Warnings) != 1 {
		t.Errorf("a file that is not upstream's: %+v, %v", r, err)
	}
	broken := write(t, filepath.Join(t.TempDir(), "ggml-broken.bin"), vadFile()[:9000])
	_, err = s.Import(ctx, broken, ImportOptions{})
	wantFault(t, err, fault.BadInput, "bad_model_file")
	s.free = func() (int64, error) { return 1000, nil }
	_, err = s.Import(ctx, from, ImportOptions{Name: "second"})
	wantFault(t, err, fault.NoSpace, "disk_full")
	want := []string{"ggml-mine.bin", "ggml-mine.bin.json", "ggml-silero-v6.2.0.bin", "ggml-silero-v6.2.0.bin.json"}
	if got := filesIn(t, s.Dir); !slices.Equal(got, want) {
		t.Errorf("the directory holds %v and has to hold %v", got, want)
	}
}

// TestImportPublished converts a checkpoint that people use, where there is one.
func TestImportPublished(t *testing.T) {
	dir := publishedCheckpoint(t)
	for format, size := range map[Format]int64{F16: 77_691_713, Q8_0: 43_537_433} {
		s := &Store{Dir: t.TempDir()}
		r, err := s.ImportONNX(context.Background(), dir, ImportOptions{Type: format})
		if err != nil {
			t.Fatal(err)
		}
		if r.Report.Info.Size != size || r.Report.Info.Type != "tiny" || r.Report.Info.Tensors != 167 {
			t.Errorf("%s: %+v, and its size has to be %d", format, r.Report, size)
		}
	}
}

func publishedCheckpoint(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("converts 40 MB twice")
	}
	dir := os.Getenv("WA_TEST_ONNX_DIR")
	if dir == "" {
		t.Skip("WA_TEST_ONNX_DIR names no published checkpoint")
	}
	return dir
}
