// The openai package from npm, unmodified, against a running appliance.
// doc.go says what the environment must hold.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import OpenAI, { toFile } from 'openai';

for (const name of ['WA_URL', 'WA_KEY']) {
  if (!process.env[name]) {
    console.error(`${name} is not set; run this by: make conformance`);
    process.exit(1);
  }
}

const here = dirname(fileURLToPath(import.meta.url));
const baseURL = process.env.WA_URL.replace(/\/$/, '') + '/v1';
const client = connect(process.env.WA_KEY);
const scratch = mkdtempSync(join(tmpdir(), 'conformance-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

const reference = {
  path: join(here, '..', 'testdata', 'reference.wav'),
  text: normalise(readFileSync(join(here, '..', 'testdata', 'reference.txt'), 'utf8')),
};
const german = shared('de_thorsten_03.wav', 'Europa und Asien zusammengenommen wird auch als Eurasien bezeichnet.');
const jfk = shared(
  'en_jfk.wav',
  'And so my fellow Americans ask not what your country can do for you ask what you can do for your country',
);

function connect(apiKey) {
  return new OpenAI({ baseURL, apiKey, maxRetries: 0 });
}

// shared finds a clip of the collection beside the checkout, where it is.
function shared(name, text) {
  for (let dir = here; dirname(dir) !== dir; dir = dirname(dir)) {
    const path = join(dirname(dir), 'shared', 'speech', name);
    if (existsSync(path)) return { path, text: normalise(text) };
  }
  return undefined;
}

// normalise leaves the words: lower case, without punctuation.
function normalise(s) {
  return s
    .toLowerCase()
    .replace(/['’]/g, '')
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim();
}

function upload(clip) {
  return toFile(readFileSync(clip.path), basename(clip.path));
}

// as gives the clip in another container.
function as(clip, extension) {
  const path = join(scratch, `clip.${extension}`);
  execFileSync('ffmpeg', ['-v', 'error', '-y', '-i', clip.path, path]);
  return { path, text: clip.text };
}

async function transcribe(options, clip = reference) {
  return client.audio.transcriptions.create({ file: await upload(clip), model: 'whisper-1', ...options });
}

function assertSaid(text, clip = reference) {
  assert.equal(normalise(text), clip.text);
}

// assertMostly is for settings that make the text vary: half the words.
function assertMostly(text, clip = reference) {
  const heard = new Set(normalise(text).split(' '));
  const words = clip.text.split(' ');
  const hits = words.filter((w) => heard.has(w)).length;
  assert.ok(hits * 2 >= words.length, `understood "${text}", want most of "${clip.text}"`);
}

// assertRefused checks the class, status, param and code of an error. An array's param may end in [].
async function assertRefused(promise, kind, status, { param, code } = {}) {
  const error = await promise.then(
    (answer) => assert.fail(`no error but ${JSON.stringify(answer)}`),
    (e) => e,
  );
  assert.ok(error instanceof kind, `${error?.constructor?.name}: ${error}`);
  assert.equal(error.status, status);
  assert.ok(error.error?.message, 'the error has no message');
  assert.ok(error.type, 'the error has no type');
  if (param) assert.equal(error.param?.replace(/\[\]$/, ''), param, error.message);
  if (code) assert.equal(error.code, code, error.message);
}

const { AuthenticationError, BadRequestError, NotFoundError } = OpenAI;

describe('formats', () => {
  test('json', async () => {
    const answer = await transcribe({ response_format: 'json' });
    assertSaid(answer.text);
    assert.equal(answer.text, answer.text.trim());
    if (answer.usage) {
      assert.equal(answer.usage.type, 'duration');
      assert.ok(answer.usage.seconds > 0);
    }
  });

  test('json is the default', async () => assertSaid((await transcribe({})).text));

  test('text is the text of json and a line feed', async () => {
    const json = await transcribe({ response_format: 'json' });
    assert.equal(await transcribe({ response_format: 'text' }), json.text + '\n');
  });

  test('srt', async () => {
    const answer = await transcribe({ response_format: 'srt' });
    const cues = answer.trim().split('\n\n');
    const lines = cues.flatMap((cue, i) => {
      const [number, times, ...text] = cue.split('\n');
      assert.equal(number, String(i + 1));
      assert.match(times, /^\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}$/);
      return text;
    });
    assertSaid(lines.join(' '));
  });

  test('vtt', async () => {
    const answer = await transcribe({ response_format: 'vtt' });
    const [head, ...cues] = answer.trim().split('\n\n');
    assert.equal(head, 'WEBVTT');
    const lines = cues.flatMap((cue) => {
      const [times, ...text] = cue.split('\n');
      assert.match(times, /^(\d{2,}:)?\d\d:\d\d\.\d{3} --> (\d{2,}:)?\d\d:\d\d\.\d{3}$/);
      return text;
    });
    assertSaid(lines.join(' '));
  });

  test('verbose_json has segments', async () => {
    const answer = await transcribe({ response_format: 'verbose_json' });
    assertSaid(answer.text);
    assert.equal(answer.language, 'english');
    assert.equal(typeof answer.duration, 'number');
    assert.ok(answer.duration > 0.5);
    assert.equal(answer.words, undefined);
    assert.ok(answer.segments.length > 0);
    answer.segments.forEach((s, i) => {
      assert.equal(s.id, i);
      for (const key of ['seek', 'start', 'end', 'temperature', 'avg_logprob', 'compression_ratio', 'no_speech_prob'])
        assert.equal(typeof s[key], 'number', key);
      assert.ok(s.start <= s.end && s.end <= answer.duration + 0.5);
      assert.ok(s.tokens.length > 0 && s.tokens.every(Number.isInteger));
    });
    assert.equal(answer.segments.map((s) => s.text).join('').trim(), answer.text);
  });

  test('verbose_json has words when asked', async () => {
    const answer = await transcribe({ response_format: 'verbose_json', timestamp_granularities: ['word'] });
    assertSaid(answer.words.map((w) => w.word).join(' '));
    let last = 0;
    for (const w of answer.words) {
      assert.ok(w.start >= last - 0.01 && w.end >= w.start && w.end <= answer.duration + 0.5, JSON.stringify(w));
      last = w.start;
    }
    assert.equal(answer.segments, undefined);
  });

  test('verbose_json has words and segments when both are asked', async () => {
    const answer = await transcribe({ response_format: 'verbose_json', timestamp_granularities: ['word', 'segment'] });
    assert.ok(answer.words.length > 0 && answer.segments.length > 0);
  });

  test('an unknown format is refused', async () => {
    for (const response_format of ['yaml', 'diarized_json'])
      await assertRefused(transcribe({ response_format }), BadRequestError, 400, { param: 'response_format' });
  });
});

describe('options', () => {
  test('language', async () => {
    const answer = await transcribe({ response_format: 'verbose_json', language: 'en' });
    assertSaid(answer.text);
    assert.equal(answer.language, 'english');
  });

  test('an unknown language is refused', async () => {
    await assertRefused(transcribe({ language: 'xx' }), BadRequestError, 400, { param: 'language' });
  });

  test('language is detected', { skip: !german && '../shared/speech is not beside this checkout' }, async () => {
    const answer = await transcribe({ response_format: 'verbose_json' }, german);
    assertMostly(answer.text, german);
    assert.equal(answer.language, 'german');
  });

  test('prompt', async () => assertMostly((await transcribe({ prompt: 'A clear sentence in English, with punctuation.' })).text));

  for (const temperature of [0, 0.4])
    test(`temperature ${temperature}`, async () => assertMostly((await transcribe({ temperature })).text));

  for (const temperature of [1.5, -0.1])
    test(`temperature ${temperature} is refused`, async () => {
      await assertRefused(transcribe({ temperature }), BadRequestError, 400, { param: 'temperature' });
    });

  test('include logprobs', async () => {
    const answer = await transcribe({ model: 'gpt-4o-transcribe', response_format: 'json', include: ['logprobs'] });
    assert.ok(answer.logprobs.length > 0);
    for (const l of answer.logprobs) assert.ok(l.logprob <= 0 && typeof l.token === 'string' && Array.isArray(l.bytes));
    const said = Buffer.from(answer.logprobs.flatMap((l) => l.bytes)).toString();
    assert.equal(said.trim(), answer.text);
  });

  test('chunking_strategy auto', async () => assertSaid((await transcribe({ chunking_strategy: 'auto' })).text));

  test('what cannot be honoured is refused by name', async () => {
    for (const [param, options] of Object.entries({
      include: { include: ['waveform'] },
      keywords: { keywords: ['a'] },
      languages: { languages: ['en', 'de'] },
      known_speaker_names: { known_speaker_names: ['a'] },
    }))
      await assertRefused(transcribe(options), BadRequestError, 400, { param });
    const detection = { chunking_strategy: { type: 'server_vad', threshold: 0.4 } };
    const error = await transcribe(detection).catch((e) => e);
    assert.ok(error instanceof BadRequestError, `${error}`);
    assert.match(error.param, /^chunking_strategy/);
  });
});

describe('translation', () => {
  const clip = german ?? reference;
  const english = german ? /euro|asia|eurasi/i : /\w/;
  const translate = async (options) =>
    client.audio.translations.create({ file: await upload(clip), model: 'whisper-1', ...options });

  test('json', async () => {
    const answer = await translate({});
    assert.match(answer.text, english);
    assert.doesNotMatch(answer.text, /\bund\b/i);
  });

  test('text', async () => {
    const answer = await translate({ response_format: 'text' });
    assert.match(answer, english);
    assert.doesNotMatch(answer, /^\{/);
  });

  test('verbose_json', async () => {
    const answer = await translate({ response_format: 'verbose_json' });
    assert.match(answer.text, english);
    assert.ok(answer.segments.length > 0 && answer.duration > 0 && answer.language);
  });
});

describe('streaming', () => {
  test('deltas add up to the text of done', async () => {
    let joined = '';
    let done;
    for await (const event of await transcribe({ stream: true })) {
      assert.equal(done, undefined, 'an event after done');
      if (event.type === 'transcript.text.delta') joined += event.delta;
      else if (event.type === 'transcript.text.done') done = event.text;
      else assert.fail(`event ${event.type}`);
    }
    assertSaid(done);
    assert.equal(joined, done);
  });

  test('it can be left in the middle', async () => {
    for await (const event of await transcribe({ stream: true })) {
      assert.ok(event.type);
      break;
    }
    assertSaid((await transcribe({})).text);
  });

  test('a bad file is an error with its status', async () => {
    const file = await toFile(Buffer.from('this is no sound'), 'speech.mp3');
    await assertRefused(transcribe({ stream: true, file }), BadRequestError, 400, { param: 'file' });
  });
});

describe('models', () => {
  test('list', async () => {
    const ids = [];
    for await (const model of client.models.list()) {
      assert.equal(model.object, 'model');
      assert.ok(model.owned_by);
      assert.ok(Number.isInteger(model.created));
      ids.push(model.id);
    }
    for (const id of ['tiny', 'whisper-1']) assert.ok(ids.includes(id), `${ids} lacks ${id}`);
  });

  test('get', async () => {
    for (const id of ['tiny', 'whisper-1']) {
      const model = await client.models.retrieve(id);
      assert.equal(model.id, id);
      assert.ok(model.owned_by);
    }
  });

  test('an unknown one', async () => {
    const want = { param: 'model', code: 'model_not_found' };
    await assertRefused(client.models.retrieve('no-such-model'), NotFoundError, 404, want);
    await assertRefused(transcribe({ model: 'no-such-model' }), NotFoundError, 404, want);
  });

  for (const model of ['tiny', 'gpt-transcribe', 'gpt-4o-transcribe', 'gpt-4o-mini-transcribe'])
    test(`${model} transcribes`, async () => assertSaid((await transcribe({ model })).text));
});

describe('keys', () => {
  test('a wrong one', async () => {
    const stranger = connect('sk-this-is-not-a-key');
    const want = { code: 'invalid_api_key' };
    await assertRefused(stranger.models.list(), AuthenticationError, 401, want);
    const file = await upload(reference);
    const request = stranger.audio.transcriptions.create({ file, model: 'whisper-1' });
    await assertRefused(request, AuthenticationError, 401, want);
  });
});

describe('files', () => {
  for (const extension of ['mp3', 'm4a', 'webm', 'flac', 'ogg'])
    test(extension, async () => assertMostly((await transcribe({}, as(reference, extension))).text));

  test('eleven seconds of Kennedy', { skip: !jfk && '../shared/speech is not beside this checkout' }, async () =>
    assertSaid((await transcribe({}, jfk)).text, jfk));

  test('no sound in it', async () => {
    const path = join(scratch, 'speech.mp3');
    writeFileSync(path, 'this is a text and no sound\n'.repeat(200));
    await assertRefused(transcribe({}, { path }), BadRequestError, 400, { param: 'file' });
  });

  test('nothing in it', async () => {
    const file = await toFile(Buffer.alloc(0), 'empty.wav');
    await assertRefused(transcribe({ file }), BadRequestError, 400, { param: 'file' });
  });

  test('none', async () => {
    const request = client.audio.transcriptions.create({ model: 'whisper-1' });
    await assertRefused(request, BadRequestError, 400, { param: 'file' });
  });
});
