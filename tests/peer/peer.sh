#!/bin/sh
# Makes the peer: a small Debian root with whisper.cpp's own programs
# (whisper-cli, whisper-server) in it, from the same suite that the engine
# runtime comes from. The comparisons chroot into it.
# usage: peer.sh [DIR]        DIR is build/peer unless it is named
#
# Writes DIR and nothing else; DIR/versions records what was installed, one
# package a line: name and version. A DIR that holds the whisper.cpp of
# packaging/engine-runtime.lock is left as it is. Needs root, for chroot.
# mmdebstrap checks the archive's signatures.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:-$here/build/peer}
lock=$here/packaging/engine-runtime.lock
suite=forky

say() { echo "peer: $*" >&2; }
die() {
	say "$*"
	exit 1
}

wanted=$(awk '$1 == "libwhisper1" {print $2}' "$lock")
if [ -f "$dir/versions" ] && grep -qxF "libwhisper1 $wanted" "$dir/versions"; then
	exit 0
fi
if [ -n "$(ls -A "$dir" 2>/dev/null)" ] && [ ! -f "$dir/versions" ]; then
	die "$dir holds something else: name a directory that is empty or not there"
fi
[ "$(id -u)" = 0 ] || die "making and entering $dir needs root: run this with sudo"
command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: apt install mmdebstrap"

mirror=$("$here/packaging/mirror.sh")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || die "$keyring is missing: apt install debian-archive-keyring"

# It gets its name when it is whole.
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$(dirname "$dir")/peer.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# A mirror that lags serves an expired Release file for this suite; the
# signatures are checked all the same.
say "installing whisper.cpp-tools of $suite"
mmdebstrap --quiet --mode=root --variant=minbase --include=whisper.cpp-tools \
	--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
	"$suite" "$work/tree" "deb [signed-by=$keyring] $mirror $suite main" >&2

# shellcheck disable=SC2016 # dpkg-query expands it
chroot "$work/tree" dpkg-query -W -f '${Package} ${Version}\n' >"$work/tree/versions"
chmod 755 "$work/tree"
rm -rf "$dir"
mv "$work/tree" "$dir"

got=$(awk '$1 == "libwhisper1" {print $2}' "$dir/versions")
[ "$got" = "$wanted" ] || say "warning: $suite has whisper.cpp $got, the engine runtime was made from $wanted: make engine-runtime"
say "whisper.cpp $got, $(du -sh "$dir" | cut -f1) in $dir"
