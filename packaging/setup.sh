#!/bin/sh
# Installs what building, running and testing need from Debian's packages.
# usage: setup.sh build|test|peer|e2e|vm
#
# Says what it installs, asks sudo where it is not root, and does nothing where
# all is there. Go is the one thing it does not install: Debian's is too old.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
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
	want /etc/ssl/certs/ca-certificates.crt ca-certificates
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
e2e() {
	peer
	want systemd-nspawn systemd-container
	want nsenter util-linux
	want dpkg-deb dpkg
	want lintian lintian
}
vm() {
	peer
	want dpkg-deb dpkg
	want mke2fs e2fsprogs
	# x86 alone: the machines' processor is emulated, whatever this one is.
	want qemu-system-x86_64 qemu-system-x86
}

case ${1:-} in
build) build ;;
test) tests ;;
peer) peer ;;
e2e) e2e ;;
vm) vm ;;
*) echo "usage: setup.sh build|test|peer|e2e|vm" >&2; exit 64 ;;
esac

# reaches WANTED HAVE: whether a version is that or a later one.
reaches() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# A Go that is too old dies of go.mod with words that name neither version; one
# that fetches newer toolchains by itself (1.21 and later) may be any.
go_wanted=$(awk '$1 == "go" {print $2; exit}' "$here/go.mod")
if ! command -v go >/dev/null 2>&1; then
	echo "setup: go is missing: install Go $go_wanted or newer and put it into PATH" >&2
	exit 1
fi
go_here=$(cd "$here" && go env GOVERSION 2>/dev/null) || go_here=$(go version 2>/dev/null | cut -d' ' -f3)
case $go_here in
go[0-9]*)
	go_here=$(echo "$go_here" | sed 's/^go\([0-9.]*[0-9]\).*/\1/')
	if ! reaches "${go_wanted%.0}" "$go_here"; then
		echo "setup: $(command -v go) is Go $go_here, and Go $go_wanted or newer is needed: install it and put it before that one in PATH" >&2
		exit 1
	fi
	;;
esac # a development version has no number, and its own words

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
	$root env DEBIAN_FRONTEND=noninteractive apt-get install -q -q -y --no-install-recommends $missing >&2
}
