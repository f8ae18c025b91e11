package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// sentences are the strings with a space in them in the sources that this
// program's users may read, by where they stand.
func sentences(t *testing.T, roots ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	fset := token.NewFileSet()
	read := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && strings.Contains(s, " ") {
					all[fset.Position(lit.Pos()).String()] = s
				}
			}
			return true
		})
		return nil
	}
	for _, root := range roots {
		if err := filepath.WalkDir(root, read); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// hasFlag tells whether c or a command below it has a flag.
func hasFlag(c *cobra.Command, name string) bool {
	if c.Flags().Lookup(name) != nil || c.PersistentFlags().Lookup(name) != nil {
		return true
	}
	return slices.ContainsFunc(c.Commands(), func(sub *cobra.Command) bool { return hasFlag(sub, name) })
}

// TestHintsNameWhatExists: a verb or a flag that a sentence tells people to use
// has to be there.
func TestHintsNameWhatExists(t *testing.T) {
	root := rootCommand(newApp(nil, nil))
	verb := regexp.MustCompile("(?:whisper-appliance |[`;] ?)update ([a-z]+)(?: ([a-z]+)\\b)?([^`;]*)")
	ours := regexp.MustCompile("whisper-appliance slot (deploy|switch)")
	flag := regexp.MustCompile("--([a-z][a-z-]*)")
	others := regexp.MustCompile("`?(?:systemctl|journalctl|busctl|apt|dpkg|whisper-appliance bench|whisper-appliance doctor)[^`;]*`?") // their flags are theirs
	verbs, flags := map[string]bool{}, 0
	for at, s := range sentences(t, ".", "../../internal/update", "../../internal/site", "../../internal/slot", "../../internal/deployment", "../../internal/updaterd", "../../internal/trial", "../../internal/trust") {
		s = ours.ReplaceAllString(others.ReplaceAllString(s, ""), "whisper-appliance update $1")
		for _, m := range verb.FindAllStringSubmatch(s, -1) {
			found, rest, err := root.Find([]string{m[1], m[2]})
			if err != nil || found == root || found.HasSubCommands() && len(rest) > 0 && rest[0] != "" {
				t.Errorf("%s names a verb that is not there: %s", at, s)
				continue
			}
			verbs[found.Name()] = true
			for _, f := range flag.FindAllStringSubmatch(m[3], -1) {
				if found.Flags().Lookup(f[1]) == nil && found.InheritedFlags().Lookup(f[1]) == nil {
					t.Errorf("%s names --%s, which %s has not: %s", at, f[1], found.Name(), s)
				}
			}
		}
		for _, f := range flag.FindAllStringSubmatch(s, -1) {
			flags++
			if f[1] != "help" && !hasFlag(root, f[1]) {
				t.Errorf("%s names --%s, which no verb has: %s", at, f[1], s)
			}
		}
	}
	if len(verbs) < 8 || flags < 3 {
		t.Errorf("verbs %v and %d flags were found: does the test still look?", verbs, flags)
	}
}
