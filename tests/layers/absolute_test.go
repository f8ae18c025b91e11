package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// absolute is a path of the file system that begins a string, or follows what
// comes before one in an address: "unix:path=/run/x". Routes such as /v1/models
// begin with other names.
var absolute = regexp.MustCompile(`(^|[=:])/(etc|var|usr|opt|run|tmp|proc|sys|dev|app|lib|lib64|bin|sbin|home|root|srv|mnt)(/|$)`)

// reasonedAbsolute are places that may hold one, each with the reason. A
// directory ends in a slash.
var reasonedAbsolute = []struct{ file, path, reason string }{
	{"internal/paths/", "", "the owner of every path"},
	{"internal/decode/sandbox/system.go", "", "what the sandbox of a program outside systemd lets through, reviewed as one list"},
	{"internal/whisper/whisper.go", "/proc/self/maps", "cgo's own process; the engine knows no paths but those of its command line"},
	{"tests/", "", "programs that look at the appliance from outside, at real processes"},
}

func reasoned(file, text string) bool {
	for _, r := range reasonedAbsolute {
		inside := file == r.file || strings.HasSuffix(r.file, "/") && strings.HasPrefix(file, r.file)
		if inside && strings.HasPrefix(text, r.path) {
			return true
		}
	}
	return false
}

// absolutes lists the string literals of a file that are absolute paths.
func absolutes(fset *token.FileSet, name string, source []byte) (map[token.Position]string, error) {
	var src any
	if source != nil {
		src = source
	}
	file, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	found := map[token.Position]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil && absolute.MatchString(text) {
				found[fset.Position(lit.Pos())] = text
			}
		}
		return true
	})
	return found, nil
}

// TestNoAbsolutePaths: only package paths knows where things are. A path that
// another package needs is given to it.
func TestNoAbsolutePaths(t *testing.T) {
	root := filepath.Join("..", "..")
	fset, files := token.NewFileSet(), 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if d.IsDir() && (name == "build" || d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && name != ".") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		files++
		found, err := absolutes(fset, path, nil)
		for at, text := range found {
			if !reasoned(filepath.ToSlash(name), text) {
				t.Errorf("%s:%d: %q: paths come from internal/paths", name, at.Line, text)
			}
		}
		return err
	})
	if err != nil || files < 50 {
		t.Errorf("%d files, %v", files, err)
	}
}

// TestAbsoluteIsFound: the check sees what it should, and no more.
func TestAbsoluteIsFound(t *testing.T) {
	for text, want := range map[string]bool{
		`"/etc/x"`: true, `"/var"`: true, "`/usr/lib`": true, `"unix:path=/run/x"`: true, `"/proc/%d/stat"`: true, `"/app"`: true,
		`"/v1/models"`: false, `"/api/x"`: false, `"/"`: false, `"/runner"`: false, `"see /etc/x"`: false, `"etc/x"`: false, `"/update"`: false,
	} {
		found, err := absolutes(token.NewFileSet(), "x.go", []byte("package x\n\nvar y = "+text+"\n"))
		if err != nil || (len(found) == 1) != want {
			t.Errorf("%s: %v, %v", text, found, err)
		}
	}
}

// TestReasonsAreNeeded: an exception that nothing uses any more is taken out.
func TestReasonsAreNeeded(t *testing.T) {
	for _, r := range reasonedAbsolute {
		if r.reason == "" {
			t.Errorf("%s has no reason", r.file)
		}
		files := []string{filepath.Join("..", "..", r.file)}
		if strings.HasSuffix(r.file, "/") {
			files = nil
			err := filepath.WalkDir(filepath.Join("..", "..", r.file), func(path string, _ fs.DirEntry, err error) error {
				if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
					files = append(files, path)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		used := false
		for _, file := range files {
			found, err := absolutes(token.NewFileSet(), file, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range found {
				used = used || strings.HasPrefix(text, r.path)
			}
		}
		if !used {
			t.Errorf("%s needs no exception for %q any more", r.file, r.path)
		}
	}
}
