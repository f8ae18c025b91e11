package appliance

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/transcribe"
)

// Parts is what the components are made of and looked at through. Functions
// may be nil where the list is only shown.
type Parts struct {
	Paths     paths.Paths
	Config    func() *config.Config
	Appliance *Appliance

	Doors       func(ctx context.Context) error // opens them
	Certificate func(ctx context.Context) error // makes or reads it; nil once one is served
	Keys        func() error                    // why the keys cannot be used
	Jobs        *Jobs
	Systemd     func(ctx context.Context) error // asks it something; nil = it does not run this server
	Free        func(dir string) (int64, error) // bytes left to us; nil = what the kernel says

	// Updater tells that the updater can be asked, and what is to be said of it;
	// nil = there is none to this server.
	Updater func(ctx context.Context) (string, error)
}

// What is not there yet says so.
const later = "comes with a later version"

// Components declares every part of the appliance: its name, what it needs,
// and what the appliance does without it.
func (p Parts) Components() []component.Component {
	return slices.Concat(p.house(), p.work(), []component.Component{p.database(), p.systemd(), p.updater()}, planned())
}

// house is what has to be there for anything to be served.
func (p Parts) house() []component.Component {
	return []component.Component{
		{
			Name: "state", Does: "the directories for all that is kept", Critical: true, Every: 5 * time.Second,
			Checked: "they are made, and can be read and written",
			Without: "nothing is served: the program ends and says which directory is wrong",
			Search:  []string{p.Paths.State, p.Paths.Models, p.Paths.TLS, p.Paths.Run},
			Start:   func(context.Context) error { return p.Paths.Prepare() }, Check: p.checkState,
		},
		{
			Name: "doors", Does: "the sockets that are listened on", Critical: true, Checked: "they are taken over from systemd, or opened",
			Without: "nothing is served", Search: []string{p.Paths.APISocket}, Start: p.Doors,
		},
		{
			Name: "spool", Does: "room for recordings while they are worked on", Needs: []string{"state"}, Every: 5 * time.Second,
			Checked: "a file is written there, and the free space is looked at",
			Without: "recordings are refused with 503 or 507; pages, health and models answer",
			Search:  []string{p.Paths.Spool}, Check: p.checkSpool,
		},
		{
			Name: "tls", Does: "the certificate for HTTPS", Needs: []string{"state"}, Every: 10 * time.Second,
			Checked: "a certificate is served, and its files can be read",
			Without: "plain HTTP is served, and nobody is sent to HTTPS",
			Search:  p.certificateFiles(), Start: p.certificate, Check: p.checkTLS,
		},
		{
			Name: "keys", Does: "the keys of those who come from outside", Checked: "the file is read when it changes",
			Without: "every key is refused; root on the Unix socket may all, and private addresses may transcribe",
			Search:  []string{p.keysFile()}, Check: p.checkKeys,
		},
	}
}

// work is what turns a recording into text.
func (p Parts) work() []component.Component {
	return []component.Component{
		{
			Name: "decoder", Does: "turns media into sound, a sandboxed process for each file", Checked: "its programs and its socket are there",
			Every:   5 * time.Second,
			Without: "WAV of 16 kHz mono is taken, all else is refused with 503", Search: p.decoderFiles(), Check: p.checkDecoder,
		},
		{
			Name: "models", Does: "the model in use", Needs: []string{"state"}, Checked: "its file is there and is a whole model", Every: 5 * time.Second,
			Without: "recordings are refused with 503; models can be fetched", Search: p.modelDirectories(), Check: p.checkModels,
		},
		{
			Name: "engine", Does: "recognises speech, in a process that ends when nobody needs it", Every: 5 * time.Second,
			Checked: "its programs are there, and what started it last has not given up",
			Without: "recordings are refused with 503; pages, health and models answer", Search: p.engineFiles(), Check: p.checkEngine,
		},
		{
			Name: "vad", Does: "speech detection by a model", Needs: []string{"state"}, Checked: "its file is in the release or among the models", Every: 5 * time.Second,
			Without: "speech is told from silence by loudness, which transcripts say: music and noise are decoded, too",
			Search:  append(p.modelDirectories(), p.Paths.Bundled()), Check: p.checkVAD,
		},
		{
			Name: "memory", Does: "room for the model in use", Needs: []string{"models"}, Checked: "what is available, against what the model needs",
			Without: "the engine may fail: a smaller model is advised", Check: p.checkMemory,
		},
	}
}

