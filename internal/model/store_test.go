package model

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func TestListSaysWhatIsThere(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	write(t, filepath.Join(s.Dir, "ggml-silero-v6.2.0.bin"), vadFile())
	write(t, filepath.Join(s.Dir, "ggml-tiny.bin"), []byte("lmgg and not more"))
	write(t, filepath.Join(s.Dir, "ggml-base.bin.partial"), make([]byte, 12345))
	write(t, filepath.Join(s.Dir, "ggml-mine.en.bin"), speechFile(t, smallShape()))
	write(t, filepath.Join(s.Dir, "ggml-broken.bin"), []byte("<html>"))
	write(t, filepath.Join(s.Dir, "notes.txt"), []byte("not a model"))
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Listed{
		"silero-v6.2.0": {Known: true, State: Installed, OnDisk: 885_098},
		"tiny":          {Known: true, State: Damaged, OnDisk: 17},
		"base":          {Known: true, State: Partial, OnDisk: 12345},
		"small":         {Known: true, State: Absent},
		"mine.en":       {State: Installed, OnDisk: int64(len(speechFile(t, smallShape())))},
		"broken":        {State: Damaged, OnDisk: 6},
	} {
		i := slices.IndexFunc(list, func(l Listed) bool { return l.Name == name })
		if i < 0 {
			t.Errorf("%s is not listed", name)
			continue
		}
		got := list[i]
		if got.Known != want.Known || got.State != want.State || got.OnDisk != want.OnDisk {
			t.Errorf("%s: %+v", name, got)
		}
		if (got.State == Damaged) != (got.Problem != "") || (got.State == Installed) != (got.Info != nil) {
			t.Errorf("%s: problem %q, info %v", name, got.Problem, got.Info)
		}
	}
	if want := len(Catalogue()) + 2; len(list) != want {
		t.Errorf("%d are listed and it has to be %d", len(list), want)
	}
}

func TestEmptyStore(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "absent")}
	list, err := s.List()
	if err != nil || len(list) != len(Catalogue()) {
		t.Errorf("%d, %v", len(list), err)
	}
	if _, ok := s.ResolveVAD(); ok {
		t.Error("a VAD model where there is none")
	}
	wantFault(t, s.Remove("tiny", ""), fault.NotFound, "model_not_installed")
}

func TestResolve(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	write(t, filepath.Join(s.Dir, "ggml-large-v3.bin"), []byte("x"))
	write(t, filepath.Join(s.Dir, "ggml-mine.bin"), []byte("x"))
	write(t, filepath.Join(s.Dir, "ggml-silero-v6.2.0.bin"), vadFile())
	for given, want := range map[string]string{
		"large": "ggml-large-v3.bin", "ggml-large-v3.bin": "ggml-large-v3.bin", "mine": "ggml-mine.bin",
	} {
		if got, err := s.Resolve(given); err != nil || got != want {
			t.Errorf("Resolve(%q) = %q, %v", given, got, err)
		}
	}
	_, err := s.Resolve("turbo")
	f := wantFault(t, err, fault.NotFound, "model_not_installed")
	if f.Hint != "`whisper-appliance models pull large-v3-turbo`" || f.Field != "model" {
		t.Errorf("%+v", f)
	}
	for _, name := range []string{"nonsense", "../mine", "", "a/b", strings.Repeat("a", 200)} {
		_, err = s.Resolve(name)
		wantFault(t, err, fault.NotFound, "unknown_model")
	}
	if e, err := Lookup("silero"); err != nil || e.Kind != VAD {
		t.Errorf("silero is %+v, %v", e, err)
	}
	_, err = s.Resolve("silero-v6.2.0")
	wantFault(t, err, fault.BadInput, "wrong_model_kind")
	if file, ok := s.ResolveVAD(); !ok || file != "ggml-silero-v6.2.0.bin" {
		t.Errorf("%s, %v", file, ok)
	}
	_, err = s.Path("../escape")
	wantFault(t, err, fault.BadInput, "bad_model_name")
}

// TestBundledDetector: the release's own serves where the directory has none, or
// only the beginning of one.
func TestBundledDetector(t *testing.T) {
	name := "ggml-silero-v6.2.0.bin"
	for _, c := range []struct {
		what         string
		own, bundled []byte
		want         bool
	}{
		{"neither", nil, nil, false},
		{"the release's", nil, vadFile(), true},
		{"one's own", vadFile(), nil, true},
		{"a broken one of one's own", []byte("x"), vadFile(), true},
		{"both broken", []byte("x"), []byte("y"), false},
	} {
		s := &Store{Dir: t.TempDir(), Bundled: t.TempDir()}
		for dir, data := range map[string][]byte{s.Dir: c.own, s.Bundled: c.bundled} {
			if data != nil {
				write(t, filepath.Join(dir, name), data)
			}
		}
		if file, ok := s.ResolveVAD(); ok != c.want || ok && file != name {
			t.Errorf("%s: %q, %t", c.what, file, ok)
		}
	}
}

