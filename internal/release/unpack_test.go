package release

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

func TestUnpack(t *testing.T) {
	dir, m := sealed(t)
	defer syscall.Umask(syscall.Umask(0o077))
	to := t.TempDir()
	must(t, os.Chmod(to, 0o755))
	var told []int64
	got, err := Unpack(t.Context(), bytes.NewReader(pack(t, dir)), to, limits(m), func(done int64) { told = append(told, done) })
	must(t, err)
	if !got.Same(m) {
		t.Errorf("manifest %+v", got)
	}
	if diffs, back, err := slot.Verify(t.Context(), to, slot.Check{}); err != nil || len(diffs) > 0 || !back.Same(m) {
		t.Errorf("%v, %v", diffs, err)
	}
	if len(told) == 0 || told[len(told)-1] != m.Size() {
		t.Errorf("the progress was %v, want %d at last", told, m.Size())
	}
}

// TestUnpackTakesDirectories: other packers name them.
func TestUnpackTakesDirectories(t *testing.T) {
	dir, m := sealed(t)
	list := members(t, pack(t, dir))
	for _, name := range []string{"bin", "lib/", "lib/engine/"} {
		list = append(list, member{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o700}})
	}
	to := t.TempDir()
	must(t, os.Chmod(to, 0o755))
	_, err := Unpack(t.Context(), bytes.NewReader(artefactOf(t, list)), to, limits(m), nil)
	must(t, err)
	if diffs, _, err := slot.Verify(t.Context(), to, slot.Check{}); err != nil || len(diffs) > 0 {
		t.Errorf("%v, %v", diffs, err)
	}
}

// tampering is an archive that was changed on its way.
type tampering struct {
	what, code string
	change     func([]member) []member
}

// with puts more members behind those that belong there.
func with(more ...member) func([]member) []member {
	return func(list []member) []member { return append(list, more...) }
}

// early puts them right behind the manifest.
func early(more ...member) func([]member) []member {
	return func(list []member) []member { return append(append(list[:1:1], more...), list[1:]...) }
}

// on changes the member at i.
func on(i int, change func(*member)) func([]member) []member {
	return func(list []member) []member { change(&list[i]); return list }
}

func special(kind byte, name, link string) member {
	return member{Header: tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: 0o644}}
}

func tamperings() []tampering {
	return []tampering{
		{"dots", "path_escape", early(file("../outside/x", "x", 0o644))},
		{"dots inside", "path_escape", early(file("bin/../../outside/x", "x", 0o644))},
		{"absolute", "path_escape", early(file("/outside/x", "x", 0o644))},
		{"absolute directory", "path_escape", early(special(tar.TypeDir, "/outside/", ""))},
		{"not plain", "path_escape", early(file("./VERSION", "1.4.0\n", 0o644))},
		{"itself", "path_escape", early(special(tar.TypeDir, "./", ""))},
		{"symlink", "link", early(special(tar.TypeSymlink, "VERSION", "../outside/x"))},
		{"through a symlink", "link", early(special(tar.TypeSymlink, "lib", "../outside"), file("lib/x", "x", 0o644))},
		{"symlink in place of a directory", "link", with(special(tar.TypeSymlink, "bin", "../outside"))},
		{"hard link", "link", early(special(tar.TypeLink, "x", "VERSION"))},
		{"character device", "special_file", early(special(tar.TypeChar, "null", ""))},
		{"block device", "special_file", early(special(tar.TypeBlock, "sda", ""))},
		{"pipe", "special_file", early(special(tar.TypeFifo, "pipe", ""))},
		{"contiguous file", "special_file", early(special(tar.TypeCont, "x", ""))},
		{"global header", "special_file", early(member{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"path": "x"}}})},
		{"attributes", "bad_archive", on(1, func(m *member) {
			m.PAXRecords, m.Format = map[string]string{"SCHILY.xattr.security.capability": "x"}, tar.FormatPAX
		})},
		{"setuid", "setuid", on(1, func(m *member) { m.Mode = 0o4755 })},
		{"setgid directory", "setuid", with(member{Header: tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o2755}})},
		{"file twice", "duplicate", func(list []member) []member { return append(list, list[1]) }},
		{"manifest twice", "duplicate", func(list []member) []member { return append(list, list[0]) }},
		{"directory twice", "duplicate", with(special(tar.TypeDir, "bin/", ""), special(tar.TypeDir, "bin/", ""))},
		{"extra file", "damaged_release", with(file("bin/extra", "x", 0o755))},
		{"extra directory", "damaged_release", with(special(tar.TypeDir, "extra/", ""))},
		{"directory for a file", "damaged_release", early(special(tar.TypeDir, "VERSION/", ""))},
		{"file for a directory", "damaged_release", early(file("bin", "x", 0o644))},
		{"missing file", "damaged_release", func(list []member) []member { return append(list[:1:1], list[2:]...) }},
		{"missing last file", "damaged_release", func(list []member) []member { return list[:len(list)-1] }},
		{"changed byte", "damaged_release", on(1, func(m *member) { m.data = "2" + m.data[1:] })},
		{"longer file", "damaged_release", on(1, func(m *member) { m.data += "x" })},
		{"shorter file", "damaged_release", on(1, func(m *member) { m.data = m.data[1:] })},
		{"other mode", "damaged_release", on(1, func(m *member) { m.Mode = 0o755 })},
		{"no manifest", "bad_archive", func(list []member) []member { return list[1:] }},
		{"manifest not first", "bad_archive", func(list []member) []member { return append(list[1:2:2], list...) }},
		{"executable manifest", "bad_archive", on(0, func(m *member) { m.Mode = 0o755 })},
		{"manifest is a directory", "bad_archive", on(0, func(m *member) { *m = special(tar.TypeDir, slot.ManifestName, "") })},
		{"manifest in other words", "bad_archive", on(0, func(m *member) { m.data = " " + m.data })},
		{"file and directory", "bad_archive", on(0, func(m *member) {
			m.data = strings.Replace(m.data, `"path": "lib/engine/ld.so"`, `"path": "bin"`, 1)
			head, rest, _ := strings.Cut(m.data, " \"files\": [\n")
			server, rest, _ := strings.Cut(rest, "  {\n   \"path\": \"bin\"")
			one, rest, _ := strings.Cut(rest, "},\n")
			version, server, _ := strings.Cut(server, "},\n")
			m.data = head + " \"files\": [\n" + version + "},\n  {\n   \"path\": \"bin\"" + one + "},\n" + server + rest
		})},
		{"huge manifest", "bomb", on(0, func(m *member) { m.data = strings.Repeat(" ", maxManifest+1) })},
		{"nothing", "bad_archive", func([]member) []member { return nil }},
	}
}

