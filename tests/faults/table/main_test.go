package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/tests/faults/matrix"
)

// noted is what tests note that find everything as the table has it.
func noted() string {
	var b strings.Builder
	for step, cells := range matrix.Wants() {
		for column, want := range cells {
			if want[0] != matrix.None {
				b.WriteString("cell\t" + step + "\t" + column + "\t" + want[0] + "\n")
			}
		}
	}
	return b.String() + "cuts\tupdate\t3\t4\t5\nextra\tno inodes\nsoak\t3\tnone failed\n"
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, notes string
		wrong       string // in the error; "" = none
		says        []string
	}{
		{"all is well", noted(), "", []string{"power cuts, update: 3, of 4 calls", "no inodes", "soak 3 none failed"}},
		{"the last word counts", "cell\t3 plan\tSIGKILL\tB\n" + noted(), "", nil},
		{"one differs", noted() + "cell\t8 publish\tcorrupt\tO\n", `8 publish, corrupt: "O", want OQ`, []string{"!O"}},
		{"one is missing", strings.Replace(noted(), "14 trial\tdegrades", "14 trial\tother", 1), "14 trial, degrades later", nil},
		{"no cuts", strings.Replace(noted(), "cuts\t", "other\t", 1), "no power cuts", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			file := filepath.Join(root, "notes")
			if err := os.MkdirAll(filepath.Join(root, "docs", "results"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(c.notes), 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err := run([]string{"-commit", "c0ffee", "-save", root, file}, &out)
			if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("error %v, want %q", err, c.wrong)
			}
			saved, readErr := os.ReadFile(filepath.Join(root, "docs", "results", "faults.txt"))
			if readErr != nil || string(saved) != out.String() {
				t.Errorf("kept is another text than printed: %v", readErr)
			}
			for _, words := range append(c.says, "commit", "c0ffee", "rollback: start") {
				if !strings.Contains(out.String(), words) {
					t.Errorf("%q is missing in\n%s", words, out.String())
				}
			}
		})
	}
	if err := run(nil, &bytes.Buffer{}); err == nil {
		t.Error("it needs no notes")
	}
}
