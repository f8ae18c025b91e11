package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/config"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestMend: a machine that forbids namespaces gets drop-ins that relax what it
// refuses and nothing else; once is enough; and when it allows them, they go.
func TestMend(t *testing.T) {
	h := &host{refuses: map[string]string{"DynamicUser": "226/NAMESPACE", "RootDirectory": "226/NAMESPACE", "PrivateUsers": "217/USER"},
		silent: []string{"PrivateNetwork", "ProtectSystem"}}
	d := installed(t, h)
	engine := filepath.Join(d.Paths.DropIns, "whisper-appliance-engine@.service.d", sandboxDropIn)
	server := filepath.Join(d.Paths.DropIns, "whisper-appliance.service.d", sandboxDropIn)
	own := filepath.Join(d.Paths.DropIns, "whisper-appliance.service.d", "override.conf")
	write(t, own, "[Service]\nNice=3\n")

	before := d.sandboxes(t.Context())
	expect(t, before, Problem, "whisper-appliance-engine@.service needs a drop-in")
	expect(t, before, Advice, "does not allow RootDirectory (226/NAMESPACE), DynamicUser (226/NAMESPACE), PrivateUsers (217/USER)")
	expect(t, before, Advice, "leaves out, without a word, PrivateNetwork, ProtectSystem")

	found := d.Mend(t.Context())
	expect(t, found, OK, "wrote "+engine)
	text := read(t, engine)
	if !strings.HasPrefix(text, mark) || !strings.Contains(text, "# 2027-01-02: this machine does not allow DynamicUser (a service with it ends with 226/NAMESPACE)") {
		t.Errorf("the drop-in does not say why:\n%s", text)
	}
	if want := "[Service]\nRootDirectory=\nDynamicUser=no\nUser=whisper-appliance-engine\nPrivateUsers=no\n"; !strings.HasSuffix(text, want) {
		t.Errorf("the engine's drop-in is\n%s", text)
	}
	for unit, user := range map[string]string{"decode@": "whisper-appliance-decoder", "journal@": "whisper-appliance"} {
		text := read(t, filepath.Join(d.Paths.DropIns, "whisper-appliance-"+unit+".service.d", sandboxDropIn))
		if !strings.HasSuffix(text, "[Service]\nDynamicUser=no\nUser="+user+"\n") {
			t.Errorf("the drop-in of %s is\n%s", unit, text)
		}
	}
	if text := read(t, server); !strings.HasSuffix(text, "[Service]\nPrivateUsers=no\n") {
		t.Errorf("the server's drop-in is\n%s", text)
	}
	if info, err := os.Stat(server); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("its mode is %v (%v)", info.Mode(), err)
	}
	if h.reloads != 1 {
		t.Errorf("systemd was told %d times", h.reloads)
	}
	if again := d.Mend(t.Context()); len(again) != 0 || h.reloads != 1 {
		t.Errorf("a second time did %+v", again)
	}
	if after := d.sandboxes(t.Context()); Worst(after) == Problem {
		t.Errorf("a problem is left: %+v", after)
	}

	h.refuses, h.silent = nil, nil
	expect(t, d.sandboxes(t.Context()), Advice, "is no longer needed")
	expect(t, d.Mend(t.Context()), OK, "removed "+engine)
	if _, err := os.Stat(filepath.Dir(engine)); !os.IsNotExist(err) {
		t.Errorf("the empty directory is left (%v)", err)
	}
	if read(t, own) != "[Service]\nNice=3\n" || h.reloads != 2 {
		t.Error("the administrator's drop-in was touched, or systemd was not told")
	}
}

func TestMendLeavesOthersFilesAlone(t *testing.T) {
	h := &host{refuses: map[string]string{"PrivateUsers": "217/USER"}}
	d := installed(t, h)
	theirs := filepath.Join(d.Paths.DropIns, "whisper-appliance.service.d", sandboxDropIn)
	write(t, theirs, "[Service]\nNice=3\n")
	expect(t, d.Mend(t.Context()), Problem, "is not doctor's")
	if read(t, theirs) != "[Service]\nNice=3\n" {
		t.Error("it was overwritten")
	}
}