// refused unpacks what is not to be unpacked, beside a directory that nothing
// may get into.
func refused(t *testing.T, artefact io.Reader, l Limits, code string) {
	t.Helper()
	home := t.TempDir()
	to, outside := filepath.Join(home, "to"), filepath.Join(home, "outside")
	must(t, errors.Join(os.Mkdir(to, 0o755), os.Mkdir(outside, 0o755)))
	_, err := Unpack(t.Context(), artefact, to, l, nil)
	wantCode(t, err, code)
	if fault.KindOf(err) != fault.BadInput {
		t.Errorf("kind %v", fault.KindOf(err))
	}
	for dir, want := range map[string]int{to: 0, outside: 0, home: 2} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != want {
			t.Errorf("%s holds %v, %v", dir, entries, err)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	dir, m := sealed(t)
	artefact := pack(t, dir)
	for _, test := range tamperings() {
		t.Run(test.what, func(t *testing.T) {
			changed := artefactOf(t, test.change(members(t, artefact)))
			refused(t, bytes.NewReader(changed), Limits{m.Size() + 1000, len(m.Files) + 10}, test.code)
		})
	}
}

func TestUnpackRefusesSparse(t *testing.T) {
	dir, m := sealed(t)
	list := members(t, pack(t, dir))
	// The writer will make none: a plain member becomes one afterwards.
	raw := archive(t, append(list[:1:1], file("VERSION", "1.4.0\n", 0o644)))
	at := bytes.LastIndex(raw, []byte("VERSION\x00"))
	head := raw[at : at+512]
	head[156] = tar.TypeGNUSparse
	copy(head[257:], "ustar  \x00")
	copy(head[483:], "00000000006\x00") // the real size
	checksum(head)
	refused(t, bytes.NewReader(compressed(t, raw)), limits(m), "special_file")
}

// checksum writes the sum that a header has to have.
func checksum(head []byte) {
	copy(head[148:156], "        ")
	var sum int
	for _, b := range head {
		sum += int(b)
	}
	for i := 5; i >= 0; i-- {
		head[148+i] = byte('0' + sum&7)
		sum >>= 3
	}
	head[154], head[155] = 0, ' '
}

func TestUnpackHoldsLimits(t *testing.T) {
	dir, m := sealed(t)
	artefact := pack(t, dir)
	for what, l := range map[string]Limits{
		"bytes":    {m.Size() - 1, len(m.Files)},
		"files":    {m.Size(), len(m.Files) - 1},
		"none":     {},
		"negative": {-1 << 62, -1 << 30},
	} {
		t.Run(what, func(t *testing.T) { refused(t, bytes.NewReader(artefact), l, "bomb") })
	}
}

// TestNoLimits: whatever a caller allows, a manifest has limits of its own.
func TestNoLimits(t *testing.T) {
	dir, _ := sealed(t)
	if _, err := Unpack(t.Context(), bytes.NewReader(pack(t, dir)), t.TempDir(), Limits{math.MaxInt64, math.MaxInt}, nil); err != nil {
		t.Error(err)
	}
}

// TestBombs: a few bytes that become very many, in each place that could hold them.
func TestBombs(t *testing.T) {
	dir, m := sealed(t)
	list := members(t, pack(t, dir))
	zeros := strings.Repeat("\x00", 64<<20)
	whole := archive(t, list)
	for what, test := range map[string]struct {
		code     string
		artefact []byte
	}{
		"file":        {"damaged_release", artefactOf(t, append(list[:1:1], file("VERSION", zeros, 0o644)))},
		"manifest":    {"bomb", artefactOf(t, []member{file(slot.ManifestName, zeros, 0o644)})},
		"first":       {"bad_archive", artefactOf(t, []member{file("zeros", zeros, 0o644)})},
		"behind":      {"bad_archive", compressed(t, append(bytes.Clone(whole), zeros...))},
		"many frames": {"bad_archive", append(compressed(t, whole), compressed(t, []byte(zeros))...)},
		"long name":   {"bomb", compressed(t, longNames(64))},
	} {
		t.Run(what, func(t *testing.T) {
			if len(test.artefact) > 1<<20 {
				t.Fatalf("%d bytes are no bomb", len(test.artefact))
			}
			refused(t, bytes.NewReader(test.artefact), limits(m), test.code)
		})
	}
}

// longNames is an archive that has nothing but headers which lengthen the next one.
func longNames(n int) []byte {
	head := make([]byte, 512)
	copy(head, "././@LongLink")
	copy(head[100:], "0000644\x000000000\x000000000\x00")
	copy(head[124:], "00003777777\x0000000000000\x00") // 1 MiB less one byte
	head[156] = tar.TypeGNULongName
	copy(head[257:], "ustar  \x00")
	checksum(head)
	body := append(head, bytes.Repeat([]byte("a"), 1<<20)...)
	return bytes.Repeat(body, n)
}

func TestUnpackRefusesFrames(t *testing.T) {
	dir, m := sealed(t)
	artefact := pack(t, dir)
	var h zstd.Header
	must(t, h.Decode(artefact))
	hungry := bytes.Clone(artefact)
	hungry[5] = 0x90 // the window's size in the header: 256 MiB
	empty := compressed(t, nil, zstd.WithZeroFrames(true))
	skip := []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}
	changed := bytes.Clone(artefact)
	changed[len(changed)-1] ^= 1 // of the checksum
	huge := append(bytes.Clone(artefact[:h.HeaderSize]), 0xff, 0xff, 0xff)
	for what, test := range map[string]struct {
		code     string
		artefact []byte
	}{
		"no bytes":          {"bad_archive", nil},
		"no archive":        {"bad_archive", []byte(strings.Repeat("hello ", 100))},
		"uncompressed":      {"bad_archive", archive(t, members(t, artefact))},
		"window":            {"bomb", hungry},
		"single segment":    {"bomb", []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40, 1, 0, 0}},
		"trailing byte":     {"bad_archive", append(bytes.Clone(artefact), 0)},
		"trailing frame":    {"bad_archive", append(bytes.Clone(artefact), artefact...)},
		"empty frame":       {"bad_archive", append(bytes.Clone(artefact), empty...)},
		"skipped at end":    {"bad_archive", append(bytes.Clone(artefact), skip...)},
		"skipped at start":  {"bad_archive", append(skip, artefact...)},
		"trailing zeros":    {"bad_archive", compressed(t, append(archive(t, members(t, artefact)), make([]byte, 512)...))},
		"trailing archive":  {"bad_archive", compressed(t, bytes.Repeat(archive(t, members(t, artefact)), 2))},
		"checksum":          {"bad_archive", changed},
		"block of no kind":  {"bad_archive", huge},
		"half a header":     {"bad_archive", artefact[:3]},
		"header alone":      {"bad_archive", artefact[:h.HeaderSize]},
		"without a tail":    {"bad_archive", artefact[:len(artefact)-4]},
		"without two bytes": {"bad_archive", artefact[:len(artefact)-2]},
	} {
		t.Run(what, func(t *testing.T) { refused(t, bytes.NewReader(test.artefact), limits(m), test.code) })
	}
}

