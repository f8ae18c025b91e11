// One transcription by the openai package from npm, unmodified and set up as
// anybody would, its two retries included. doc.go says what the environment holds.
// usage: node --import ./file-global.mjs long.mjs RECORDING MODEL FORMAT [PATIENCE]
//
// PATIENCE is for how many seconds the client waits for the next byte, be it of the
// header or of the body, before it gives an attempt up; left out: what Node.js does,
// which is 300. The outcome is a line of JSON: requests, how many were sent, and
// text, as the package gives it, or error.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import OpenAI, { toFile } from 'openai';

const [recording, model, response_format, patience] = process.argv.slice(2);
let requests = 0;

// counted is the fetch of Node.js, and counts; the package asks it for an address of
// its own, too, to see what it can do.
function counted(url, init) {
  if (!String(url).startsWith(process.env.WA_URL)) return fetch(url, init);
  requests += 1;
  return patience ? impatient(url, init) : fetch(url, init);
}

// impatient is fetch with another limit than that of Node.js, which cannot be set
// from outside.
async function impatient(url, init) {
  const limit = new AbortController();
  let timer;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => limit.abort(new Error(`no byte for ${patience} s`)), patience * 1000);
  };
  init.signal?.addEventListener('abort', () => limit.abort(init.signal.reason));
  wait();
  const response = await fetch(url, { ...init, signal: limit.signal });
  wait();
  const watch = new TransformStream({
    transform(chunk, out) {
      wait();
      out.enqueue(chunk);
    },
    flush: () => clearTimeout(timer),
  });
  return new Response(response.body.pipeThrough(watch), response);
}

const client = new OpenAI({ baseURL: process.env.WA_URL + '/v1', apiKey: process.env.WA_KEY, fetch: counted });
const outcome = {};
try {
  const file = await toFile(readFileSync(recording), basename(recording));
  const answer = await client.audio.transcriptions.create({ file, model, response_format, language: 'en' });
  outcome.text = answer.text ?? answer;
} catch (error) {
  outcome.error = `${error.constructor.name}: ${error.message}: ${error.cause ?? ''}`;
}
console.log(JSON.stringify({ requests, ...outcome }));
process.exit(0);
