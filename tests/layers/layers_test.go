// Package layers holds the checks that look at the module as a whole: which
// package may import which, and what no package may do.
package layers

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "whisper-appliance/"

// layers lists, for every package, the only imports from outside the standard
// library that it may have. Lower layers come first, and a package imports
// only from the rows above its own. Adding a package or an arrow means editing
// this table, in the same commit that needs it.
//
// Three walls: nothing that faces the network (server, fetch) imports update;
// only whisper uses cgo; only systemd and updaterd import godbus. Two of them
// stand in TestWalls, because they hold for packages that do not exist yet.
var layers = []struct{ pkg, may string }{
	// 0: types and bare necessities
	{"internal/version", ""},
	{"internal/fault", "github.com/agnivade/levenshtein"},
	{"internal/durable", "golang.org/x/sys/unix"},
	{"internal/paths", "golang.org/x/sys/unix internal/fault"},
	{"internal/faultpoint", ""},
	{"internal/transcript", "golang.org/x/text/width internal/fault"},
	{"internal/score", "golang.org/x/text/unicode/norm internal/fault internal/transcript"},

	// 1: each owner of one outside thing
	{"internal/config", "github.com/pelletier/go-toml/v2 github.com/pelletier/go-toml/v2/unstable internal/durable internal/fault internal/transcript"},
	{"internal/systemd", "github.com/coreos/go-systemd/v22/activation github.com/coreos/go-systemd/v22/daemon github.com/coreos/go-systemd/v22/journal " +
		"github.com/godbus/dbus/v5 golang.org/x/sys/unix internal/fault internal/paths"},
	{"internal/logging", "golang.org/x/term internal/fault internal/systemd"},
	{"internal/environment", "internal/paths"},
	{"internal/component", "internal/fault"},
	{"internal/watchdog", ""},
	{"internal/deployment", "internal/durable internal/fault"},
	{"internal/audio", "internal/durable internal/fault"},
	{"internal/auth", "internal/config internal/fault"},
	{"internal/cert", "github.com/gofrs/flock internal/durable internal/fault"},
	{"internal/database", "github.com/jackc/pgx/v5 github.com/jackc/pgx/v5/pgconn github.com/jackc/pgx/v5/stdlib github.com/pressly/goose/v3 github.com/pressly/goose/v3/lock modernc.org/sqlite " +
		"internal/durable internal/fault"},
	{"internal/api", "internal/cert internal/fault internal/transcript"},
	{"internal/portmux", ""},
	{"internal/outbound", "internal/fault"},
	{"internal/webhook", "internal/durable internal/fault internal/outbound"},

	// 2: the processes beside the server, and what they work on
	{"internal/engine", "github.com/gofrs/flock golang.org/x/sys/unix internal/faultpoint internal/transcript internal/version os/exec"},
	{"internal/whisper", "C internal/engine"},
	{"internal/decode", "internal/audio internal/fault os/exec"},
	{"internal/decode/sandbox", "github.com/landlock-lsm/go-landlock/landlock github.com/landlock-lsm/go-landlock/landlock/syscall golang.org/x/sys/unix internal/decode"},
	{"internal/model", "github.com/gofrs/flock golang.org/x/sys/unix google.golang.org/protobuf/encoding/protowire internal/durable internal/fault internal/transcript"},
	{"internal/inbox", "github.com/google/uuid golang.org/x/sys/unix internal/durable internal/fault"},
	{"internal/job", "github.com/google/uuid internal/database internal/fault"},

	// 3: the work
	{"internal/slot", "golang.org/x/sys/unix internal/durable internal/fault internal/faultpoint"},
	{"internal/release", "github.com/klauspost/compress/zstd golang.org/x/mod/semver internal/fault internal/slot"},
	{"internal/trust", "github.com/theupdateframework/go-tuf/v2/metadata github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata golang.org/x/sys/unix internal/durable internal/fault internal/release"},
	{"internal/publish", "github.com/gofrs/flock github.com/sigstore/sigstore/pkg/signature github.com/theupdateframework/go-tuf/v2/metadata internal/durable internal/fault internal/release internal/slot internal/trust"},
	{"internal/fetch", "internal/durable internal/fault internal/outbound internal/release internal/trust"},
	{"internal/updaterd", "github.com/godbus/dbus/v5 github.com/godbus/dbus/v5/introspect internal/deployment internal/fault"},
	{"internal/trial", "internal/deployment internal/fault"},
	{"internal/schedule", "internal/fault"},
	{"internal/transcribe", "golang.org/x/sync/semaphore internal/audio internal/config internal/decode internal/engine internal/fault internal/model internal/schedule internal/transcript"},
	{"internal/work", "github.com/gofrs/flock github.com/google/uuid internal/durable internal/fault internal/inbox internal/job internal/outbound internal/schedule internal/transcribe internal/transcript internal/webhook"},
	{"internal/appliance", "github.com/google/uuid golang.org/x/sys/unix internal/component internal/config internal/database internal/decode internal/durable internal/engine " +
		"internal/fault internal/inbox internal/job internal/logging internal/model internal/outbound internal/paths internal/schedule internal/systemd internal/transcribe internal/transcript internal/version internal/webhook internal/work"},

	// 4: the doors
	{"internal/server", "github.com/danielgtaylor/huma/v2 github.com/danielgtaylor/huma/v2/adapters/humahttprouter github.com/julienschmidt/httprouter " +
		"github.com/prometheus/client_golang/prometheus github.com/prometheus/client_golang/prometheus/collectors " +
		"github.com/prometheus/client_golang/prometheus/promhttp github.com/tus/tusd/v2/pkg/handler golang.org/x/exp/slog golang.org/x/sys/unix internal/api internal/audio internal/auth internal/component internal/config " +
		"internal/deployment internal/durable internal/engine internal/environment internal/fault internal/faultpoint internal/inbox internal/job internal/logging " +
		"internal/model internal/outbound internal/schedule internal/systemd internal/transcribe internal/transcript internal/version internal/watchdog internal/work"},

	// 5: judges of the whole
	{"internal/smoke", "internal/api internal/component internal/fault internal/score"},
	{"internal/doctor", "internal/component internal/config internal/durable internal/fault internal/model internal/paths internal/slot internal/systemd"},
	{"internal/diagnose", "internal/config internal/durable internal/paths internal/slot internal/systemd internal/version"},

	{"internal/measure", "internal/api internal/component internal/deployment internal/fault internal/smoke internal/trial"},

	// 6: what changes which release serves
	{"internal/update", "golang.org/x/sys/unix internal/config internal/deployment internal/durable internal/fault internal/faultpoint internal/release internal/slot internal/trial internal/trust"},
	{"internal/site", "golang.org/x/sys/unix internal/api internal/component internal/config internal/deployment internal/diagnose internal/durable internal/fault internal/fetch internal/measure internal/paths internal/slot internal/smoke internal/systemd internal/trial internal/trust internal/update internal/version"},

	// programs
	{"cmd/whisper-appliance", "github.com/spf13/cobra golang.org/x/term os/exec internal/api internal/appliance internal/auth internal/component internal/config internal/decode internal/deployment internal/diagnose " +
		"internal/doctor internal/durable internal/environment internal/fault internal/measure internal/model internal/paths internal/slot internal/smoke internal/systemd internal/transcribe internal/transcript internal/trial internal/version"},
	{"cmd/whisper-appliance-server", "internal/appliance internal/auth internal/cert internal/component internal/config internal/deployment internal/environment internal/fault internal/faultpoint internal/logging internal/paths internal/portmux internal/server internal/slot internal/systemd internal/updaterd internal/version internal/watchdog"},
	{"cmd/whisper-appliance-engine", "internal/engine internal/logging internal/model internal/paths internal/systemd internal/version internal/watchdog internal/whisper"},
	{"cmd/whisper-appliance-fetch", "internal/durable internal/fault internal/fetch internal/logging internal/paths internal/version"},
	{"cmd/whisper-appliance-updater", "github.com/spf13/cobra golang.org/x/sys/unix golang.org/x/term internal/deployment internal/fault internal/logging internal/paths internal/site internal/slot internal/systemd internal/update internal/updaterd internal/version"},
	{"cmd/whisper-appliance-release", "github.com/spf13/cobra internal/durable internal/fault internal/publish internal/release internal/slot internal/trust internal/version"},
	{"cmd/whisper-appliance-decode", "internal/decode internal/decode/sandbox internal/fault internal/version"},

	// tests that look at the appliance from outside
	{"tests/clips", "internal/audio internal/durable internal/score os/exec"},
	{"tests/report", "internal/durable"},
	{"tests/skips", ""},
	{"tests/postgres", "os/exec"},
	{"tests/peer", "internal/durable os/exec"},
	{"tests/appliance", "internal/auth internal/config internal/engine internal/version os/exec tests/clips"},
	{"tests/appliance/run", "os/exec tests/appliance"},
	{"tests/wer", "internal/fault internal/score tests/appliance tests/clips tests/peer tests/report"},
	{"tests/bench", "internal/score tests/appliance tests/clips tests/peer tests/report"},
	{"tests/fairness", "tests/appliance tests/clips tests/peer tests/report"},
	{"tests/conformance", ""},
	{"tests/subtitles", ""},
	{"tests/programs", ""},
	{"tests/e2e/machine", "golang.org/x/sys/unix os/exec"},
	{"tests/e2e/load", ""},
	{"tests/e2e/offers", "internal/publish internal/release internal/slot internal/trust os/exec"},
	{"tests/e2e", ""},
	{"tests/vm/agent", "os/exec"},
	{"tests/vm/disk", ""},
	{"tests/vm/audit", "modernc.org/sqlite"},
	{"tests/vm/hearing", "internal/audio internal/engine internal/smoke"},
	{"tests/vm/fakeengine", "internal/engine internal/systemd internal/version internal/watchdog tests/vm/hearing"},
	{"tests/vm/machine", "os/exec tests/vm/disk"},
	{"tests/vm", ""},
	{"tests/faults/cut", "golang.org/x/sys/unix os/exec"},
	{"tests/faults/disk", "golang.org/x/sys/unix os/exec"},
	{"tests/faults/fakeserver", ""},
	{"tests/faults/fakerelease", "internal/slot os/exec"},
	{"tests/faults/supervise", "golang.org/x/sys/unix internal/fault internal/slot os/exec"},
	{"tests/faults/matrix", ""},
	{"tests/faults/table", "tests/faults/matrix tests/report"},
	{"tests/faults", ""},
	{"tests/layers", ""},
	{"tests/units", ""},
	{"tests/acceptance", "os/exec"},
}

