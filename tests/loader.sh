#!/bin/sh
# Runs a program with the engine runtime's loader and libraries (go test -exec).
# usage: loader.sh LIB PROGRAM ARGS…
lib=$1
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT-1000}" # as the engine's unit has it
shift
for loader in "$lib"/ld-linux-*.so.* "$lib"/ld.so; do # there is one: a slot's is called ld.so
	[ -x "$loader" ] && break
done
exec "$loader" --library-path "$lib" "$@"
