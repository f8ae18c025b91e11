package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"time"

	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/peer"
)

// file is a recording and how long it lasts.
type file struct {
	path     string
	duration time.Duration
}

// sounds are the recordings that are sent.
type sounds struct {
	clips  []string // of 3 s
	window string   // of 10 s
	long   file     // an hour
	theirs file     // ten minutes, for whisper-server
}

// The names of what is measured.
const (
	twoLanes = "ours, two lanes"
	oneLane  = "ours, one lane"
	theirs   = "whisper-server"
)

const clipLength = 3 * time.Second

// makeSounds writes the recordings into dir. They are made of the English clips
// beside the repository, or of the reference clip where those are not there.
func makeSounds(ctx context.Context, root, dir string, quick bool) (s sounds, err error) {
	const pause, seed = 300 * time.Millisecond, 1
	list, err := clips.English(ctx, root)
	if err != nil {
		said, err := clips.Read(ctx, filepath.Join(root, "tests", "testdata", "reference.wav"))
		if err != nil {
			return s, err
		}
		list = []clips.Spoken{{Sound: said}}
	}
	put := func(name string, sound clips.Sound) (path string) {
		path = filepath.Join(dir, name)
		err = errors.Join(err, sound.WriteWAV(path))
		return path
	}
	err = nil
	for i, c := range aboutClipLength(list) {
		s.clips = append(s.clips, put(fmt.Sprintf("clip%d.wav", i), c.Sound.Fit(clipLength)))
	}
	s.window = put("window.wav", clips.Fill(clips.Shuffled(list, 20), 10*time.Second, pause).Sound)
	hour, tenMinutes := 302, 104 // clips of the shared ones
	if quick {
		hour, tenMinutes = 50, 5
	}
	long := clips.Together(clips.Shuffled(list, hour), 2*time.Second, 14*time.Second, seed).Sound
	shorter := clips.Together(clips.Shuffled(list, tenMinutes), pause, clipLength, seed).Sound
	s.long = file{put("long.wav", long), long.Duration()}
	s.theirs = file{put("theirs.wav", shorter), shorter.Duration()}
	return s, err
}

// aboutClipLength are the recordings of 2 to 3 s, or where there are none the
// one that comes nearest.
func aboutClipLength(list []clips.Spoken) (near []clips.Spoken) {
	for _, s := range list {
		if d := s.Sound.Duration(); d >= clipLength-time.Second && d <= clipLength {
			near = append(near, s)
		}
	}
	if len(near) == 0 {
		near = append(near, clips.Within(list, clipLength))
	}
	return near
}

// rig starts what is measured.
type rig struct {
	settings settings
	peer     peer.Peer
	sounds   sounds
	progress io.Writer

	ours appliance.Identity
}

func (r *rig) say(format string, args ...any) {
	fmt.Fprintf(r.progress, program+": "+format+"\n", args...)
}

// all measures ours in two lanes and in one, and theirs.
func (r *rig) all(ctx context.Context) ([]*result, error) {
	var results []*result
	for _, one := range []func(context.Context) (*result, error){
		func(ctx context.Context) (*result, error) { return r.appliance(ctx, twoLanes, "two") },
		func(ctx context.Context) (*result, error) { return r.appliance(ctx, oneLane, "one") },
		r.server,
	} {
		result, err := one(ctx)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// appliance measures ours with its engine in so many lanes.
func (r *rig) appliance(ctx context.Context, name, lanes string) (*result, error) {
	a, err := appliance.Start(ctx, appliance.Options{Root: r.settings.root, Model: model, Users: users + 2, Env: []string{
		"WHISPER_APPLIANCE_ENGINE_THREADS=" + strconv.Itoa(r.settings.threads),
		"WHISPER_APPLIANCE_ENGINE_LANES=" + lanes,
	}})
	if err != nil {
		return nil, err
	}
	result, err := r.ask(ctx, server{name: name, load: r.settings.load, long: r.sounds.long, request: func(user int, path string) clips.Request {
		return clips.Request{URL: a.URL + "/v1/audio/transcriptions", Key: a.Users[user], Path: path, Fields: map[string]string{
			"model": model, "language": "en", "response_format": "json",
		}}
	}})
	if err == nil {
		r.ours, err = a.Identify(ctx)
	}
	return result, errors.Join(err, a.Stop())
}

// server measures whisper-server, which does one request after the other.
func (r *rig) server(ctx context.Context) (*result, error) {
	s, err := r.peer.Server(ctx, appliance.ModelFile(r.settings.root, model), "-t", strconv.Itoa(r.settings.threads), "-bs", "1", "-bo", "5", "-l", "en")
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	return r.ask(ctx, server{name: theirs, load: r.settings.theirs, long: r.sounds.theirs, request: func(_ int, path string) clips.Request {
		return clips.Request{URL: s.URL, Path: path, Fields: map[string]string{"language": "en", "response_format": "json"}}
	}})
}

func (r *rig) ask(ctx context.Context, s server) (*result, error) {
	return (&measurement{server: s, sounds: r.sounds, say: r.say}).all(ctx)
}
