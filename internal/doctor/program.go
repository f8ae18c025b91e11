package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// config tells what is wrong with the settings and which have no effect.
func (d *Doctor) config(context.Context) []Finding {
	const show = "`whisper-appliance config show` tells where each value comes from"
	if d.Settings == nil {
		return wrongSettings(d.Wrong)
	}
	var found []Finding
	for _, note := range d.Report.Notes {
		found = append(found, advice(show, "%s", note))
	}
	if d.installed() {
		found = append(found, d.withoutEffect()...)
	}
	if len(found) == 0 {
		return one(well("the settings are right"))
	}
	return found
}

func wrongSettings(err error) []Finding {
	if problems, ok := errors.AsType[config.Problems](err); ok {
		var found []Finding
		for _, p := range problems {
			do := p.Hint
			if do == "" {
				do = "put it right; `whisper-appliance config check` looks again"
			}
			found = append(found, problem(do, "%v", p))
		}
		return found
	}
	return one(problem(fault.Hint(err), "the settings cannot be used: %v", err))
}

// withoutEffect are settings that units decide where systemd runs the parts.
func (d *Doctor) withoutEffect() []Finding {
	var found []Finding
	for _, s := range []struct{ key, do string }{
		{"server.listen", "the port is the socket's: `systemctl edit whisper-appliance.socket`"},
	} {
		if v, ok := d.Report.Find(s.key); ok && v.Origin != "default" {
			found = append(found, advice(s.do, "%s = %s (%s) has no effect here", s.key, v.Literal(), v.Origin))
		}
	}
	if ffmpeg := d.Settings.Decode.FFmpeg; ffmpeg != "" && ffmpeg != d.Paths.UnitFFmpeg {
		found = append(found, advice("`systemctl edit whisper-appliance-decode@.service`, with an ExecStart= that names it; it must be readable there",
			"decode.ffmpeg = %q has no effect here: the decoder's unit executes %s", ffmpeg, d.Paths.UnitFFmpeg))
	}
	return found
}

// needed are ffmpeg's names of the decoders that common recordings need.
func needed() []string {
	return []string{"aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le", "alac", "amrnb", "wmav2"}
}

var versionLine = regexp.MustCompile(`(?m)^ffmpeg version (\S+)`)

func (d *Doctor) ffmpeg(ctx context.Context) []Finding {
	const install = "apt install ffmpeg; without it only WAV files of 16 kHz can be transcribed"
	if d.FFmpeg == nil {
		return one(problem(install, "ffmpeg is not there"))
	}
	out, err := d.FFmpeg(ctx, "-version")
	match := versionLine.FindStringSubmatch(out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return one(problem(install, "ffmpeg is not there"))
	case err != nil:
		return one(problem("install ffmpeg again, from the distribution's packages", "ffmpeg does not run: %v", err))
	case match == nil:
		return one(problem("install ffmpeg from the distribution's packages", "what should be ffmpeg says nothing of its version"))
	}
	found := one(well("ffmpeg %s", match[1]))
	list, err := d.FFmpeg(ctx, "-hide_banner", "-decoders")
	if err != nil {
		return found
	}
	if lacks := lacking(list); len(lacks) > 0 {
		found = append(found, advice("install ffmpeg from the distribution's packages", "this ffmpeg cannot decode %s", strings.Join(lacks, ", ")))
	}
	return found
}

// lacking are the decoders that ffmpeg's list, a line " A....D aac  …" for
// each, does not have. A library's decoder, as libopus, serves as well.
func lacking(list string) []string {
	have := map[string]bool{}
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) > 1 {
			name := fields[1]
			if strings.HasPrefix(name, "lib") && strings.Contains(line, "(codec ") {
				_, name, _ = strings.Cut(line, "(codec ")
				name, _, _ = strings.Cut(name, ")")
			}
			have[name] = true
		}
	}
	var lacks []string
	for _, name := range needed() {
		if !have[name] {
			lacks = append(lacks, name)
		}
	}
	return lacks
}

// decoder has a file decoded, and tells how locked in the decoder was.
func (d *Doctor) decoder(ctx context.Context) []Finding {
	if d.Decoder == nil {
		return unseen("ask again as root, while the appliance's sockets are active", "how the decoder is locked in")
	}
	level, err := d.Decoder(ctx)
	switch {
	case errors.Is(err, os.ErrPermission):
		return unseen("ask again as root", "how the decoder is locked in")
	case err != nil:
		return one(problem(fault.Hint(err), "no recording can be decoded: %v", err))
	case level != "full":
		return one(advice("a kernel with landlock (5.13 and newer, switched on) locks it in fully",
			"the decoder's own sandbox is %s: this kernel lacks a part of it", level))
	}
	return one(well("the decoder works, and its own sandbox is full"))
}

