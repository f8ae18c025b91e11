package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"whisper-appliance/internal/score"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/peer"
)

// The long form is the English clips again and again, in other orders, with
// pauses: the same at every run.
const (
	longLanguage  = "en"
	longClips     = 104 // ten minutes of those that lie beside the checkout
	shortestPause = 300 * time.Millisecond
	longestPause  = 3 * time.Second
	pauseSeed     = 1
)

// recogniser gives the text of a recording in a language, as it stands, and
// what it took.
type recogniser func(ctx context.Context, path, language string) (string, peer.Cost, error)

// measurement is what a run works with.
type measurement struct {
	dir          string // for converted clips
	progress     io.Writer
	ours, theirs recogniser
	theirsLong   recogniser
	long         int // clips in the long form
	longOnly     bool
}

// heard is one recording as three heard it.
type heard struct {
	clip     score.Clip
	duration time.Duration
	ours     side // from what whisper-cli got
	theirs   side
	original side // ours, from the recording as it is
}

// side is what one heard and how wrong that is.
type side struct {
	text   string
	counts score.Counts
	cost   peer.Cost
}

// result is a whole run.
type result struct {
	clips    []heard
	long     heard
	joined   int // clips in the long form
	excluded []score.Clip
	ours     appliance.Identity
	took     time.Duration
}

// all measures every clip that counts, and the long form.
func (m measurement) all(ctx context.Context, list []score.Clip) (*result, error) {
	r := &result{joined: m.long}
	var spoken []clips.Spoken
	for i, clip := range list {
		fmt.Fprintf(m.progress, "%s: %d/%d %s\n", program, i+1, len(list), clip.File)
		if clip.Excluded != "" {
			r.excluded = append(r.excluded, clip)
			continue
		}
		sound, err := clips.Read(ctx, clip.Path)
		if err != nil {
			return nil, err
		}
		if !m.longOnly {
			h, err := m.one(ctx, clip, sound, m.theirs)
			if err != nil {
				return nil, err
			}
			r.clips = append(r.clips, h)
		}
		if clip.Language == longLanguage {
			spoken = append(spoken, clips.Spoken{Sound: sound, Text: clip.Reference})
		}
	}
	fmt.Fprintf(m.progress, "%s: long form\n", program)
	long := clips.Together(clips.Shuffled(spoken, m.long), shortestPause, longestPause, pauseSeed)
	var err error
	r.long, err = m.one(ctx, score.Clip{File: "long form", Language: longLanguage, Reference: long.Text}, long.Sound, m.theirsLong)
	return r, err
}

// one has a recording heard by all: sound is what is in it. A clip without a
// path is that sound alone.
func (m measurement) one(ctx context.Context, clip score.Clip, sound clips.Sound, theirs recogniser) (h heard, err error) {
	path := filepath.Join(m.dir, "clip.wav")
	if err := sound.WriteWAV(path); err != nil {
		return h, err
	}
	h.clip, h.duration = clip, sound.Duration()
	for _, s := range []struct {
		by   recogniser
		path string
		to   *side
	}{{m.ours, path, &h.ours}, {theirs, path, &h.theirs}, {m.ours, clip.Path, &h.original}} {
		if s.path == "" {
			continue
		}
		text, cost, err := s.by(ctx, s.path, clip.Language)
		if err != nil {
			return h, fmt.Errorf("%s: %w", clip.File, err)
		}
		*s.to = side{text, score.Compare(clip.Language, clip.Reference, text), cost}
	}
	return h, nil
}
