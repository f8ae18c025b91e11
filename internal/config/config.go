// Package config is every setting of the appliance: what it is called, what it
// means, what it is unless somebody says otherwise, and where it was said.
// It reads the files and variables that its caller names and trusts none of
// them: each value is checked, and everything that is wrong is reported at
// once. It writes settings.toml, when asked to save a setting, and nothing
// else. It is also the one owner of TOML: Unmarshal, Marshal and Rewrite serve
// other packages' files.
package config

import (
	"net/netip"
	"time"

	"whisper-appliance/internal/transcript"
)

// Config is the appliance's settings. Load gives one that has been checked;
// Default documents what each is by itself. The doc tags are the reference.
type Config struct {
	Environment   Environment   `toml:"environment" doc:"What this appliance is for."`
	Server        Server        `toml:"server" doc:"The doors: HTTP and HTTPS share one port."`
	TLS           TLS           `toml:"tls" doc:"HTTPS. Without a certificate of yours the appliance makes one for every name and address of the machine."`
	Auth          Auth          `toml:"auth" doc:"Who may. Whatever changes the appliance needs root on its Unix socket, or a key with the scope admin."`
	Models        Models        `toml:"models" doc:"Whisper's models."`
	Engine        Engine        `toml:"engine" doc:"The process that holds the model in memory."`
	Queue         Queue         `toml:"queue" doc:"Who waits, and how many may. Short recordings go before long ones, and callers share the engine's time evenly."`
	Jobs          Jobs          `toml:"jobs" doc:"What is accepted is kept until it is done: a crash, an update or a power cut does not lose it."`
	Outbound      Outbound      `toml:"outbound" doc:"Where the appliance may go for those who send jobs: to fetch recordings, and to tell that they are done. It goes nowhere unless hosts are named here. A host is a name or an address, with a port where that is not http's or https' own: \"files.example.org\", \"files.example.org:8443\"; \"*.example.org\" is every name below example.org."`
	Database      Database      `toml:"database" doc:"Where jobs are kept. A file is the default; with PostgreSQL several appliances share the work."`
	VAD           VAD           `toml:"vad" doc:"How speech is found in a recording. What is no speech is not decoded."`
	Transcription Transcription `toml:"transcription" doc:"How speech becomes text, unless a request says otherwise."`
	Subtitles     Subtitles     `toml:"subtitles" doc:"How srt and vtt are laid out where they are laid out: by \"whisper-appliance transcribe\" and for jobs, and where a request asks for it. The defaults are what broadcasters and film services ask of subtitles. Widths count a full-width character twice."`
	Decode        Decode        `toml:"decode" doc:"How recordings become sound."`
	Update        Update        `toml:"update" doc:"How the appliance keeps itself up to date. Root's updater reads config.toml and config.d alone, nothing that the page saved here: the page has a policy of its own with the updater, and what is set here wins over it."`
	Log           Log           `toml:"log" doc:"What is logged."`
}

// Environment is the [environment] section.
type Environment struct {
	Profile string `toml:"profile" oneof:"development testing staging production" doc:"development, testing, staging or production: decides what [log] level is where nobody sets it (debug in development and testing, else info), and shows in the health. A checkout of the source is development unless this says otherwise."`
}

// Server is the [server] section.
type Server struct {
	Listen         string `toml:"listen" check:"listen" doc:"Address and port. Nothing before the colon means every address; port 0 means any free one."`
	HTTPRedirect   bool   `toml:"http_redirect" doc:"Send browsers on other machines that come by plain HTTP to HTTPS."`
	PlainAPI       bool   `toml:"plain_api" doc:"Serve the API by plain HTTP to other machines, too."`
	MaxUpload      Bytes  `toml:"max_upload" min:"1" doc:"The largest recording taken."`
	MaxConnections int    `toml:"max_connections" min:"1" max:"65536" doc:"Connections held at once; more wait."`
}

// TLS is the [tls] section.
type TLS struct {
	Certificate string   `toml:"certificate" check:"path" doc:"PEM file with your certificate, followed by its chain. Goes with key."`
	Key         string   `toml:"key" check:"path" doc:"PEM file with the certificate's private key."`
	Names       []string `toml:"names" check:"host" doc:"Further host names and addresses for the certificate that the appliance makes."`
}

