#!/bin/bash
# Makes the root file system that the end-to-end machines start from: a small
# Debian with systemd, and with all that the package depends on, so that a test
# needs no network.
# usage: base.sh SUITE [DIR]      DIR is build/e2e/base-SUITE unless it is named
#
# Writes DIR, DIR.shifted (the same for machines without privileges: users
# moved up by 524288), DIR.made and DIR.lock. What is there already, made by the
# same commands, is left as it is. Needs root.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
suite=${1:?usage: base.sh SUITE [DIR]}
dir=${2:-$here/build/e2e/base-$suite}
include=systemd,systemd-sysv,dbus,ffmpeg,ca-certificates,curl,procps
first_user=524288

say() { echo "e2e base: $*" >&2; }
die() {
	say "$*"
	exit 1
}

mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock" # two runs of the tests want it once
flock 9

made=$(sed '/^[[:space:]]*#/d' "$0" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$dir.made" 2>/dev/null)" = "$made" ]; then
	exit 0
fi
[ "$(id -u)" = 0 ] || die "making $dir needs root: run this with sudo"
for need in mmdebstrap systemd-nspawn; do
	command -v $need >/dev/null || die "$need is missing: packaging/setup.sh e2e installs it"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || die "$keyring is missing: apt install debian-archive-keyring"
mirror=$("$here/packaging/mirror.sh")

work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

say "making $suite with $include"
# shellcheck disable=SC2016 # mmdebstrap's shell expands them
mmdebstrap --quiet --mode=root --variant=minbase --include="$include" \
	--aptopt='Acquire::Languages "none"' \
	--customize-hook='chroot "$1" systemctl mask systemd-resolved.service systemd-networkd.service getty.target console-getty.service' \
	--customize-hook='echo appliance >"$1/etc/hostname"; : >"$1/etc/machine-id"' \
	"$suite" "$work/tree" "deb [signed-by=$keyring] $mirror $suite main" >&2
chmod 755 "$work/tree"

# systemd-nspawn moves the owners of a tree that it starts something in.
cp -a "$work/tree" "$work/shifted"
systemd-nspawn --quiet -D "$work/shifted" --register=no --keep-unit --private-network \
	--private-users=$first_user:65536 --private-users-ownership=chown true 2>"$work/said" || die "$(cat "$work/said")"

rm -rf "$dir" "$dir.shifted" "$dir.made"
mv "$work/tree" "$dir"
mv "$work/shifted" "$dir.shifted"
echo "$made" >"$dir.made"
say "$suite: $(du -sh "$dir" | cut -f1) in $dir"
