// Reads the subtitle files named as arguments and prints, as JSON, what two
// parsers saw in each: {file: {parser: {cues: [{start, end, text}], errors}}}.
// Times are milliseconds, text is without escapes.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename } from "node:path";
import { parse } from "@plussub/srt-vtt-parser";
import webvtt from "webvtt-parser";

const escapes = { "&amp;": "&", "&lt;": "<", "&gt;": ">" };
const unescape = (text) => text.replace(/&(amp|lt|gt);/g, (e) => escapes[e]);

// This parser leaves escapes alone.
function plussub(source, isVTT) {
  const cues = parse(source).entries.map(({ from, to, text }) => ({
    start: from,
    end: to,
    text: isVTT ? unescape(text) : text,
  }));
  return { cues, errors: [] };
}

// This one is a validator: it names each departure from the standard. Its own
// short list of entities lacks their semicolons; the long one is whole.
const entities = createRequire(import.meta.url)("webvtt-parser/html-entities.json");

function w3c(source) {
  const { cues, errors } = new webvtt.WebVTTParser(entities).parse(source);
  return {
    cues: cues.map(({ startTime, endTime, tree }) => ({
      start: Math.round(startTime * 1000),
      end: Math.round(endTime * 1000),
      text: tree.children.map((n) => (n.type === "text" ? n.value : `<${n.type}>`)).join(""),
    })),
    errors: errors.map(({ line, message }) => `line ${line}: ${message}`),
  };
}

function attempt(parser, ...args) {
  try {
    return parser(...args);
  } catch (e) {
    return { cues: [], errors: [String(e)] };
  }
}

const seen = {};
for (const file of process.argv.slice(2)) {
  const source = readFileSync(file, "utf8");
  const isVTT = file.endsWith(".vtt");
  const parsers = { "npm srt-vtt-parser": attempt(plussub, source, isVTT) };
  if (isVTT) parsers["npm webvtt-parser"] = attempt(w3c, source);
  seen[basename(file)] = parsers;
}
console.log(JSON.stringify(seen));