// Auth is the [auth] section.
type Auth struct {
	KeysFile       string         `toml:"keys_file" check:"path" doc:"File of API keys, see \"whisper-appliance keys\". Empty means keys.toml beside config.toml."`
	OpenTo         string         `toml:"open_to" oneof:"private loopback nobody" doc:"Who may transcribe without a key: private (this machine and private addresses), loopback (this machine) or nobody."`
	TrustedProxies []netip.Prefix `toml:"trusted_proxies" doc:"Addresses or networks of reverse proxies whose X-Forwarded-For is believed. Through any other proxy a caller counts as remote. Whoever has one of these addresses may claim to be anybody: name the proxies alone, not a network that clients are in."`
}

// Models is the [models] section.
type Models struct {
	Directory string `toml:"directory" check:"path" doc:"Where model files are kept. Empty means models in the state directory. Under systemd the sandboxes are opened for another one by \"whisper-appliance doctor --fix\", where config.toml or config.d names it."`
	Default   string `toml:"default" check:"name" doc:"The model in use, by its name in the catalogue."`
	Mirror    string `toml:"mirror" check:"mirror" doc:"A directory or http(s) address to take model files from first."`
	Preload   bool   `toml:"preload" doc:"Load the model when the appliance starts, not with the first request."`
}

// Engine is the [engine] section.
type Engine struct {
	Threads    int           `toml:"threads" min:"0" max:"256" doc:"Threads that decode; 0 means as many as suit the machine."`
	IdleUnload time.Duration `toml:"idle_unload" min:"1s" zero:"never" doc:"Give the model's memory back after so long without work; \"0s\" means never."`
	IdleExit   time.Duration `toml:"idle_exit" min:"1s" zero:"never" doc:"End the engine's process after so long without work; \"0s\" means never."`
	Lanes      string        `toml:"lanes" oneof:"auto one two" doc:"How many windows of up to 30 seconds are decoded at once. two: a short recording is decoded at once, beside a long one, which takes memory for a second working state of the model. auto: two where there are four cores and memory for it."`
	Device     string        `toml:"device" oneof:"cpu" doc:"What computes. This version knows the CPU alone, and picks the fastest code for it."`
}

// Queue is the [queue] section.
type Queue struct {
	Most          int `toml:"most" min:"1" max:"100000" doc:"Recordings taken at once, those that are being transcribed and those that wait; more are told when to try again."`
	MostPerCaller int `toml:"most_per_caller" min:"1" max:"100000" doc:"How many of these may be one caller's: a key's, or an address's where it has none."`
}

// Jobs is the [jobs] section.
type Jobs struct {
	AtOnce     int           `toml:"at_once" min:"1" max:"64" doc:"Jobs that are worked on at once, beside the requests whose senders wait. They take turns at the engine."`
	Most       int           `toml:"most" min:"1" max:"1000000" doc:"Jobs that may wait; more are told to come again."`
	Keep       time.Duration `toml:"keep" min:"1m" zero:"for ever" doc:"How long a job stays after its end, with its transcript; \"0s\" means for ever. Its recording goes when it is done."`
	KeepMost   int           `toml:"keep_most" min:"0" max:"1000000" doc:"How many jobs that have ended stay at most, the oldest go first; 0 means any number."`
	Disk       Bytes         `toml:"disk" min:"1" doc:"What the recordings of jobs may take in all. Those of jobs that have failed go first; then no more jobs are taken."`
	UploadKeep time.Duration `toml:"upload_keep" min:"1m" max:"720h" doc:"How long an upload in pieces that is not whole waits for its next piece."`
	Directory  string        `toml:"directory" check:"path" doc:"Where the recordings of jobs are kept. Empty means jobs in the state directory. Appliances that share a database need one that all of them see. It is read at the start."`
}

