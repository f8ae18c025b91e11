#!/bin/bash
# make run: starts the appliance in the foreground, has it transcribe the
# reference clip through its own HTTP API, and serves until Ctrl-C. With a
# recording it transcribes that, prints the text to standard output and ends.
# usage: run.sh SLOT MODELS STATE PORT [RECORDING]
set -eu
slot=$(realpath "$1") models=$(realpath "$2") port=$4 recording=${5:-}
mkdir -p "$3"
state=$(realpath "$3")
here=$(dirname "$(realpath "$0")")

export STATE_DIRECTORY=$state
export WHISPER_APPLIANCE_MODELS_DIRECTORY=$models
export WHISPER_APPLIANCE_MODELS_DEFAULT=${WHISPER_APPLIANCE_MODELS_DEFAULT:-tiny}

if [ -n "$recording" ]; then
	[ -r "$recording" ] || { echo "make run: cannot read AUDIO=$recording" >&2; exit 66; }
	# The server that `make run` started elsewhere serves it, or the command by itself.
	exec "$slot/bin/whisper-appliance" transcribe "$recording"
fi

"$slot/bin/whisper-appliance-server" --listen ":$port" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
trap 'exit 0' INT TERM

url=http://127.0.0.1:$port
for _ in $(seq 100); do
	curl -fsS -o /dev/null "$url/livez" 2>/dev/null && break
	kill -0 $server 2>/dev/null || { wait $server; exit $?; } # it has said why
	sleep 0.1
done

clip=$here/testdata/reference.wav
echo "The reference clip, through POST /v1/audio/transcriptions:" >&2
curl -fsS "$url/v1/audio/transcriptions" -F "file=@$clip" -F response_format=text

cat >&2 <<EOF

  page     $url/  and  https://$(hostname):$port/
  OpenAI   $url/v1
  health   $url/health
  API      $url/openapi.json

Ctrl-C stops it.
EOF
wait $server