func TestRemove(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	for _, suffix := range []string{"", ".json", ".partial", ".partial.json", ".import"} {
		write(t, filepath.Join(s.Dir, "ggml-tiny.bin"+suffix), []byte("x"))
	}
	write(t, filepath.Join(s.Dir, "ggml-base.bin.partial"), []byte("x"))
	write(t, filepath.Join(s.Dir, "ggml-tiny.en.bin"), []byte("x"))
	for _, inUse := range []string{"tiny", "ggml-tiny.bin"} {
		wantFault(t, s.Remove("tiny", inUse), fault.Conflict, "model_in_use")
	}
	for _, name := range []string{"tiny", "base"} {
		if err := s.Remove(name, "tiny.en"); err != nil {
			t.Error(err)
		}
	}
	if got := filesIn(t, s.Dir); !slices.Equal(got, []string{"ggml-tiny.en.bin"}) {
		t.Errorf("the directory holds %v", got)
	}
	wantFault(t, s.Remove("tiny", ""), fault.NotFound, "model_not_installed")
	wantFault(t, s.Remove("tiniy", ""), fault.NotFound, "unknown_model")
	wantFault(t, s.Remove("../x", ""), fault.BadInput, "bad_model_name")
}

func TestLockIsExclusiveAndLeavesNothing(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "models")}
	release, err := s.lock("tiny")
	if err != nil {
		t.Fatal(err)
	}
	other := &Store{Dir: s.Dir}
	_, err = other.lock("tiny")
	wantFault(t, err, fault.Conflict, "model_busy")
	releaseBase, err := other.lock("base")
	if err != nil {
		t.Error("another model is locked too: ", err)
	}
	releaseBase()
	write(t, filepath.Join(s.Dir, "ggml-tiny.bin"), []byte("x"))
	wantFault(t, s.Remove("tiny", ""), fault.Conflict, "model_busy")
	release()
	if err := s.Remove("tiny", ""); err != nil {
		t.Error(err)
	}
	if left := filesIn(t, s.Dir); len(left) > 0 {
		t.Errorf("%v were left", left)
	}
}

func TestVerify(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	ctx := context.Background()
	path := write(t, filepath.Join(s.Dir, "ggml-mine.bin"), vadFile())
	r, err := s.Verify(ctx, "mine", nil)
	if err != nil || r.Against != "" || r.SizeChecked || r.SHA256 != sum(vadFile()) {
		t.Errorf("%+v, %v", r, err)
	}
	if want := "structure (15 tensors) checked; no digest is known to compare its content with"; r.Summary() != want {
		t.Errorf("%q", r.Summary())
	}
	if err := (record{SHA256: sum(vadFile()), Own: true}).write(path); err != nil {
		t.Fatal(err)
	}
	r, err = s.Verify(ctx, "mine", nil)
	if err != nil || r.Against != againstRecord {
		t.Errorf("%+v, %v", r, err)
	}
	spoilt := vadFile()
	spoilt[500] ^= 1 // inside a weight: only the digest can tell
	write(t, path, spoilt)
	_, err = s.Verify(ctx, "mine", nil)
	wantFault(t, err, fault.BadInput, "digest_differs")
	write(t, filepath.Join(s.Dir, "ggml-silero-v6.2.0.bin"), vadFile())
	_, err = s.Verify(ctx, "silero-v6.2.0", nil)
	wantFault(t, err, fault.BadInput, "digest_differs")
	write(t, filepath.Join(s.Dir, "ggml-tiny.bin"), vadFile())
	_, err = s.Verify(ctx, "tiny", nil)
	wantFault(t, err, fault.BadInput, "bad_model_file")
	_, err = s.Verify(ctx, "base", nil)
	wantFault(t, err, fault.NotFound, "model_not_installed")
	_, err = s.Verify(ctx, "bse", nil)
	wantFault(t, err, fault.NotFound, "unknown_model")
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Verify(stopped, "mine", nil)
	wantFault(t, err, fault.Canceled, "canceled")
}

func TestVerifyRealVAD(t *testing.T) {
	data, err := os.ReadFile(shared(t, "models/ggml-silero-v6.2.0.bin"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{Dir: t.TempDir()}
	write(t, filepath.Join(s.Dir, "ggml-silero-v6.2.0.bin"), data)
	var phases []Phase
	r, err := s.Verify(context.Background(), "silero-v6.2.0", func(p Progress) { phases = append(phases, p.Phase) })
	if err != nil || r.Against != againstCatalogue || !r.SizeChecked {
		t.Errorf("%+v, %v", r, err)
	}
	if want := "size, structure (15 tensors), content checked, the content against the catalogue's digest"; r.Summary() != want {
		t.Errorf("%q", r.Summary())
	}
	if phases[0] != Verifying || phases[len(phases)-1] != Done {
		t.Errorf("%v", phases)
	}
}