// Outbound is the [outbound] section.
type Outbound struct {
	Recordings []string       `toml:"recordings" check:"place" doc:"Hosts that recordings may be fetched from, for jobs with a url in place of a file. None means that no job may have one."`
	Webhooks   []string       `toml:"webhooks" check:"place" doc:"Hosts that the ends of jobs may be told to, for jobs with a webhook. None means that no job may have one."`
	Networks   []netip.Prefix `toml:"networks" doc:"Networks in which these hosts may be though they are this machine's own or private ones, such as [\"192.168.1.0/24\"]. A host whose name leads to any other such address is refused."`
	SecretFile string         `toml:"webhook_secret_file" check:"path" doc:"File with the secret that webhooks are signed with: whsec_ and the base64 of 24 to 64 random bytes, in a file that not everybody may read. While a secret is being replaced the file may hold both, a line each. Empty means webhook-secret beside config.toml."`
}

// Database is the [database] section.
type Database struct {
	URL string `toml:"url" check:"database" doc:"Address of a PostgreSQL database that several appliances share, as \"postgres://user:password@host/name\". Empty means a file in the state directory. It is read at the start."`
}

// VAD is the [vad] section.
type VAD struct {
	Detector  string `toml:"detector" oneof:"auto loudness" doc:"auto: by the model silero, or where it is not installed by loudness, which transcripts say. loudness: whatever is not silent is taken for speech, music and noise too."`
	Threshold int    `toml:"threshold" min:"1" max:"99" doc:"How sure the model must be of speech, in percent. Less finds quiet voices, more leaves out singing and crowds."`
}

// Transcription is the [transcription] section.
type Transcription struct {
	Language    string        `toml:"language" check:"language" doc:"The language spoken, such as \"en\" or \"de\"; \"auto\" means that it is detected."`
	Detect      string        `toml:"detect" oneof:"once window" doc:"How often a language is detected: once from the first speech, or anew in each window of up to 30 seconds, for recordings in several languages."`
	ShortPass   bool          `toml:"short_pass" doc:"Look at short recordings for only as long as they are, not at 30 seconds always: two to three times as fast."`
	SecondLook  bool          `toml:"second_look" doc:"Decode a passage again where its text looks wrong (a loop, unlikely words, speech without text), and keep the better one."`
	CarryText   bool          `toml:"carry_text" doc:"Give the text of the window before to each window as its prompt. It may keep names alike, and makes more errors with the small models."`
	BeamSize    int           `toml:"beam_size" min:"0" max:"8" doc:"Hypotheses kept by beam search; below 2 decoding is greedy."`
	BestOf      int           `toml:"best_of" min:"1" max:"8" doc:"Candidates when a passage is tried again at a higher temperature."`
	MaxDuration time.Duration `toml:"max_duration" min:"1s" doc:"The longest recording taken."`
	HeaderWait  time.Duration `toml:"header_wait" min:"1s" doc:"Answers that take longer than this begin early and are kept alive, so that clients do not give up and send the file again."`
}

// Subtitles is the [subtitles] section.
type Subtitles struct {
	LineWidth    int           `toml:"line_width" min:"10" max:"100" doc:"Characters of a line."`
	FullWidth    int           `toml:"full_width" min:"5" max:"50" doc:"Full-width characters of a line whose text is Chinese, Japanese or Korean."`
	Lines        int           `toml:"lines" min:"1" max:"4" doc:"Lines shown at once."`
	ReadingSpeed int           `toml:"reading_speed" min:"5" max:"100" doc:"Characters a second that people can read: text that is spoken faster stays on until it can be read, or the next comes."`
	Shortest     time.Duration `toml:"shortest" min:"100ms" max:"2s" doc:"The least that text stays on, where the next leaves it the time."`
	Longest      time.Duration `toml:"longest" min:"3s" max:"1m" doc:"The most that text stays on, also where nobody says anything after it."`
}

// Layout is these settings as the renderers take them.
func (s Subtitles) Layout() transcript.Layout {
	return transcript.Layout{Width: s.LineWidth, FullWidth: s.FullWidth, Lines: s.Lines, Speed: s.ReadingSpeed, Shortest: s.Shortest, Longest: s.Longest}
}