// watched are packages of the standard library that have owners, too.
var watched = []string{"C", "os/exec", "plugin", "net/rpc"}

func find(pkg string) int {
	return slices.IndexFunc(layers, func(l struct{ pkg, may string }) bool { return l.pkg == pkg })
}

// goList runs go list over the whole module, the engine included.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-tags", "whisper,e2e"}, append(args, "./...")...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1") // or it does not see the engine
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestLayers(t *testing.T) {
	seen := map[string]bool{}
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`) {
		words := strings.Fields(strings.ReplaceAll(line, module, ""))
		pkg, imports := words[0], words[1:]
		seen[pkg] = true
		row := find(pkg)
		if row < 0 {
			t.Errorf("%s is not in the layers table", pkg)
			continue
		}
		may := strings.Fields(layers[row].may)
		for _, imp := range imports {
			ours := strings.HasPrefix(imp, "internal/") || strings.HasPrefix(imp, "cmd/") || strings.HasPrefix(imp, "tests/")
			first, _, _ := strings.Cut(imp, "/")
			free := !ours && !strings.Contains(first, ".") && !slices.Contains(watched, imp)
			if !free && !slices.Contains(may, imp) {
				t.Errorf("%s must not import %s", pkg, imp)
			}
			if ours && find(imp) >= row {
				t.Errorf("%s imports %s, which is not below it", pkg, imp)
			}
		}
		for _, imp := range may {
			if !slices.Contains(imports, imp) {
				t.Errorf("%s no longer imports %s: take it out of the table", pkg, imp)
			}
		}
	}
	for _, l := range layers {
		if !seen[l.pkg] {
			t.Errorf("%s is in the layers table and nowhere else", l.pkg)
		}
	}
}

// TestWalls holds what the table cannot: dependencies of dependencies.
func TestWalls(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Deps " "}}`) {
		words := strings.Fields(strings.ReplaceAll(line, module, ""))
		pkg, deps := words[0], words[1:]
		facesNetwork := strings.HasPrefix(pkg, "internal/server") || pkg == "cmd/whisper-appliance-server" || pkg == "cmd/whisper-appliance-fetch"
		if facesNetwork && slices.Contains(deps, "internal/update") {
			t.Errorf("%s reaches internal/update", pkg)
		}
		engine := pkg == "internal/whisper" || pkg == "cmd/whisper-appliance-engine"
		if !engine && slices.Contains(deps, "internal/whisper") {
			t.Errorf("%s reaches internal/whisper: only the engine may hold C", pkg)
		}
	}
}

