//go:build !man

package main

import "github.com/spf13/cobra"

// addBuildCommands adds what only the build of the package needs: nothing here.
func addBuildCommands(*cobra.Command) {}
