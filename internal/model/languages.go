package model

import (
	"strings"

	"whisper-appliance/internal/transcript"
)

// languagesOf is what the model of that name knows, as codes: English, all but
// the last of Whisper's languages, or all of them from large-v3 on.
func languagesOf(name string) []string {
	var all []string
	for _, l := range transcript.Languages() {
		all = append(all, l.Code)
	}
	switch {
	case strings.Contains(name, ".en"):
		return all[:1]
	case strings.HasPrefix(name, "large-v3"):
		return all
	default:
		return all[:len(all)-1]
	}
}
