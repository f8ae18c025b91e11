"""Reads the subtitle files named as arguments and prints, as JSON, what
Debian's parsers saw in each: {file: {parser: {cues: [{start, end, text}],
errors}}}. Times are milliseconds, text is without escapes."""

import datetime
import html
import json
import os
import sys

import srt
import webvtt


def milliseconds(clock):
    hours, minutes, seconds = clock.split(":")
    whole, fraction = seconds.split(".")
    return ((int(hours) * 60 + int(minutes)) * 60 + int(whole)) * 1000 + int(fraction)


def read_vtt(path):
    return [
        {"start": milliseconds(c.start), "end": milliseconds(c.end), "text": html.unescape(c.text)}
        for c in webvtt.read(path)
    ]


def read_srt(path):
    with open(path, encoding="utf-8", newline="") as f:
        cues = list(srt.parse(f.read()))
    if [c.index for c in cues] != list(range(1, len(cues) + 1)):
        raise ValueError("cues are not numbered from 1")
    step = datetime.timedelta(milliseconds=1)
    return [{"start": c.start // step, "end": c.end // step, "text": c.content} for c in cues]


def attempt(reader, path):
    try:
        return {"cues": reader(path), "errors": []}
    except Exception as e:  # any failure of a parser is the result
        return {"cues": [], "errors": [f"{type(e).__name__}: {e}"]}


seen = {}
for name in sys.argv[1:]:
    if name.endswith(".vtt"):
        parsers = {"python3-webvtt": attempt(read_vtt, name)}
    else:
        parsers = {"python3-srt": attempt(read_srt, name)}
    seen[os.path.basename(name)] = parsers
print(json.dumps(seen))
