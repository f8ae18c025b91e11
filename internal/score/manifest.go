package score

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// Clip is one recording with what is said in it.
type Clip struct {
	File      string // name beside the manifest
	Path      string // where it is
	Language  string // Whisper's code
	Reference string // as written, not normalised
	Excluded  string // why it does not count; "" where it does
}

// Manifest reads a table of clips: tab separated under a header that names at
// least file, language and reference, in any order. Clips lie beside the
// table. It does not look whether they are there. An error is of the file
// system, or a fault of kind BadInput that names the line.
func Manifest(path string) ([]Clip, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan()
	columns, err := columnsOf(strings.Split(lines.Text(), "\t"))
	if err != nil {
		return nil, badManifest(path, 1, err)
	}
	var clips []Clip
	for line := 2; lines.Scan(); line++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		clip, err := clipOf(strings.Split(lines.Text(), "\t"), columns)
		if err != nil {
			return nil, badManifest(path, line, err)
		}
		clip.Path = filepath.Join(filepath.Dir(path), clip.File)
		clips = append(clips, clip)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", filepath.Base(path), err)
	}
	return clips, nil
}

func badManifest(path string, line int, err error) error {
	return fault.New(fault.BadInput, "bad_manifest", "%s, line %d", filepath.Base(path), line).
		Because(err).
		Try("the table needs the columns file, language and reference, with a tab between them")
}

// columnsOf is where file, language and reference stand.
func columnsOf(header []string) (columns [3]int, err error) {
	for i, name := range []string{"file", "language", "reference"} {
		columns[i] = slices.Index(header, name)
		if columns[i] < 0 {
			return columns, fmt.Errorf("no column %q", name)
		}
	}
	return columns, nil
}

func clipOf(fields []string, columns [3]int) (Clip, error) {
	if len(fields) <= slices.Max(columns[:]) {
		return Clip{}, fmt.Errorf("%d columns are too few", len(fields))
	}
	clip := Clip{File: fields[columns[0]], Language: fields[columns[1]], Reference: strings.TrimSpace(fields[columns[2]])}
	switch {
	case !filepath.IsLocal(clip.File):
		return Clip{}, fmt.Errorf("file %q is not beside the table", clip.File)
	case transcript.LanguageName(clip.Language) == "":
		return Clip{}, fmt.Errorf("language %q is not one that Whisper knows", clip.Language)
	case clip.Reference == "":
		return Clip{}, errors.New("the reference is empty")
	}
	clip.Excluded = exclusion(clip.Reference)
	return clip, nil
}

// exclusion is why a reference cannot be scored. "LEFT: … RIGHT: …" is two
// people at the same time, one in each channel. A recogniser of one voice hears
// the mix and may follow either of them; no order of the two texts is the right
// one, so counting the clip would measure chance.
func exclusion(reference string) string {
	if strings.HasPrefix(reference, "LEFT:") && strings.Contains(reference, "RIGHT:") {
		return "two voices at once, one in each channel: no single text is right"
	}
	return ""
}