// TestNoForbiddenNames: a package name says what is in it.
func TestNoForbiddenNames(t *testing.T) {
	forbidden := []string{"util", "utils", "common", "helpers", "types", "manager", "misc"}
	for _, pkg := range goList(t) {
		if slices.Contains(forbidden, filepath.Base(pkg)) {
			t.Errorf("%s: a package is named after what it is about", pkg)
		}
	}
}

// longestFile is what a reader can hold; see the design page.
const longestFile = 500

func TestFilesFitAReader(t *testing.T) {
	for _, line := range goList(t, "-f", `{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}} {{end}}{{range .CgoFiles}}{{$d}}/{{.}} {{end}}`) {
		for _, file := range strings.Fields(line) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(data, []byte("\n")); n > longestFile {
				t.Errorf("%s has %d lines: is there a second idea in it?", file, n)
			}
		}
	}
}

// TestVersionStandsOnce: VERSION is the only place a version is written.
func TestVersionStandsOnce(t *testing.T) {
	root := filepath.Join("..", "..")
	data, err := os.ReadFile(filepath.Join(root, "VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSpace(string(data))
	out, err := exec.Command("git", "-C", root, "grep", "-nF", version, "--", "*.go", "Makefile", "*.sh", "packaging", "README.md").CombinedOutput()
	if err == nil {
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "engine-runtime.lock") && !strings.Contains(line, "127."+version) {
				t.Errorf("the version stands here too: %s", strings.TrimSpace(line))
			}
		}
	}
}

