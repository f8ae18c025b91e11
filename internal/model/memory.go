package model

import "strings"

// memoryNeeded is what a model takes while it transcribes one window: its
// weights, which have the size of the file, and the buffers of one state.
//
// The buffers are those that whisper.cpp 1.9.5 prints when it makes a state
// (key and value caches and the four compute buffers, flash attention on, f16
// caches): their sum, measured for each shape. The process stayed 45 MB below
// this in every case tried: tiny 180 of 223 MB, base 273 of 317, small 684 of
// 727, large-v3-turbo 1830 of 1874.
func memoryNeeded(name string, size int64) int64 { return size + stateNeeded(name) }

// stateNeeded is what one state of a model takes, 0 where that is not known.
func stateNeeded(name string) int64 {
	const mb = 1_000_000
	for _, b := range []struct {
		prefix string
		state  int64
	}{
		{"silero", 2 * mb},
		{"tiny", 146 * mb},
		{"base", 169 * mb},
		{"small", 240 * mb},
		{"medium", 387 * mb},
		{"large-v3-turbo", 250 * mb},
		{"large", 544 * mb},
	} {
		if strings.HasPrefix(strings.TrimPrefix(name, "distil-"), b.prefix) {
			return b.state
		}
	}
	return 0
}
