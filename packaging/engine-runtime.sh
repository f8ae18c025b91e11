#!/bin/sh
# Assembles the engine runtime: whisper.cpp, ggml with its backends, and the C
# and C++ libraries that they were built for, out of Debian's own packages.
# usage: engine-runtime.sh DIR LOCK
#
# DIR gets lib/ (libraries, loader, backends/), include/ and doc/ (copyright
# files), script (the digest of the script that made it). LOCK records what was taken, one line a package: name, version,
# architecture, SHA-256. apt checks the archive's signatures; the digests are
# compared with LOCK on top. When the suite has moved on from LOCK, this warns,
# builds from what the suite has and writes LOCK anew: commit it or not, but
# header and library always come from one and the same version.
set -eu

# apt takes a relative path for one below its own directories.
dir=$(realpath -m "$1") lock=$(realpath -m "$2")
suite=forky
packages='libwhisper1 libwhisper-dev libggml0 libggml-dev libc6 libstdc++6 libgcc-s1 libgomp1'
arch=$(dpkg --print-architecture)
case $arch in
amd64) triplet=x86_64-linux-gnu loader=ld-linux-x86-64.so.2 ;;
*) echo "engine-runtime: there is no engine runtime for $arch yet: only amd64 has a lock, and only it was tried" >&2; exit 1 ;;
esac

say() { echo "engine-runtime: $*" >&2; }

script=$(sha256sum <"$0" | cut -d' ' -f1)
if [ -f "$lock" ] && cmp -s "$lock" "$dir/lock" && [ "$script" = "$(cat "$dir/script" 2>/dev/null)" ]; then
	exit 0 # what is there is what the lock names, and as this script makes it
fi

work=$(mktemp -d "$(dirname "$dir")/engine-runtime.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

mirror=$("$(dirname "$0")/mirror.sh")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ ! -r "$keyring" ]; then
	say "$keyring is missing: apt install debian-archive-keyring"
	exit 1
fi

# A world of its own for apt: nothing of the machine's package state is touched.
# A mirror that lags serves an expired Release file for this suite; the
# signatures are checked all the same.
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/deb" "$work/tree"
: >"$work/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
apt() {
	command="$1"
	shift
	"apt-$command" -q -q \
		-o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
		-o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" \
		-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Acquire::Check-Valid-Until=false -o Acquire::Languages=none \
		-o APT::Sandbox::User="$(id -un)" -o APT::Architecture="$arch" -o Debug::NoLocking=1 "$@"
}
say "reading the package lists of $suite"
apt get update

# The GCC libraries keep their copyright file in a package of their own.
packages="$packages $(apt cache depends libgcc-s1 | sed -n 's/.*Depends: \(gcc-[0-9]*-base\)$/\1/p')"
# shellcheck disable=SC2086 # a list of words
apt cache show --no-all-versions $packages |
	awk -v arch="$arch" '
		/^Package: / { p = $2 } /^Version: / { v = $2 } /^SHA256: / { print p, v, arch, $2 }' >"$work/lock"
for p in $packages; do
	grep -q "^$p " "$work/lock" || { say "$suite has no package $p for $arch"; exit 1; }
done
if [ -f "$lock" ] && ! cmp -s "$lock" "$work/lock"; then
	say "warning: $suite has moved on from $lock:"
	diff "$lock" "$work/lock" | sed -n 's/^[<>]/&/p' >&2 || true
fi

say "fetching $(wc -l <"$work/lock") packages"
# shellcheck disable=SC2046 # a list of words
(cd "$work/deb" && apt get download $(awk '{print $1 "=" $2}' "$work/lock"))
while read -r p version _ digest; do
	file=$(echo "$work/deb/$p"_*.deb)
	if ! echo "$digest  $file" | sha256sum --check --status; then
		say "$p $version does not have the digest that the signed package list names"
		exit 1
	fi
	dpkg-deb -x "$file" "$work/tree"
done <"$work/lock"

# Only what the engine needs.
out="$work/out"
libs="$work/tree/usr/lib/$triplet"
mkdir -p "$out/lib/backends" "$out/include" "$out/doc"
for l in "$loader" libc.so.6 libm.so.6 libmvec.so.1 libstdc++.so.6 libgcc_s.so.1 libgomp.so.1 \
	libwhisper.so.1 libggml.so.0 libggml-base.so.0; do
	[ -e "$libs/$l" ] || { [ $l = libmvec.so.1 ] && continue; say "$l is in none of the packages"; exit 1; }
	cp -L "$libs/$l" "$out/lib/$l"
done
cp -L "$libs"/ggml/backends*/libggml-cpu*.so "$out/lib/backends/"
for l in whisper ggml ggml-base; do # the names the linker looks for
	ln -s "$(cd "$out/lib" && echo lib$l.so.*)" "$out/lib/lib$l.so"
done
cp "$work"/tree/usr/include/whisper.h "$work"/tree/usr/include/ggml*.h "$out/include/"
for p in $packages; do
	# -dev packages link to their library's directory
	if [ -f "$work/tree/usr/share/doc/$p/copyright" ]; then
		cp -L "$work/tree/usr/share/doc/$p/copyright" "$out/doc/$p.copyright"
	fi
done
chmod -R u+w,go+rX "$out"

# Every library that one of these asks for must be among them.
for f in "$out"/lib/*.so.* "$out"/lib/backends/*.so; do
	for need in $(readelf -d "$f" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
		[ -e "$out/lib/$need" ] || { say "$(basename "$f") needs $need, which no package here brings"; exit 1; }
	done
done

echo "$script" >"$out/script"
cp "$work/lock" "$out/lock"
rm -rf "$dir"
mv "$out" "$dir"
cmp -s "$work/lock" "$lock" || cp "$work/lock" "$lock"
say "$(awk '$1 == "libwhisper1" {print "whisper.cpp " $2} $1 == "libggml0" {print "ggml " $2}' "$lock" | paste -sd' ' -), $(du -sh "$dir" | cut -f1) in $dir"