// TestUnpackRefusesHalves cuts an artefact short in many places.
func TestUnpackRefusesHalves(t *testing.T) {
	dir, m := sealed(t)
	artefact := pack(t, dir)
	for n := 0; n < len(artefact); n += 1 + len(artefact)/50 {
		refused(t, bytes.NewReader(artefact[:n]), limits(m), "bad_archive")
	}
}

// TestUnpackFindsEveryByte changes one byte in many places.
func TestUnpackFindsEveryByte(t *testing.T) {
	dir, m := sealed(t)
	artefact := pack(t, dir)
	want := archive(t, members(t, artefact))
	for n := 0; n < len(artefact); n += 1 + len(artefact)/100 {
		changed := bytes.Clone(artefact)
		changed[n] ^= 0x10
		to := t.TempDir()
		_, err := Unpack(t.Context(), bytes.NewReader(changed), to, limits(m), nil)
		if err == nil && bytes.Equal(want, archive(t, members(t, changed))) {
			continue // a byte that says nothing, as of the window's size
		}
		if fault.KindOf(err) != fault.BadInput {
			t.Errorf("byte %d: %v", n, err)
		}
	}
}

func TestUnpackWantsAnEmptyDirectory(t *testing.T) {
	dir, m := sealed(t)
	to := t.TempDir()
	write(t, filepath.Join(to, "precious"), "x", 0o600)
	_, err := Unpack(t.Context(), bytes.NewReader(pack(t, dir)), to, limits(m), nil)
	wantCode(t, err, "not_empty")
	if _, err := os.Stat(filepath.Join(to, "precious")); err != nil {
		t.Error(err)
	}
	if _, err := Unpack(t.Context(), bytes.NewReader(pack(t, dir)), filepath.Join(to, "none"), limits(m), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// TestTheMachineIsToBlame: a release is not refused for what the machine does.
func TestTheMachineIsToBlame(t *testing.T) {
	dir, m := sealed(t)
	artefact := pack(t, dir)
	to := t.TempDir()
	failing := io.MultiReader(bytes.NewReader(artefact[:1000]), readFunc(func([]byte) (int, error) { return 0, syscall.EIO }))
	if _, err := Unpack(t.Context(), failing, to, limits(m), nil); !errors.Is(err, syscall.EIO) || fault.KindOf(err) != fault.Internal {
		t.Errorf("a failing disk: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Unpack(ctx, bytes.NewReader(artefact), to, limits(m), func(int64) { cancel() })
	if !errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Internal {
		t.Errorf("cancelled: %v", err)
	}
	if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
		t.Errorf("%v, %v are left", left, err)
	}
}

func TestUnpackToAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file system needs root to mount")
	}
	to := t.TempDir()
	if err := unix.Mount("none", to, "tmpfs", 0, "mode=755,size=128k"); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(to, unix.MNT_DETACH)) })
	dir, m := sealed(t)
	_, err := Unpack(t.Context(), bytes.NewReader(pack(t, dir)), to, limits(m), nil)
	wantCode(t, err, "disk_full")
	if left, readErr := os.ReadDir(to); fault.KindOf(err) != fault.NoSpace || readErr != nil || len(left) > 0 {
		t.Errorf("%v; %v, %v are left", err, left, readErr)
	}
}

