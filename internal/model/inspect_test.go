package model

import (
	"bytes"
	"encoding/binary"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func TestInspectSpeech(t *testing.T) {
	q8 := smallShape()
	q8.FType = 2007
	english := smallShape()
	english.Vocab = vocabEnglish
	for name, h := range map[string]hparams{"f16": smallShape(), "q8_0": q8, "en": english} {
		data := speechFile(t, h)
		info, err := Inspect(write(t, filepath.Join(t.TempDir(), "ggml-x.bin"), data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tensors, _ := h.tensors()
		want := Info{
			Kind: Speech, Type: "distil-tiny", Format: "f16", Multilingual: true,
			Vocab: int(h.Vocab), Mels: 80, Tensors: len(tensors), Size: int64(len(data)),
		}
		if name == "q8_0" {
			want.Format = "q8_0"
		}
		if name == "en" {
			want.Type, want.Multilingual = "distil-tiny.en", false
		}
		if info != want {
			t.Errorf("%s: %+v and has to be %+v", name, info, want)
		}
	}
}

func TestInspectTakesTensorsInAnyOrder(t *testing.T) {
	h := smallShape()
	tensors, _ := h.tensors()
	slices.Reverse(tensors)
	data := header(h, smallVocab())
	for _, tensor := range tensors {
		data = append(data, tensorEntry(tensor)...)
	}
	if _, err := Inspect(write(t, filepath.Join(t.TempDir(), "x"), data)); err != nil {
		t.Error(err)
	}
}

// vocabAt is where the vocabulary of a file with 80 mel bins begins.
const vocabAt = 4 + 11*4 + 8 + 80*spectrumBins*4

func TestInspectRefuses(t *testing.T) {
	h := smallShape()
	good := speechFile(t, h)
	tensorsAt := len(header(h, smallVocab()))
	last := len(good)
	put := func(at int, v int32) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.LittleEndian.PutUint32(b[at:], uint32(v))
			return b
		}
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	noSpace := smallVocab()
	noSpace[' '] = []byte("x")
	for name, c := range map[string]struct {
		spoil func([]byte) []byte
		says  string
	}{
		"empty":                  {cut(0), "too early"},
		"three bytes":            {cut(3), "too early"},
		"magic alone":            {cut(4), "too early"},
		"half a header":          {cut(30), "too early"},
		"no vocabulary":          {cut(vocabAt), "too early"},
		"half a vocabulary":      {cut(vocabAt + 5000), "too early"},
		"no tensors":             {cut(tensorsAt), "tensors are missing"},
		"half a tensor header":   {cut(tensorsAt + 10), "too early"},
		"half a tensor":          {cut(tensorsAt + 1000), "encoder.positional_embedding"},
		"last byte missing":      {cut(last - 1), "decoder.ln.bias"},
		"one byte more":          {func(b []byte) []byte { return append(b, 0) }, "too early"},
		"zeros behind":           {func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, "no tensor begins"},
		"another magic":          {put(0, 0x46554747), "it begins with 0x46554747"},
		"vocabulary of 1":        {put(4, 1), "the vocabulary is 1"},
		"vocabulary of 2^31":     {put(4, -1), "the vocabulary"},
		"audio context":          {put(8, 3000), "the audio context is 3000"},
		"width of 0":             {put(12, 0), "the audio width is 0"},
		"width of 100":           {put(12, 100), "multiple of 64"},
		"heads of 0":             {put(16, 0), "audio heads"},
		"five layers":            {put(20, 5), "audio layers is 5"},
		"text context":           {put(24, 1), "the text context"},
		"another text width":     {put(28, 128), "the text width"},
		"text heads":             {put(32, 7), "text heads"},
		"a billion layers":       {put(36, 1e9), "text layers"},
		"one layer more":         {put(36, 3), "tensors are missing"},
		"one layer less":         {put(36, 1), "one too many"},
		"mel bins":               {put(40, 81), "mel bins"},
		"unknown format":         {put(44, 99), "the format is 99"},
		"negative format":        {put(44, -1), "the format is -1"},
		"old quantisation":       {put(44, 1007), "the quantisation's version is 1"},
		"format of other data":   {put(44, 2007), "has to be of type 8 (q8_0)"},
		"filters of other bins":  {put(48, 128), "mel filters"},
		"filters of other width": {put(52, 257), "mel filters"},
		"filters not a number":   {put(56, int32(math.Float32bits(float32(math.NaN())))), "filter"},
		"filters too large":      {put(60, int32(math.Float32bits(1e9))), "filter"},
		"no tokens":              {put(vocabAt, 0), "it has 0 tokens"},
		"more tokens than said":  {put(vocabAt, vocab99+1), "tokens"},
		"one token more":         {put(vocabAt, vocabText+1), ""},
		"a token of a gigabyte":  {put(vocabAt+4, 1<<30), "token 0 has 1073741824 bytes"},
		"a token of less than 0": {put(vocabAt+4, -5), "token 0 has -5 bytes"},
		"no space": {func([]byte) []byte {
			return append(header(h, noSpace), good[tensorsAt:]...)
		}, "token for a space"},
		"five dimensions":    {put(tensorsAt, 5), "no tensor begins"},
		"endless name":       {put(tensorsAt+4, 1<<30), "no tensor begins"},
		"another type":       {put(tensorsAt+8, typeF16), "of type 1 and has to be of type 0"},
		"another shape":      {put(tensorsAt+12, 65), "the shape [65 1500]"},
		"a shape turned":     {func(b []byte) []byte { return put(tensorsAt+16, 64)(put(tensorsAt+12, 1500)(b)) }, "the shape [1500 64]"},
		"another name":       {func(b []byte) []byte { b[tensorsAt+20] = 'X'; return b }, "one too many"},
		"a tensor twice":     {func(b []byte) []byte { return append(b, good[tensorsAt:]...) }, "one too many"},
		"a web page":         {func([]byte) []byte { return []byte("<!DOCTYPE html><html>") }, "it begins with"},
		"a model's own text": {func([]byte) []byte { return []byte("version https://git-lfs") }, "it begins with"},
	} {
		data := c.spoil(slices.Clone(good))
		_, err := inspect(&cursor{r: bytes.NewReader(data), size: int64(len(data))})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: the error is %v and has to say %q", name, err, c.says)
		}
	}
}

func TestInspectNamesTheFile(t *testing.T) {
	_, err := Inspect(write(t, filepath.Join(t.TempDir(), "ggml-x.bin"), vadFile()[:5000]))
	if f := wantFault(t, err, fault.BadInput, "bad_model_file"); !strings.HasPrefix(f.Message, "ggml-x.bin is not") {
		t.Errorf("%q", f.Message)
	}
}

// Every cut through a small file must be seen, wherever it is.
func TestInspectSeesEveryCut(t *testing.T) {
	data := vadFile()
	for n := 0; n < len(data); n += 1 + n/50 {
		if _, err := inspect(&cursor{r: strings.NewReader(string(data[:n])), size: int64(n)}); err == nil {
			t.Fatalf("a file cut at byte %d of %d passes", n, len(data))
		}
	}
}

func TestInspectVAD(t *testing.T) {
	good := vadFile()
	path := write(t, filepath.Join(t.TempDir(), "ggml-silero.bin"), good)
	info, err := Inspect(path)
	want := Info{Kind: VAD, Type: "silero-16k", Version: "6.2.0", Format: "f16", Tensors: 15, Size: 885098}
	if err != nil || info != want {
		t.Fatalf("%+v, %v", info, err)
	}
	for name, at := range map[string]int{"type": 8, "window": 30, "layers": 38, "a channel": 42, "a tensor": 110} {
		data := slices.Clone(good)
		data[at] ^= 0x7f
		if _, err := Inspect(write(t, path, data)); err == nil {
			t.Errorf("another %s passes", name)
		}
	}
}

func TestInspectRealVAD(t *testing.T) {
	info, err := Inspect(shared(t, "models/ggml-silero-v6.2.0.bin"))
	if err != nil || info.Kind != VAD || info.Version != "6.2.0" || info.Tensors != 15 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestInspectOfWhatIsNotAFile(t *testing.T) {
	dir := t.TempDir()
	_, err := Inspect(filepath.Join(dir, "absent"))
	wantFault(t, err, fault.NotFound, "no_such_file")
	_, err = Inspect(dir)
	wantFault(t, err, fault.BadInput, "bad_model_file")
}

func FuzzInspect(f *testing.F) {
	f.Add(vadFile()[:200])
	f.Add(header(smallShape(), smallVocab()[:3]))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := inspect(&cursor{r: strings.NewReader(string(data)), size: int64(len(data))})
		if err == nil && info.Tensors == 0 {
			t.Error("a file without tensors passes")
		}
	})
}
