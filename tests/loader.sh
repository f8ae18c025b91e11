#!/bin/sh
# Runs a program with the engine runtime's loader and libraries (go test -exec).
# usage: loader.sh LIB PROGRAM ARGS…
lib=$1
shift
loader=$(echo "$lib"/ld-linux-*.so.*) # there is one
exec "$loader" --library-path "$lib" "$@"