// database is where jobs are kept.
func (p Parts) database() component.Component {
	c := component.Component{
		Name: "database", Does: "jobs, which outlive a crash, an update and a power cut", Needs: []string{"state"}, Every: 10 * time.Second,
		Checked: "it is opened, and asked for its schema",
		Without: "recordings are transcribed for those who wait; jobs are refused with 503, and those that were accepted wait",
		Search:  []string{p.Paths.Database},
	}
	if p.Jobs != nil {
		c.Check = p.Jobs.Check
	}
	return c
}

// systemd is what is known of our units. A server that systemd does not run has none.
func (p Parts) systemd() component.Component {
	c := component.Component{
		Name: "systemd", Does: "the states of our units", Every: 10 * time.Second, Checked: "it is asked over D-Bus",
		Without: "units are shown as not available; all else works", Search: []string{paths.MachineAt("").SystemBus},
		Check: func(ctx context.Context) (string, error) { return "", p.Systemd(ctx) },
	}
	if p.Systemd == nil && p.Appliance != nil {
		c.Planned, c.Check = "systemd does not run this server", nil
	}
	return c
}

// updater is what brings new versions. It is there where systemd runs the
// server of an installed appliance.
func (p Parts) updater() component.Component {
	c := component.Component{
		Name: "updater", Does: "signed updates, with a trial and a way back", Every: 10 * time.Second,
		Checked: "the bus knows it, and it has raised no alarm",
		Without: "new versions come by apt, or by `whisper-appliance update` as root; what asks the updater is answered with 503",
		Search:  []string{p.Paths.UpdaterBin, paths.MachineAt("").SystemBus}, Check: p.Updater,
	}
	if p.Updater == nil && p.Appliance != nil {
		c.Planned, c.Check = "systemd does not run this server", nil
	}
	return c
}

// planned is what is not there yet.
func planned() []component.Component {
	return []component.Component{
		{Name: "maintenance", Does: "maintenance mode", Planned: later, Without: "the enterprise maintenance keys answer false with this reason"},
	}
}

func (p Parts) config() *config.Config {
	if p.Config == nil {
		return config.Default()
	}
	return p.Config()
}

func (p Parts) keysFile() string { return cmp.Or(p.config().Auth.KeysFile, p.Paths.Keys) }

func (p Parts) certificateFiles() []string {
	c := p.config().TLS
	if c.Certificate != "" {
		return []string{c.Certificate, c.Key}
	}
	return []string{filepath.Join(p.Paths.TLS, "server.crt"), filepath.Join(p.Paths.TLS, "server.key")}
}

func (p Parts) modelDirectories() []string {
	return []string{cmp.Or(p.config().Models.Directory, p.Paths.Models)}
}

func (p Parts) engineFiles() []string {
	program := p.Paths.EngineProgram()
	return []string{program[0], p.Paths.EngineBinary(), p.Paths.EngineSocket}
}

// supervised tells whether systemd starts engine and decoders.
func (p Parts) supervised() bool { return p.Appliance != nil && p.Appliance.unit != nil }

func (p Parts) decoderFiles() []string {
	ffmpeg := cmp.Or(p.config().Decode.FFmpeg, p.Paths.FFmpeg, "ffmpeg")
	if p.supervised() {
		return []string{filepath.Join(p.Paths.Golden, "bin", filepath.Base(p.Paths.DecoderProgram())), p.Paths.UnitFFmpeg, p.Paths.DecodeSocket}
	}
	return []string{p.Paths.DecoderProgram(), ffmpeg}
}

func (p Parts) checkState(context.Context) (string, error) {
	for _, dir := range []string{p.Paths.State, p.Paths.Models, p.Paths.Spool, p.Paths.TLS, p.Paths.Run} {
		if _, err := os.ReadDir(dir); err != nil {
			return "", fault.New(fault.Internal, "no_directory", "the directory %s cannot be read", dir).Because(err).
				Try("whisper-appliance paths --check")
		}
	}
	for _, dir := range []string{p.Paths.State, p.Paths.TLS} {
		if err := unix.Access(dir, unix.W_OK); err != nil {
			return "", fault.New(fault.Unavailable, "state_not_writable", "nothing can be written to %s", dir).Because(err).
				Try("whisper-appliance paths --check; `dmesg` says whether the disk is read-only because it failed")
		}
	}
	return "", nil
}

