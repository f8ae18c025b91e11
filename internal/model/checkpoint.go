package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"whisper-appliance/internal/fault"
)

// checkpoint is a Whisper checkpoint in ONNX form, as found on disk.
type checkpoint struct {
	dir              string // of config.json
	encoder, decoder string // paths of the graphs
	hparams          hparams
}

// checkpointDepth is how far below the given directory one is looked for: a
// package has it at models/OWNER/NAME.
const checkpointDepth = 6

func badCheckpoint(dir string, err error) error {
	return fault.New(fault.BadInput, "bad_checkpoint", "%s is not a Whisper checkpoint that can be converted", dir).
		On("dir").Because(err).
		Try("it needs config.json, vocab.json and onnx/encoder_model.onnx with onnx/decoder_model_merged.onnx, or their _quantized forms")
}

// openCheckpoint finds the one checkpoint at or below dir.
func openCheckpoint(dir string) (checkpoint, error) {
	found, err := findCheckpoints(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return checkpoint{}, fault.New(fault.NotFound, "no_such_directory", "there is no directory %s", dir).On("dir").Because(err)
	case err != nil:
		return checkpoint{}, err
	case len(found) == 0:
		return checkpoint{}, badCheckpoint(dir, errors.New("no ONNX encoder and decoder with a config.json are in it"))
	case len(found) > 1:
		return checkpoint{}, fault.New(fault.BadInput, "several_checkpoints",
			"%s holds %d checkpoints", dir, len(found)).On("dir").Try("name one of them: %s", strings.Join(dirsOf(found), ", "))
	}
	c := found[0]
	if c.hparams, err = readConfig(filepath.Join(c.dir, "config.json")); err != nil {
		return checkpoint{}, badCheckpoint(c.dir, err)
	}
	return c, nil
}

func dirsOf(found []checkpoint) []string {
	var dirs []string
	for _, c := range found {
		dirs = append(dirs, c.dir)
	}
	return dirs
}

func findCheckpoints(root string) ([]checkpoint, error) {
	var found []checkpoint
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() && strings.Count(rel, string(filepath.Separator)) >= checkpointDepth {
			return fs.SkipDir
		}
		if d.IsDir() || d.Name() != "config.json" {
			return nil
		}
		if c, ok := graphsOf(filepath.Dir(path)); ok {
			found = append(found, c)
		}
		return nil
	})
	return found, err
}

// graphsOf picks the most exact encoder and decoder that lie there.
func graphsOf(dir string) (checkpoint, bool) {
	c := checkpoint{dir: dir}
	for _, sub := range []string{filepath.Join(dir, "onnx"), dir} {
		for _, form := range []string{"", "_fp16", "_quantized", "_int8", "_uint8"} {
			if c.encoder == "" {
				c.encoder = existing(filepath.Join(sub, "encoder_model"+form+".onnx"))
			}
			for _, name := range []string{"decoder_model_merged", "decoder_model"} {
				if c.decoder == "" {
					c.decoder = existing(filepath.Join(sub, name+form+".onnx"))
				}
			}
		}
	}
	return c, c.encoder != "" && c.decoder != ""
}

func existing(path string) string {
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	return path
}

func readConfig(path string) (hparams, error) {
	var config struct {
		ModelType    string `json:"model_type"`
		Vocab        int32  `json:"vocab_size"`
		AudioCtx     int32  `json:"max_source_positions"`
		Width        int32  `json:"d_model"`
		EncoderHeads int32  `json:"encoder_attention_heads"`
		EncoderLayer int32  `json:"encoder_layers"`
		TextCtx      int32  `json:"max_target_positions"`
		DecoderHeads int32  `json:"decoder_attention_heads"`
		DecoderLayer int32  `json:"decoder_layers"`
		Mels         int32  `json:"num_mel_bins"`
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return hparams{}, err
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return hparams{}, fmt.Errorf("config.json: %w", err)
	}
	if config.ModelType != "whisper" {
		return hparams{}, fmt.Errorf("config.json: model_type is %q and has to be \"whisper\"", config.ModelType)
	}
	h := hparams{
		Vocab: config.Vocab, AudioCtx: config.AudioCtx, AudioState: config.Width,
		AudioHead: config.EncoderHeads, AudioLayer: config.EncoderLayer,
		TextCtx: config.TextCtx, TextState: config.Width,
		TextHead: config.DecoderHeads, TextLayer: config.DecoderLayer,
		Mels: config.Mels, FType: ftypeF16,
	}
	if err := h.check(); err != nil {
		return hparams{}, fmt.Errorf("config.json: %w", err)
	}
	return h, nil
}