func TestMendWithoutMeans(t *testing.T) {
	d := installed(t, &host{})
	d.Mender = nil
	expect(t, d.Mend(t.Context()), Advice, "not looked at")
	d = installed(t, &host{err: errNoBus})
	expect(t, d.Mend(t.Context()), Advice, "systemd does not answer")
	d.Paths.Kind = "development"
	expect(t, d.Mend(t.Context()), Advice, "only an installed appliance")
	left, err := filepath.Glob(filepath.Join(d.Paths.DropIns, "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("written: %v (%v)", left, err)
	}
}

func TestSettingsThatFailOnlyTogether(t *testing.T) {
	d := installed(t, &host{together: "226/NAMESPACE"})
	expect(t, d.sandboxes(t.Context()), Problem, "together its settings end with 226/NAMESPACE")
}

// setModels has the administrator name a directory of models.
func setModels(t *testing.T, d *Doctor, dir string) {
	t.Helper()
	write(t, d.Paths.Config, "[models]\ndirectory = \""+dir+"\"\n")
	load(t, d, config.Sources{Config: d.Paths.Config})
}

func load(t *testing.T, d *Doctor, from config.Sources) {
	t.Helper()
	var err error
	if d.Settings, d.Report, err = config.Load(from); err != nil {
		t.Fatal(err)
	}
}

func TestModelsElsewhere(t *testing.T) {
	h := &host{}
	d := installed(t, h)
	elsewhere := filepath.Join(t.TempDir(), "models")
	setModels(t, d, elsewhere)
	d.Mend(t.Context())
	engine := filepath.Join(d.Paths.DropIns, "whisper-appliance-engine@.service.d", modelsDropIn)
	if want := "BindReadOnlyPaths=\nBindReadOnlyPaths=" + d.Paths.Slots + "/%i " + elsewhere + ":" + d.Paths.Models + "\n"; !strings.HasSuffix(read(t, engine), want) {
		t.Errorf("the engine's drop-in is\n%s", read(t, engine))
	}
	server := filepath.Join(d.Paths.DropIns, "whisper-appliance.service.d", modelsDropIn)
	if !strings.HasSuffix(read(t, server), "\nReadWritePaths="+elsewhere+"\n") {
		t.Errorf("the server's drop-in is\n%s", read(t, server))
	}
	for start, user := range map[string]string{"ReadWritePaths=": "User=whisper-appliance ", "BindReadOnlyPaths=" + elsewhere: "User=whisper-appliance-engine "} {
		if !slices.ContainsFunc(h.asked, func(a string) bool { return strings.HasPrefix(a, start) && strings.Contains(a, user) }) {
			t.Errorf("%s was not tried as %s:\n%s", start, user, strings.Join(h.asked, "\n"))
		}
	}

	setModels(t, d, "/srv/with space")
	expect(t, d.sandboxes(t.Context()), Problem, "cannot be written into a unit")
	setModels(t, d, elsewhere)
	h.refuses = map[string]string{"ReadWritePaths": "226/NAMESPACE"}
	expect(t, d.sandboxes(t.Context()), Problem, "whisper-appliance.service cannot reach "+elsewhere)

	setModels(t, d, filepath.Join(d.Paths.State, "more"))
	d.Mend(t.Context())
	noDropIns(t, d)
}

func noDropIns(t *testing.T, d *Doctor) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(d.Paths.DropIns, "*", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("there are %v (%v)", left, err)
	}
}

// TestModelsWhereNobodyMay: sandboxes are opened for nothing that the server's
// user could have named, and for nothing of the system's or of ours.
func TestModelsWhereNobodyMay(t *testing.T) {
	d := installed(t, &host{})
	for _, dir := range []string{"/", "/etc", "/usr/share/models", filepath.Dir(d.Paths.State), d.Paths.Run, d.Paths.Slots} {
		setModels(t, d, dir)
		d.Mend(t.Context())
		expect(t, d.sandboxes(t.Context()), Problem, "[models] directory: "+dir)
		noDropIns(t, d)
	}
	file := filepath.Join(t.TempDir(), "settings.toml")
	write(t, file, "[models]\ndirectory = \"/srv/models\"\n")
	for origin, from := range map[string]config.Sources{
		"(settings.toml)": {Settings: file},
		"(environment ":   {Environ: []string{"WHISPER_APPLIANCE_MODELS_DIRECTORY=/srv/models"}},
	} {
		load(t, d, from)
		d.Mend(t.Context())
		noDropIns(t, d)
		expect(t, d.sandboxes(t.Context()), Problem, `"/srv/models" `+origin)
	}
	dropIn := filepath.Join(d.Paths.ConfigDir, "settings.toml")
	write(t, dropIn, "[models]\ndirectory = \"/srv/models\"\n")
	load(t, d, config.Sources{ConfigD: d.Paths.ConfigDir})
	if dir, found := d.elsewhere(); dir != "/srv/models" {
		t.Errorf("config.d gives %q: %+v", dir, found)
	}
}

func TestReadService(t *testing.T) {
	got := readService(nil, "[Unit]\nUser=x\n[Service]\n; no\nUser=a\nUser=b\nBindPaths=/a \\\n /b\nBindPaths=/c\nReadWritePaths=/d\nReadWritePaths=\n[Install]\nUser=c\n")
	var b strings.Builder
	for _, s := range got {
		b.WriteString(strings.Join(strings.Fields(s.String()), " ") + ";")
	}
	if want := "User=b;BindPaths=/a /b /c;ReadWritePaths=;"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
