package model

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// readVocab gives the text tokens by number, as bytes, from a checkpoint's
// vocab.json and, for what that leaves out, added_tokens.json.
func readVocab(dir string) ([][]byte, error) {
	known, err := readTokens(filepath.Join(dir, "vocab.json"))
	if err != nil {
		return nil, err
	}
	added, err := readTokens(filepath.Join(dir, "added_tokens.json"))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	bytesOf := byteAlphabet()
	tokens := make([][]byte, vocabText)
	for text, id := range known {
		if id < 0 || id >= vocabText {
			continue // special tokens; whisper.cpp makes them up
		}
		if tokens[id], err = decodeToken(text, bytesOf); err != nil {
			return nil, err
		}
	}
	for text, id := range added {
		if id >= 0 && id < vocabText && tokens[id] == nil {
			tokens[id] = []byte(text)
		}
	}
	for id, token := range tokens {
		if token == nil {
			return nil, fmt.Errorf("vocab.json has no token %d", id)
		}
	}
	return tokens, nil
}

func readTokens(path string) (map[string]int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var tokens map[string]int
	if err := json.Unmarshal(data, &tokens); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return tokens, nil
}

// byteAlphabet is GPT-2's way to write any byte as a visible character: printable
// Latin-1 stands for itself, and the rest, in order, for the characters from 256 on.
func byteAlphabet() map[rune]byte {
	alphabet := make(map[rune]byte, 256)
	spare := rune(256)
	for b := range rune(256) {
		switch {
		case b >= '!' && b <= '~', b >= '¡' && b <= '¬', b >= '®' && b <= 'ÿ':
			alphabet[b] = byte(b)
		default:
			alphabet[spare] = byte(b)
			spare++
		}
	}
	return alphabet
}

func decodeToken(text string, bytesOf map[rune]byte) ([]byte, error) {
	out := make([]byte, 0, len(text))
	for _, r := range text {
		b, ok := bytesOf[r]
		if !ok {
			return nil, fmt.Errorf("vocab.json: %q has a character that stands for no byte", text)
		}
		out = append(out, b)
	}
	return out, nil
}
