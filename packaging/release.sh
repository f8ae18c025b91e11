#!/bin/bash
# Publishes a finished slot tree and makes the one file of it.
# usage: release.sh SLOT OUTDIR KEYS ROOT VERSION CHANNEL COMMIT     (ROOT: the root of trust that packages carry)
#
# The tree is copied, for what is sealed is not built over. Two runs for one
# commit give the same artefact, byte for byte.
set -euo pipefail
slot=$1 out=$2 keys=$3 root=$4 version=$5 channel=$6 commit=$7
tool() { go run ./cmd/whisper-appliance-release "$@"; }
# What is signed for others is what its tag says.
case $version in
*+dev) ;;
*) [ "$(git describe --tags --exact-match HEAD 2>/dev/null)" = "v$version" ] || {
	echo "release: version $version is no tag of this commit: git tag v$version, or build without TRUST_ROOT" >&2
	exit 1
} ;;
esac
mkdir -p "$out"
tree=$(mktemp -d "$out/.tree.XXXXXX")
trap 'rm -rf "$tree"' EXIT
cp -a "$slot/." "$tree"
rm -f "$tree/.built"
chmod -R u=rwX,go=rX "$tree"
tool build "$tree" --version "$version" --commit "$commit" --out "$out"
arch=$(go env GOARCH)
tool publish "$out/whisper-appliance_${version}_$arch.tar.zst" --replace \
	--repository "$out/repository" --keys "$keys" --channel "$channel"
tool verify "$out/repository" --root "$root"
tool bundle "$version" --repository "$out/repository" --root "$root" --out "$out"
rm -f "$out/whisper-appliance_${version}_$arch.tar.zst"
