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

// sentences are the strings with a space in them in the sources, by where they
// stand, but for the two programs that nobody starts by hand.
func sentences(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	fset := token.NewFileSet()
	for _, root := range []string{"../../internal", ".", "../whisper-appliance-server"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && d.Name() == "publish" {
				return fs.SkipDir // the publisher's tool has flags of its own
			}
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
		})
		if err != nil {
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

// TestHintsNameWhatExists: a flag or a command that a sentence tells people to
// use has to be there.
func TestHintsNameWhatExists(t *testing.T) {
	root := rootCommand(&app{})
	flag := regexp.MustCompile("(?:^|[ `(])--([a-z][a-z_-]*)")
	command := regexp.MustCompile("(?:^|[`\"])whisper-appliance ([a-z]+)(?: ([a-z]+)\\b)?")
	others := regexp.MustCompile("`(?:systemctl|journalctl|timedatectl|apt)[^`]*`") // their flags are theirs
	flags, commands := 0, 0
	for at, s := range sentences(t) {
		s = others.ReplaceAllString(s, "")
		for _, m := range flag.FindAllStringSubmatch(s, -1) {
			flags++
			if !slices.Contains([]string{"listen", "help", "within", "data-urlencode"}, m[1]) && !hasFlag(root, m[1]) { // --listen is the server's, --within the updater's, --data-urlencode curl's
				t.Errorf("%s names --%s, which no command has: %s", at, m[1], s)
			}
		}
		for _, m := range command.FindAllStringSubmatch(s, -1) {
			commands++
			found, rest, err := root.Find(strings.Fields(m[1] + " " + m[2]))
			if err != nil || found == root || found.HasSubCommands() && len(rest) > 0 {
				t.Errorf("%s names a command that is not there: %s", at, s)
			}
		}
	}
	if flags < 5 || commands < 5 {
		t.Errorf("%d flags and %d commands were found: does the test still look?", flags, commands)
	}
}
