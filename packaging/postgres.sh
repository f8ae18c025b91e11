#!/bin/sh
# Unpacks PostgreSQL's server out of Debian's own packages, for tests: those of
# the Debian that this machine is, so that it runs on the machine's libraries.
# usage: postgres.sh DIR
#
# DIR gets usr/lib/postgresql/N (the programs), usr/share/postgresql/N, what
# libraries the machine lacks in usr/lib, and version (package and version, and
# the digest of the script that made it). Nothing is installed, no server is
# started, and root is not needed. apt checks the archive's signatures. A DIR
# that this script made is left as it is.
set -eu

dir=$(realpath -m "$1")
say() { echo "postgres: $*" >&2; }

script=$(sha256sum <"$0" | cut -d' ' -f1)
if [ "$(sed -n 2p "$dir/version" 2>/dev/null)" = "$script" ]; then
	exit 0
fi
if [ -n "$(ls -A "$dir" 2>/dev/null)" ] && [ ! -f "$dir/version" ]; then
	say "$dir holds something else: name a directory that is empty or not there"
	exit 1
fi

# It gets its name when it is whole.
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$(dirname "$dir")/postgres.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

mirror=$("$(dirname "$0")/mirror.sh")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || { say "$keyring is missing: apt install debian-archive-keyring"; exit 1; }
# shellcheck disable=SC1091 # not ours
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$suite" ] || { say "/etc/os-release names no VERSION_CODENAME: this is no released Debian"; exit 1; }

# A world of its own for apt, in which nothing is installed yet.
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/deb" "$work/all" "$work/tree/usr/lib" "$work/tree/usr/share"
: >"$work/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
apt() {
	command="$1"
	shift
	"apt-$command" -q -q \
		-o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
		-o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" \
		-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Acquire::Languages=none -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 "$@"
}
say "reading the package lists of $suite"
apt get update
package=$(apt cache depends postgresql | sed -n 's/.*Depends: \(postgresql-[0-9]*\)$/\1/p')
[ -n "$package" ] || { say "$suite names no version of PostgreSQL"; exit 1; }

# Of all that it needs, the libraries that this machine lacks: not those of the
# compiler for queries nor Perl, which no test uses.
needs=$package
for file in $(apt get --print-uris --yes --no-install-recommends install "$package" | sed -n "s/^'[^']*' \([^ ]*\) .*/\1/p"); do
	name=${file%%_*}
	case $name in
	libpq5 | postgresql-client-[0-9]*) needs="$needs $name" ;;
	libllvm* | *perl*) ;;
	lib*) dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || needs="$needs $name" ;;
	esac
done
say "fetching $needs"
# shellcheck disable=SC2086 # a list of words
(cd "$work/deb" && apt get download $needs)
for deb in "$work"/deb/*.deb; do
	dpkg-deb -x "$deb" "$work/all"
done
mv "$work/all/usr/lib"/* "$work/tree/usr/lib/"
mv "$work/all/usr/share/postgresql" "$work/tree/usr/share/"
if [ -d "$work/all/lib" ]; then # where packages still put libraries there
	cp -a "$work/all/lib/." "$work/tree/usr/lib/"
fi

version=$(apt cache show --no-all-versions "$package" | sed -n 's/^Version: //p' | head -n 1)
printf '%s %s\n%s\n' "$package" "$version" "$script" >"$work/tree/version"
chmod -R u+w,go+rX "$work/tree"
rm -rf "$dir"
mv "$work/tree" "$dir"
say "$package $version, $(du -sh "$dir" | cut -f1) in $dir"