// Decode is the [decode] section.
type Decode struct {
	FFmpeg  string        `toml:"ffmpeg" check:"path" doc:"The ffmpeg program. Empty means the first one in PATH."`
	Timeout time.Duration `toml:"timeout" min:"1s" doc:"The longest that decoding one file may take."`
}

// Update is the [update] section.
type Update struct {
	Channel   string        `toml:"channel" oneof:"stable beta" doc:"stable, or beta: releases before they are stable, too."`
	Automatic string        `toml:"automatic" oneof:"off download install" doc:"What happens by itself: off (nothing), download (a new release is brought and verified) or install (it is installed in the window)."`
	Window    string        `toml:"window" check:"window" doc:"When releases are installed by themselves, as \"02:00-05:00\" by the machine's clock; a window may go over midnight. Empty means at any time."`
	Days      []string      `toml:"days" check:"day" doc:"On which days, such as [\"sat\", \"sun\"]: those on which the window begins. None means every day."`
	Trial     time.Duration `toml:"trial" min:"10s" max:"24h" doc:"How long a new release must be healthy before it is committed."`
	Sources   []string      `toml:"sources" check:"source" doc:"Where releases come from: addresses that begin with https:// (or http://: what comes is verified all the same), or full paths of directories. None means the one that the package came with. They are asked in this order."`
	Pin       string        `toml:"pin" check:"version" doc:"The one version to be installed and stayed with, such as \"1.4.2\". Empty means the newest of the channel."`
	Rollout   int           `toml:"rollout" min:"-1" max:"99" doc:"This machine's place in staged roll-outs: 0 is among the first that are offered a release, 99 the last. -1 means that it is drawn from the machine's id, anew for each release."`
	Keep      int           `toml:"keep" min:"10" max:"100000" doc:"How many deployments the record keeps."`
	Rate      Bytes         `toml:"rate" doc:"The most that a download takes of the line each second; 0 means no limit."`
}

// Log is the [log] section.
type Log struct {
	Level  string `toml:"level" oneof:"debug info warn error" doc:"The least that is logged: debug, info, warn or error. The default is that of the profile production, see [environment]."`
	Format string `toml:"format" oneof:"auto journal text json" doc:"journal: entries of systemd's journal with a field for each attribute, such as COMPONENT, SLOT, JOB and REQUEST; lines with a priority where the journal is out of reach. text: for people. json: for collectors. auto: journal where systemd collects the output, else json in a container image, else text."`
}

// Default is the settings of an appliance that nobody has told anything. It is
// the only place where a default stands.
func Default() *Config {
	return &Config{
		Environment:   Environment{Profile: "production"},
		Server:        Server{Listen: ":5001", HTTPRedirect: true, PlainAPI: true, MaxUpload: 4 << 30, MaxConnections: 512},
		Auth:          Auth{OpenTo: "private"},
		Models:        Models{Default: "base"},
		Engine:        Engine{IdleUnload: 10 * time.Minute, IdleExit: 30 * time.Minute, Lanes: "auto", Device: "cpu"},
		Queue:         Queue{Most: 128, MostPerCaller: 64},
		Jobs:          Jobs{AtOnce: 4, Most: 1000, Keep: 7 * 24 * time.Hour, KeepMost: 10000, Disk: 20 << 30, UploadKeep: 24 * time.Hour},
		VAD:           VAD{Detector: "auto", Threshold: 50},
		Transcription: Transcription{Language: "auto", Detect: "once", ShortPass: true, SecondLook: true, BestOf: 5, MaxDuration: 24 * time.Hour, HeaderWait: 15 * time.Second},
		Subtitles:     Subtitles{LineWidth: 42, FullWidth: 16, Lines: 2, ReadingSpeed: 17, Shortest: 834 * time.Millisecond, Longest: 7 * time.Second},
		Decode:        Decode{Timeout: 2 * time.Hour},
		Update:        Update{Channel: "stable", Automatic: "download", Window: "02:00-05:00", Trial: 10 * time.Minute, Rollout: -1, Keep: 1000},
		Log:           Log{Level: "info", Format: "auto"},
	}
}
