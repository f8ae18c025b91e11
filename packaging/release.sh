#!/bin/bash
# Publishes a finished slot tree and makes the one file of it.
# usage: release.sh SLOT OUTDIR KEYS VERSION CHANNEL COMMIT
#
# The tree is copied, for what is sealed is not built over. Two runs for one
# commit give the same artefact, byte for byte.
set -euo pipefail
slot=$1 out=$2 keys=$3 version=$4 channel=$5 commit=$6
tool() { go run ./cmd/whisper-appliance-release "$@"; }
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
tool bundle "$version" --repository "$out/repository" --root "$keys/root.json" --out "$out"
tool verify "$out/repository" --root "$keys/root.json"
