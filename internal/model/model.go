// Package model is the catalogue of models and the store of their files: it
// lists, downloads, converts, checks and removes them.
//
// It trusts its own catalogue and the directory it is given. It does not trust
// any file in there, any checkpoint it converts or any server: a file gets its
// name only after its size, its structure down to the last tensor and, where
// one is known, its digest were found right. whisper.cpp reads past what it
// checks and ends its process on some bad files, so what passes here must be
// what it can load.
//
// In its directory it writes, for a model called NAME:
//
//	ggml-NAME.bin               the model
//	ggml-NAME.bin.json          its digest and where it came from (record)
//	ggml-NAME.bin.partial       a download under way or broken off
//	ggml-NAME.bin.partial.json  what that download needs to go on
//	ggml-NAME.bin.import        a conversion or a copy under way
//	.ggml-NAME.lock             held while one of the above is written
package model

import (
	"strings"

	"whisper-appliance/internal/fault"
)

// Kind is what a model is for.
type Kind string

// The kinds of model.
const (
	Speech Kind = "speech" // Whisper: sound to text
	VAD    Kind = "vad"    // Silero: where in the sound somebody speaks
)

const (
	filePrefix = "ggml-"
	fileSuffix = ".bin"

	partialSuffix = ".partial"
	importSuffix  = ".import"
	stateSuffix   = ".json"
)

// fileName is the name of a model's file, as upstream writes it.
func fileName(name string) string { return filePrefix + name + fileSuffix }

// nameOf is the name of the model in a file, false where the file's name is
// not of the form ggml-NAME.bin.
func nameOf(file string) (string, bool) {
	rest, ok := strings.CutPrefix(file, filePrefix)
	if !ok {
		return "", false
	}
	name, ok := strings.CutSuffix(rest, fileSuffix)
	return name, ok && validName(name)
}

// validName keeps a name that came from outside from being a path.
func validName(name string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return name != "" && len(name) <= 100 &&
		strings.Contains(letters, name[:1]) &&
		!strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(letters+"._-", r) })
}

// canonical is the plain name behind an alias, a file name or another spelling
// people use: "large", "ggml-tiny.bin", "whisper-base".
func canonical(name string) string {
	name = strings.TrimSpace(name)
	if n, ok := nameOf(name); ok {
		name = n
	}
	switch lower := strings.ToLower(name); lower {
	case "large":
		return "large-v3"
	case "silero":
		return "silero-v6.2.0"
	case "turbo", "large-turbo":
		return "large-v3-turbo"
	default:
		plain := strings.TrimPrefix(lower, "whisper-")
		if _, ok := find(plain); ok {
			return plain
		}
		return name
	}
}

// checkName refuses a name that cannot be part of a file's name.
func checkName(name string) error {
	if validName(name) {
		return nil
	}
	return fault.New(fault.BadInput, "bad_model_name",
		"%q cannot be a model's name", fault.Short(name)).On("model").
		Try("a name has letters, digits, dots, dashes and underscores only and begins with a letter or a digit")
}
