#!/bin/sh
# Installs what building, running and testing need from Debian's packages.
# usage: setup.sh build|test|peer
#
# Says what it installs, asks sudo where it is not root, and does nothing where
# all is there.
set -eu

missing=
want() { # want COMMAND-OR-FILE PACKAGE…
	case $1 in
	/*) [ -e "$1" ] && return ;;
	*) command -v "$1" >/dev/null 2>&1 && return ;;
	esac
	shift
	missing="$missing $*"
}

build() {
	want gcc gcc libc6-dev
	want readelf binutils
	want /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
	want ffmpeg ffmpeg
	want npm npm
	want node nodejs
	want curl curl
}
tests() {
	build
	want /usr/lib/python3/dist-packages/webvtt python3-webvtt
	want /usr/lib/python3/dist-packages/srt.py python3-srt
	want shellcheck shellcheck
}
peer() {
	build
	want mmdebstrap mmdebstrap
}

case ${1:-} in
build) build ;;
test) tests ;;
peer) peer ;;
*) echo "usage: setup.sh build|test|peer" >&2; exit 64 ;;
esac

if ! command -v go >/dev/null 2>&1; then
	echo "setup: go is missing: install Go 1.26 or newer and put it into PATH" >&2
	exit 1
fi
[ -n "$missing" ] || exit 0

root=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "setup: these packages are missing and there is no sudo; as root: apt-get install$missing" >&2
		exit 1
	fi
	root=sudo
fi
echo "setup: installing$missing" >&2
# shellcheck disable=SC2086 # lists of words
{
	$root apt-get update -q -q
	DEBIAN_FRONTEND=noninteractive $root apt-get install -q -q -y --no-install-recommends $missing >&2
}
