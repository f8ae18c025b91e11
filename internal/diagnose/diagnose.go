// Package diagnose writes the bundle that goes with a bug report: one .tar.gz
// with what is known of the appliance and its machine, and without what is
// nobody else's business. Audio, transcripts, keys, passwords, addresses and
// the machine's name are not in it, and a README says so.
//
// It trusts its parts to end when they are told to, and nothing of what they
// hold: every byte goes through Scrub. It writes to the writer it is given and
// nowhere else. A part that fails is noted in its place; the rest is written.
package diagnose

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// Limits of a bundle: in all, for one part, and for what a part holds.
const (
	Limit     = 20 * time.Second
	partLimit = 10 * time.Second
	partBytes = 8 << 20
)

// Part is one file of the bundle.
type Part struct {
	Name string // of the file: "units.json"
	Does string // what is in it, for the README
	Make func(ctx context.Context) ([]byte, error)
}

// Entry is how a part came out.
type Entry struct {
	Name  string `json:"name"`
	Does  string `json:"does"`
	Bytes int    `json:"bytes"`
	Error string `json:"error,omitempty"` // why there is less than there should be
}

// Bundle is what to write.
type Bundle struct {
	Host  string // this machine's name, which is taken out everywhere; "" = unknown
	Now   time.Time
	Parts []Part
}

// Write makes the parts one after the other and writes the bundle to w.
func (b Bundle) Write(ctx context.Context, w io.Writer) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	scrub := newScrubber(b.Host)
	packed := gzip.NewWriter(w)
	archive := tar.NewWriter(packed)
	var entries []Entry
	for _, p := range b.Parts {
		data, entry := b.part(ctx, p, scrub)
		entries = append(entries, entry)
		if err := b.add(archive, p.Name, data); err != nil {
			return entries, fmt.Errorf("write %s: %w", p.Name, err)
		}
	}
	if err := b.add(archive, "README.txt", []byte(readme(entries))); err != nil {
		return entries, fmt.Errorf("write README.txt: %w", err)
	}
	if err := archive.Close(); err != nil {
		return entries, err
	}
	return entries, packed.Close()
}

// part makes one, scrubbed and within its limits.
func (b Bundle) part(ctx context.Context, p Part, scrub *scrubber) ([]byte, Entry) {
	ctx, cancel := context.WithTimeout(ctx, partLimit)
	defer cancel()
	entry := Entry{Name: p.Name, Does: p.Does}
	data, err := p.Make(ctx)
	if err != nil {
		entry.Error = scrub.text(err.Error())
	}
	if len(data) > partBytes {
		data = data[:partBytes]
		entry.Error = strings.TrimPrefix(entry.Error+fmt.Sprintf("; cut off after %d bytes", partBytes), "; ")
	}
	if data = []byte(scrub.text(string(data))); len(data) == 0 && entry.Error != "" {
		data = []byte("not available: " + entry.Error + "\n")
	}
	entry.Bytes = len(data)
	return data, entry
}

func (b Bundle) add(archive *tar.Writer, name string, data []byte) error {
	header := &tar.Header{Name: "whisper-appliance-diagnose/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: b.Now, Format: tar.FormatPAX}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(data)
	return err
}

const leftOut = `
What was left out: recordings, their names and what is said in them; API keys
and their hashes; private keys and certificates; passwords and query strings of
addresses; values of environment variables in drop-ins; the names of files that
wait to be worked on. Addresses of machines and network cards stand as ADDRESS and this machine's name as
HOST. Look through it before you send it on: nobody knows better than you what
else should not be told.
`

func readme(entries []Entry) string {
	var b strings.Builder
	b.WriteString("What is known of a whisper appliance, for a report of something that goes wrong.\n\n")
	for _, e := range entries {
		fmt.Fprintf(&b, "%-18s %s\n", e.Name, e.Does)
		if e.Error != "" {
			fmt.Fprintf(&b, "%-18s   not whole: %s\n", "", e.Error)
		}
	}
	b.WriteString(leftOut)
	return b.String()
}
