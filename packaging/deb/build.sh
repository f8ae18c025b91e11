#!/bin/bash
# Builds the Debian package from a finished slot tree and from what stays outside
# the slots: PACKAGE holds the programs whisper-appliance-updater and -fetch, and
# trust/ with root.json, the root of trust, and source, where releases come from.
# usage: build.sh SLOT ARCH OUTDIR [PACKAGE]      PACKAGE is build/package else
#
# dpkg-deb is the reference for the format and is on every Debian; two builds of
# one commit are the same, byte for byte (SOURCE_DATE_EPOCH).
set -euo pipefail
slot=$(realpath "$1") arch=$2 out=$3
here=$(cd "$(dirname "$0")/../.." && pwd)
package=$(realpath "${4:-$here/build/package}")
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
sandbox() { # sandbox NAME UNIT…: the drop-in that services share
	local name=$1 unit
	shift
	for unit in "$@"; do
		put 644 "$here/units/$name-sandbox.conf" "usr/lib/systemd/system/$unit.service.d/10-sandbox.conf"
	done
}
units() {
	local unit
	for unit in "$here"/units/whisper*.{target,socket,service,path,timer,slice}; do
		put 644 "$unit" "usr/lib/systemd/system/$(basename "$unit")"
	done
	sandbox server whisper-appliance whisper-appliance-next@ whisper-appliance-preflight@ whisper-appliance-housekeeping
	sandbox updater whisper-appliance-updater whisper-appliance-recover whisper-appliance-update whisper-appliance-scrub
	put 644 "$here/units/preflight.conf" usr/lib/systemd/system/whisper-appliance-preflight@.service.d/20-preflight.conf
	put 644 "$here/units/sysusers.conf" usr/lib/sysusers.d/whisper-appliance.conf
	put 644 "$here/units/tmpfiles.conf" usr/lib/tmpfiles.d/whisper-appliance.conf
	put 755 "$here/units/gate" usr/lib/whisper-appliance/gate
	put 644 "$here/units/org.whisperappliance.Updater1.conf" usr/share/dbus-1/system.d/org.whisperappliance.Updater1.conf
	put 644 "$here/units/org.whisperappliance.Updater1.service" usr/share/dbus-1/system-services/org.whisperappliance.Updater1.service
}
outside() { # what no slot brings: the programs that change slots, and whom they trust
	local program lib=usr/lib/whisper-appliance
	for program in whisper-appliance-updater whisper-appliance-fetch; do
		put 755 "$package/$program" "$lib/$program"
	done
	put 644 "$package/trust/root.json" "$lib/trust/root.json"
	[ ! -e "$package/trust/source" ] || put 644 "$package/trust/source" "$lib/trust/source"
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
	for script in preinst postinst prerm postrm; do
		install -m 755 "$here/packaging/deb/$script" "$tree/DEBIAN/$script"
	done
}

golden
outside
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
