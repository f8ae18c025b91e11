#!/bin/bash
# Builds the Debian package from a finished slot tree.
# usage: build.sh SLOT ARCH OUTDIR
#
# dpkg-deb is the reference for the format and is on every Debian; two builds of
# one commit are the same, byte for byte (SOURCE_DATE_EPOCH).
set -euo pipefail
slot=$(realpath "$1") arch=$2 out=$3
here=$(cd "$(dirname "$0")/../.." && pwd)
version=$("$slot/bin/whisper-appliance" version --json | sed -n 's/.*"version": *"\([^"]*\)".*/\1/p')
[ -n "$version" ] || { echo "deb: $slot tells no version" >&2; exit 1; }
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
mkdir -p "$out"
tree=$(mktemp -d "$out/.tree.XXXXXX")
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

put() { # put MODE FROM TO
	install -D -m "$1" "$2" "$tree/$3"
}
pages() { # pages DIR: man pages, compressed without their date
	local page
	for page in "$1"/*.[1-8]; do
		put 644 "$page" "usr/share/man/man${page##*.}/$(basename "$page")"
		gzip -9n "$tree/usr/share/man/man${page##*.}/$(basename "$page")"
	done
}
units() {
	local unit
	for unit in "$here"/units/*.{target,socket,service,path,timer,slice}; do
		put 644 "$unit" "usr/lib/systemd/system/$(basename "$unit")"
	done
	for unit in whisper-appliance whisper-appliance-next@ whisper-appliance-housekeeping; do
		put 644 "$here/units/server-sandbox.conf" "usr/lib/systemd/system/$unit.service.d/10-sandbox.conf"
	done
	put 644 "$here/units/sysusers.conf" usr/lib/sysusers.d/whisper-appliance.conf
	put 644 "$here/units/tmpfiles.conf" usr/lib/tmpfiles.d/whisper-appliance.conf
	put 755 "$here/units/gate" usr/lib/whisper-appliance/gate
}
completions() {
	local share=$tree/usr/share
	mkdir -p "$share"/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
	"$slot/bin/whisper-appliance" completion bash >"$share/bash-completion/completions/whisper-appliance"
	"$slot/bin/whisper-appliance" completion zsh >"$share/zsh/vendor-completions/_whisper-appliance"
	"$slot/bin/whisper-appliance" completion fish >"$share/fish/vendor_completions.d/whisper-appliance.fish"
}
changelog() {
	local doc=$tree/usr/share/doc/whisper-appliance
	mkdir -p "$doc"
	{
		printf 'whisper-appliance (%s) unstable; urgency=medium\n\n' "$version"
		sed -n 's/^# /  * /p' "$here"/changelog/unreleased/*.md
		printf '\n -- Whisper appliance team <whisper-appliance@localhost>  %s\n' "$(date -uRd "@$SOURCE_DATE_EPOCH")"
	} | gzip -9n >"$doc/changelog.gz"
	{
		sed -n '/@LICENSE@/q;p' "$here/packaging/deb/copyright"
		echo 'License: Expat'
		sed -n '/^Permission/,$s/^$/./;/^Permission/,$s/^/ /p' "$here/LICENSE"
		sed '1,/@LICENSE@/d' "$here/packaging/deb/copyright"
	} >"$doc/copyright"
}
golden() {
	mkdir -p "$tree/usr/lib/whisper-appliance"
	cp -a "$slot" "$tree/usr/lib/whisper-appliance/golden"
	rm -f "$tree/usr/lib/whisper-appliance/golden/.built"
	chmod -R u=rwX,go=rX "$tree/usr/lib/whisper-appliance/golden"
	"$slot/bin/whisper-appliance" slot seal "$tree/usr/lib/whisper-appliance/golden"
}
control() {
	mkdir "$tree/DEBIAN"
	(cd "$tree" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
	echo /etc/whisper-appliance/config.toml >"$tree/DEBIAN/conffiles"
	sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$(du -sk --apparent-size "$tree" | cut -f1)/" \
		"$here/packaging/deb/control" >"$tree/DEBIAN/control"
	local script
	for script in postinst prerm postrm; do
		install -m 755 "$here/packaging/deb/$script" "$tree/DEBIAN/$script"
	done
}

golden
units
completions
changelog
pages "$here/packaging/man"
[ ! -d "$here/build/man" ] || pages "$here/build/man"
put 755 "$here/packaging/deb/whisper-appliance" usr/bin/whisper-appliance
put 644 "$here/packaging/deb/config.toml" etc/whisper-appliance/config.toml
put 644 "$here/packaging/deb/lintian-overrides" usr/share/lintian/overrides/whisper-appliance
find "$tree" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
control
rm -f "$out"/whisper-appliance_*_"$arch".deb
dpkg-deb --root-owner-group -Zxz -z6 --build "$tree" "$out/whisper-appliance_${version}_$arch.deb" >&2
echo "$out/whisper-appliance_${version}_$arch.deb"