// reasonedAny are exported functions whose signature has any in it, each with the reason.
var reasonedAny = map[string]string{
	"fault.New":         "arguments of a format",
	"fault.Try":         "arguments of a format",
	"config.Unmarshal":  "the value that TOML is decoded into",
	"api.Get":           "the value that JSON is decoded into",
	"config.Marshal":    "the value that TOML is encoded from",
	"transcript.Encode": "the value that JSON is encoded from",
}

// TestExportedIsDocumented: everything exported has a comment, and no exported
// function takes or gives any without a reason.
func TestExportedIsDocumented(t *testing.T) {
	for _, dir := range goList(t, "-f", "{{.Dir}}") {
		if !strings.Contains(dir, string(filepath.Separator)+"internal"+string(filepath.Separator)) {
			continue
		}
		fset := token.NewFileSet()
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		documented := false
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || file.Doc != nil
			for _, decl := range file.Decls {
				checkDecl(t, fset, file.Name.Name, decl)
			}
		}
		if !documented {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func checkDecl(t *testing.T, fset *token.FileSet, pkg string, decl ast.Decl) {
	t.Helper()
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if !d.Name.IsExported() || (d.Recv != nil && !ast.IsExported(receiver(d))) || isInterfaceMethod(d.Name.Name) {
			return
		}
		if d.Doc == nil {
			t.Errorf("%s: %s has no comment", fset.Position(d.Pos()), d.Name.Name)
		}
		if hasAny(d.Type) && reasonedAny[pkg+"."+d.Name.Name] == "" {
			t.Errorf("%s: %s.%s takes or gives any without a reason in reasonedAny", fset.Position(d.Pos()), pkg, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			if s, ok := spec.(*ast.TypeSpec); ok && s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
				t.Errorf("%s: type %s has no comment", fset.Position(s.Pos()), s.Name.Name)
			}
		}
	}
}

// isInterfaceMethod are methods whose comment stands at the interface they implement.
func isInterfaceMethod(name string) bool {
	return slices.Contains([]string{"Error", "Unwrap", "String", "Read", "Write", "Close", "MarshalJSON", "UnmarshalText", "MarshalText", "Len", "Less", "Swap"}, name)
}

func receiver(d *ast.FuncDecl) string {
	name := ""
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return true
	})
	return name
}

func hasAny(f *ast.FuncType) bool {
	found := false
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			found = found || n.Name == "any"
		case *ast.InterfaceType:
			found = found || len(n.Methods.List) == 0
		case *ast.FieldList:
			return n != f.TypeParams // any is a fair constraint
		}
		return true
	})
	return found
}