// FuzzUnpack: whatever comes, nothing gets out of the directory, an error leaves
// it empty, and what is taken is what its manifest says.
func FuzzUnpack(f *testing.F) {
	dir, m := sealedOf(f, 2000)
	artefact := pack(f, dir)
	f.Add(artefact, true)
	f.Add(artefact[:len(artefact)/2], true)
	for _, test := range tamperings() {
		if seed := archive(f, test.change(members(f, artefact))); len(seed) < 1<<20 {
			f.Add(seed, false)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, packed bool) {
		if !packed {
			data = compressed(t, data)
		}
		home := t.TempDir()
		to := filepath.Join(home, "to")
		must(t, os.Mkdir(to, 0o755))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := Unpack(ctx, bytes.NewReader(data), to, Limits{m.Size() + 1000, 20}, nil)
		if beside, readErr := os.ReadDir(home); readErr != nil || len(beside) != 1 {
			t.Fatalf("%v, %v", beside, readErr)
		}
		if err != nil {
			if left, readErr := os.ReadDir(to); readErr != nil || len(left) > 0 || ctx.Err() != nil {
				t.Fatalf("%v; %v are left, %v", err, left, readErr)
			}
			return
		}
		if diffs, _, err := slot.Verify(ctx, to, slot.Check{}); err != nil || len(diffs) > 0 {
			t.Fatalf("%v, %v", diffs, err)
		}
	})
}