func (p Parts) free(dir string) (int64, error) {
	if p.Free != nil {
		return p.Free(dir)
	}
	return durable.Free(dir)
}

func (p Parts) checkSpool(context.Context) (string, error) {
	f, err := os.CreateTemp(p.Paths.Spool, ".probe-*")
	if err == nil {
		_, err = f.Write(make([]byte, 4096))
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "", fault.New(fault.NoSpace, "disk_full", "the disk of %s is full", p.Paths.Spool).Because(err).
			Try("free some space: `whisper-appliance models list` shows what models take")
	case err != nil:
		return "", fault.New(fault.Unavailable, "spool_not_writable", "nothing can be written to %s", p.Paths.Spool).Because(err).
			Try("whisper-appliance paths --check")
	}
	free, err := p.free(p.Paths.Spool)
	if err != nil {
		return "", nil //nolint:nilerr // a file could be written: that is what counts
	}
	if free < transcribe.Reserve {
		return "", fault.New(fault.NoSpace, "disk_full", "the disk of %s has %s left, and recordings need %s at least",
			p.Paths.Spool, fault.Bytes(free), fault.Bytes(transcribe.Reserve)).Try("free some space")
	}
	return fault.Bytes(free) + " free", nil
}

// certificate is Certificate with words for people behind each error.
func (p Parts) certificate(ctx context.Context) error {
	err := p.Certificate(ctx)
	var worded *fault.Error
	if err == nil || errors.As(err, &worded) {
		return err
	}
	return fault.New(fault.Unavailable, "certificate_unusable", "the certificate cannot be used").Because(err).
		Try("whisper-appliance paths --check; the server's user must be able to read both files")
}

func (p Parts) checkTLS(ctx context.Context) (string, error) { return "", p.certificate(ctx) }

func (p Parts) checkKeys(context.Context) (string, error) { return "", p.Keys() }

func (p Parts) checkDecoder(context.Context) (string, error) {
	return "", present("decoder_missing", p.decoderFiles())
}

func (p Parts) checkEngine(context.Context) (string, error) {
	if err := present("engine_missing", p.engineFiles()); err != nil {
		return "", err
	}
	if p.Appliance.EngineRunning() { // asks systemd anew: once
		return "running", nil
	}
	if why := p.Appliance.EngineDown(); why != "" {
		return "", fault.New(fault.Unavailable, "engine_down", "the engine cannot be started: %s", why).
			Try("its own words are in the journal")
	}
	return "starts when it is needed", nil
}

func (p Parts) checkModels(context.Context) (string, error) {
	name := p.config().Models.Default
	_, err := p.Appliance.Models.Sound(name)
	if err == nil {
		return name, nil
	}
	if fault.KindOf(err) == fault.NotFound {
		if why := p.Appliance.firstModel(); why != "" {
			return "", fault.New(fault.Unavailable, "model_not_installed", "the model %s is being fetched: %s", name, why).
				Try("wait; or put its file into %s", p.Appliance.Models.Dir)
		}
		return "", err
	}
	return "", fault.New(fault.Unavailable, "model_damaged", "the model %s is damaged", name).Because(err).
		Try("whisper-appliance models pull %s", name)
}

func (p Parts) checkVAD(context.Context) (string, error) {
	if p.config().VAD.Detector == "loudness" {
		return "by loudness, as the settings say", nil
	}
	if file, ok := p.Appliance.Models.ResolveVAD(); ok {
		return file, nil
	}
	return "", fault.New(fault.Unavailable, "detector_missing", "the speech detector's model is not installed: speech is told from silence by loudness").
		Try("whisper-appliance models pull silero")
}

func (p Parts) checkMemory(context.Context) (string, error) {
	if why := p.Appliance.Models.MemoryWarning(p.config().Models.Default); why != "" && !p.Appliance.EngineRunning() {
		return "", fault.New(fault.Unavailable, "low_memory", "%s", why).Try("choose a smaller model, or give the machine more memory")
	}
	return "", nil
}

// present says which of the files is missing.
func present(code string, files []string) error {
	for _, file := range files {
		_, err := os.Stat(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fault.New(fault.Unavailable, code, "%s is missing", file).Try("install the appliance, or ffmpeg, again; `whisper-appliance verify` says what else is missing")
		case err != nil:
			return fault.New(fault.Unavailable, code, "%s cannot be reached", file).Because(err).Try("whisper-appliance paths --check")
		}
	}
	return nil
}
