package offers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"runtime"
	"strings"
	"testing"

	"whisper-appliance/internal/slot"
)

// TestSpoiled: the file that is laid over the server's knows every way in which
// a recipe can spoil it, and has the variable that the linker sets.
func TestSpoiled(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "spoiled.go", spoiled, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if c, ok := n.(*ast.CaseClause); ok {
			for _, e := range c.List {
				if lit, ok := e.(*ast.BasicLit); ok {
					known[strings.Trim(lit.Value, `"`)] = true
				}
			}
		}
		return true
	})
	for _, way := range []string{Crashes, CrashesLate, HangsLate} {
		if !known[way] {
			t.Errorf("it knows %v, and not %q", known, way)
		}
	}
	if !strings.Contains(string(spoiled), "\nvar spoiled string\n") {
		t.Error("it has no variable for the linker")
	}
}

func TestRecipe(t *testing.T) {
	plain, odd := Recipe{Version: "1.0.0"}, Recipe{Version: "1.0.0", Says: "1.0.1", Arch: "riscv64", Contract: 9}
	if plain.says() != "1.0.0" || plain.arch() != runtime.GOARCH || plain.contract() != slot.Contract {
		t.Errorf("%s, %s, %d", plain.says(), plain.arch(), plain.contract())
	}
	if odd.says() != "1.0.1" || odd.arch() != "riscv64" || odd.contract() != 9 {
		t.Errorf("%s, %s, %d", odd.says(), odd.arch(), odd.contract())
	}
}