// certificate looks at what HTTPS is served with.
func (d *Doctor) certificate(context.Context) []Finding {
	given, file, key := d.certificateFiles()
	leaf, err := readLeaf(file)
	switch {
	case errors.Is(err, os.ErrPermission):
		return unseen("ask again as root", "the certificate %s", file)
	case errors.Is(err, fs.ErrNotExist) && !given:
		return one(well("no certificate yet: the server makes one at its first start"))
	case err != nil:
		return one(problem("put it right, or remove it: the appliance makes one of its own where none is named", "the certificate %s cannot be used: %v", file, err))
	}
	_, err = os.Stat(key)
	switch {
	case errors.Is(err, os.ErrPermission):
		return append(d.judge(leaf, given), unseen("ask again as root", "the key %s", key)...)
	case err != nil:
		return one(problem("put the key beside the certificate", "the certificate's key cannot be used: %v", err))
	case !d.User.MayRead(key):
		return one(problem("`chgrp "+serverUser+" "+key+"` and `chmod 0640 "+key+"`; the directories above it must let that user through", "the user %s may not read the key %s", d.User.Name, key))
	}
	return d.judge(leaf, given)
}

func (d *Doctor) certificateFiles() (given bool, file, key string) {
	if d.Settings != nil && d.Settings.TLS.Certificate != "" {
		return true, d.Settings.TLS.Certificate, d.Settings.TLS.Key
	}
	return false, filepath.Join(d.Paths.TLS, "server.crt"), filepath.Join(d.Paths.TLS, "server.key")
}

func readLeaf(file string) (*x509.Certificate, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it is no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// soon is how long before its end a certificate is told of: the appliance
// renews its own earlier.
const soon = 21 * 24 * time.Hour

func (d *Doctor) judge(leaf *x509.Certificate, given bool) []Finding {
	ends := leaf.NotAfter.UTC().Format(time.DateOnly)
	renew := "put a new one into its place, then `systemctl reload whisper-appliance`"
	if !given {
		renew = "see that the clock is right, then `systemctl restart whisper-appliance`: the server makes a new one"
	}
	switch now := d.Now(); {
	case now.After(leaf.NotAfter):
		return one(problem(renew, "the certificate ended on %s", ends))
	case now.Before(leaf.NotBefore):
		return one(problem("see that the clock is right", "the certificate begins on %s", leaf.NotBefore.UTC().Format(time.DateOnly)))
	case leaf.NotAfter.Sub(now) < soon:
		return one(advice(renew, "the certificate ends on %s", ends))
	}
	if d.Host != "" && leaf.VerifyHostname(d.Host) != nil {
		return one(advice("nothing, where people use another name; else a certificate with this one", "the certificate is not for this machine's name, %s", d.Host))
	}
	return one(well("the certificate is good until %s", ends))
}

// versions compares what is installed with what runs.
func (d *Doctor) versions(ctx context.Context) []Finding {
	if !d.installed() {
		return one(well("there are no slots: this is no installed appliance"))
	}
	slots := slot.Of(d.Paths.Slots, d.Paths.Current, d.Paths.Stable, d.Paths.Golden)
	serving, err := slots.Serving()
	switch {
	case err != nil:
		return one(problem(fault.Hint(err), "%v", err))
	case serving == "":
		return one(problem("whisper-appliance slot deploy", "no slot serves yet"))
	}
	m, err := slot.Read(slots.Path(serving))
	if err != nil {
		return one(problem("whisper-appliance slot deploy", "slot %s has no release: %v", serving, err))
	}
	var found []Finding
	if golden, err := slot.Read(d.Paths.Golden); err != nil {
		found = append(found, problem("install the package again", "the package's own release cannot be read: %v", err))
	} else if golden.Version != m.Version {
		found = append(found, well("slot %s holds %s, and the package brought %s", serving, m.Version, golden.Version))
	}
	if d.Health != nil {
		if h, err := d.Health(ctx); err == nil && h.Version != "" && h.Version != m.Version {
			found = append(found, problem("systemctl restart whisper-appliance", "slot %s holds %s, and a server of %s runs", serving, m.Version, h.Version))
		}
	}
	return append(found, well("slot %s serves, with %s", serving, m.Version))
}

// server asks the server how it is.
func (d *Doctor) server(ctx context.Context) []Finding {
	if d.Health == nil {
		return one(advice("systemctl start whisper-appliance", "no server answers on this machine"))
	}
	h, err := d.Health(ctx)
	switch {
	case err != nil:
		return one(problem(fault.Hint(err), "the server does not answer as it should: %v", err))
	case h.Status != component.Well:
		return one(advice("whisper-appliance components", "the server says that it is %s: %s", h.Status, strings.Join(h.Reasons, "; ")))
	}
	return one(well("the server answers: ok, %s", h.Version))
}
