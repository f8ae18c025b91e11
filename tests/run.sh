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
url=http://127.0.0.1:$port

# The sockets are in the state directory, unless its path is too long for one:
# an address holds 107 bytes, and the longest name in there is engine.sock.
run=$state/run
if [ "$(printf %s "$run/engine.sock" | wc -c)" -gt 107 ]; then
	run=${TMPDIR:-/tmp}/whisper-appliance-$(id -u)-$(printf %s "$state" | cksum | cut -d' ' -f1)
fi
# alive asks our own door: the port may be another appliance's.
alive() { curl -fsS -o /dev/null --unix-socket "$run/api.sock" http://localhost/livez 2>/dev/null; }

export STATE_DIRECTORY=$state RUNTIME_DIRECTORY=$run
export WHISPER_APPLIANCE_MODELS_DIRECTORY=$models
export WHISPER_APPLIANCE_MODELS_DEFAULT=${WHISPER_APPLIANCE_MODELS_DEFAULT:-tiny}

if [ -n "$recording" ]; then
	[ -r "$recording" ] || { echo "make run: cannot read AUDIO=$recording" >&2; exit 66; }
	# The server that `make run` started elsewhere serves it, or the command by itself.
	exec "$slot/bin/whisper-appliance" transcribe "$recording"
fi

if alive; then
	echo "make run: an appliance runs with STATE=$state already: stop it, or choose another STATE= and PORT=" >&2
	exit 75
fi
"$slot/bin/whisper-appliance-server" --listen ":$port" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rmdir "$run" 2>/dev/null || true' EXIT
trap 'exit 0' INT TERM

serves=
for _ in $(seq 100); do
	kill -0 $server 2>/dev/null || { wait $server; exit $?; } # it has said why
	if alive; then
		serves=yes
		break
	fi
	sleep 0.1
done
if [ -z "$serves" ]; then
	echo "make run: the server does not answer on $run/api.sock after 10 s" >&2
	exit 69
fi
kill -0 $server 2>/dev/null || { wait $server; exit $?; }

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
