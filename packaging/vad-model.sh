#!/bin/sh
# Puts the speech detector's model into a release, where there is one.
# usage: vad-model.sh FILE SHA256 DIR
#
# Without FILE the release is built all the same, and finds speech by loudness
# until somebody runs `whisper-appliance models pull silero`. A FILE that is
# another one is an error.
set -eu
file=$1 digest=$2 dir=$3

rm -rf "$dir"
if [ ! -e "$file" ]; then
	echo "vad-model: there is no $file: the release comes without a speech detector (VAD_MODEL= names one)" >&2
	exit 0
fi
if ! echo "$digest  $file" | sha256sum --check --status; then
	echo "vad-model: $file is not the model whose digest the Makefile names: got $(sha256sum <"$file" | cut -d' ' -f1)" >&2
	exit 1
fi
install -D -m 644 "$file" "$dir/ggml-silero-v6.2.0.bin"
