package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/appliance"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/doctor"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
)

func doctorCommand(a *app) *cobra.Command {
	var fix, quiet bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Judge this installation, and say what to do",
		Long: "Look at units, sandboxes, paths, the port, the clock, memory, disk, ffmpeg, the model, the certificate and the\n" +
			"settings, and say what to do about what is wrong. As root it tries what this machine allows of the sandboxes.\n\n" +
			"With --fix (root) it writes a drop-in for each unit with a directive that this machine forbids, which relaxes this one\n" +
			"alone, and takes away those of its drop-ins that are no longer needed.\n\n" +
			"Exit code 1 tells of a problem.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d, done := a.doctor(c.Context())
			defer done()
			return a.examine(c.Context(), d, fix, quiet)
		},
	}
	c.Flags().BoolVar(&fix, "fix", false, "write and remove drop-ins as this machine needs them")
	c.Flags().BoolVar(&quiet, "quiet", false, "print problems, and what was fixed, alone")
	a.jsonFlag(c)
	return c
}

// examine prints what the doctor finds.
func (a *app) examine(ctx context.Context, d *doctor.Doctor, fix, quiet bool) error {
	if fix && !d.Root {
		return fault.New(fault.Forbidden, "not_root", "--fix changes units, which only root may").On("--fix").
			Try("sudo whisper-appliance doctor --fix")
	}
	tell := func(f doctor.Finding) { printFinding(a.out, f, quiet) }
	if a.jsonOut {
		tell = func(doctor.Finding) {}
	}
	var found []doctor.Finding
	if fix {
		found = d.Mend(ctx)
		for _, f := range found {
			tell(f)
		}
	}
	found = append(found, d.Examine(ctx, tell)...)
	verdict := doctor.Worst(found)
	if a.jsonOut {
		if err := a.printJSON(struct {
			Verdict  doctor.Verdict   `json:"verdict"`
			Findings []doctor.Finding `json:"findings"`
		}{verdict, found}); err != nil {
			return err
		}
	}
	if verdict != doctor.Problem {
		return nil
	}
	n := 0
	for _, f := range found {
		if f.Verdict == doctor.Problem {
			n++
		}
	}
	return fault.New(fault.Internal, "problems", "%d of %d findings are problems", n, len(found))
}

func printFinding(w io.Writer, f doctor.Finding, quiet bool) {
	if quiet && f.Verdict != doctor.Problem && f.Fixed == "" {
		return
	}
	fmt.Fprintf(w, "%-8s %-12s %s\n", f.Verdict, f.Check, f.Says)
	if f.Fixed != "" {
		fmt.Fprintf(w, "%-8s %-12s %s\n", "fixed", f.Check, f.Fixed)
	}
	if f.Do != "" && f.Verdict != doctor.OK {
		fmt.Fprintf(w, "%-21s try: %s\n", "", f.Do)
	}
}

// doctor is one for this machine; done gives back what it holds.
func (a *app) doctor(ctx context.Context) (d *doctor.Doctor, done func()) {
	d = &doctor.Doctor{
		Paths: a.paths, User: a.pathsUser(), Root: os.Geteuid() == 0,
		Now: time.Now, Synced: synced, Free: durable.Free,
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		Devices: filepath.Join(filepath.Dir(a.paths.Proc), "dev"),
	}
	d.Built, _ = time.Parse(time.RFC3339, version.Build().Date) //nolint:errcheck // unknown stays zero
	d.Host, _ = os.Hostname()                                   //nolint:errcheck // "" is not asked for
	d.Settings, d.Report, d.Wrong = config.Load(a.sources())
	settings := d.Settings
	if settings == nil {
		settings = config.Default()
	}
	d.Models = appliance.Store(a.paths, settings)
	a.doctorPrograms(d, settings)
	a.doctorServer(ctx, d)
	return d, doctorBus(ctx, d)
}

// doctorPrograms gives d the programs that are in use here.
func (a *app) doctorPrograms(d *doctor.Doctor, c *config.Config) {
	ffmpeg := cmp.Or(c.Decode.FFmpeg, a.paths.FFmpeg)
	decoder := decode.Decoder{Program: []string{a.paths.DecoderProgram(), "--ffmpeg", cmp.Or(ffmpeg, "ffmpeg")}}
	there := a.paths.DecoderProgram()
	if a.paths.Kind == paths.Installed {
		ffmpeg, decoder, there = a.paths.UnitFFmpeg, decode.Decoder{Socket: a.paths.DecodeSocket}, a.paths.DecodeSocket
	}
	if ffmpeg != "" {
		d.FFmpeg = func(ctx context.Context, args ...string) (string, error) {
			out, err := exec.CommandContext(ctx, ffmpeg, args...).Output()
			return string(out), err
		}
	}
	if _, err := os.Stat(there); err == nil {
		d.Decoder = func(ctx context.Context) (string, error) { return decoderLevel(ctx, decoder) }
	}
}

// decoderLevel has a moment of silence decoded, which the decoder, other than
// a file of 16 kHz, has to give to ffmpeg.
func decoderLevel(ctx context.Context, decoder decode.Decoder) (string, error) {
	f, err := os.CreateTemp("", ".whisper-appliance-doctor-*")
	if err != nil {
		return "", err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if _, err := f.Write(silence()); err != nil {
		return "", err
	}
	// The decoder runs as somebody else.
	if err := f.Chmod(0o444); err != nil {
		return "", err
	}
	info, err := decoder.Decode(ctx, f, decode.Limits{Timeout: 10 * time.Second}, io.Discard)
	return info.Sandbox.Level(), err
}

// silence is a WAV file of 0.1 s, 8 kHz, 16 bits, mono.
func silence() []byte {
	const rate, samples = 8000, 800
	var b bytes.Buffer
	b.WriteString("RIFF")
	binary.Write(&b, binary.LittleEndian, uint32(36+2*samples)) //nolint:errcheck // a buffer takes all
	b.WriteString("WAVEfmt ")
	for _, field := range []any{uint32(16), uint16(1), uint16(1), uint32(rate), uint32(2 * rate), uint16(2), uint16(16)} {
		binary.Write(&b, binary.LittleEndian, field) //nolint:errcheck // a buffer takes all
	}
	b.WriteString("data")
	binary.Write(&b, binary.LittleEndian, uint32(2*samples)) //nolint:errcheck // a buffer takes all
	b.Write(make([]byte, 2*samples))
	return b.Bytes()
}

// doctorServer gives d the server of this machine, where one can be reached.
func (a *app) doctorServer(ctx context.Context, d *doctor.Doctor) {
	client, ok, err := a.localServer(ctx)
	switch {
	case err != nil:
		d.Health = func(context.Context) (doctor.Health, error) { return doctor.Health{}, err }
	case ok:
		d.Health = func(ctx context.Context) (h doctor.Health, err error) {
			answer, err := client.Health(ctx)
			if err == nil {
				err = json.Unmarshal(answer, &h)
			}
			return h, err
		}
	}
}

// doctorBus gives d systemd, where it answers.
func doctorBus(ctx context.Context, d *doctor.Doctor) (done func()) {
	bus, err := systemd.Dial(ctx)
	if err != nil {
		d.Bus = err
		return func() {}
	}
	d.Units = bus
	if d.Root {
		d.Mender = bus
	}
	return func() { bus.Close() } //nolint:errcheck // nothing more is asked of it
}

// unsynchronised is the kernel's state of a clock that nothing keeps right.
const unsynchronised = 5 // TIME_ERROR

func synced() (bool, error) {
	state, err := syscall.Adjtimex(&syscall.Timex{})
	return state != unsynchronised, err
}
