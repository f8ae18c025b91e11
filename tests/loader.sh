#!/bin/sh
# Runs a program with the engine runtime's loader and libraries (go test -exec).
# usage: loader.sh LIB PROGRAM ARGS…
lib=$1
shift
for loader in "$lib"/ld-linux-*.so.*; do
	exec "$loader" --library-path "$lib" "$@"
done
