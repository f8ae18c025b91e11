// A reporter for node --test that prints each skipped test with its reason, and
// adds it to the file that WA_SKIPS names: tests/suite.sh counts them.
import { appendFileSync } from 'node:fs';

export default async function* skips(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' || data.skip === undefined || data.skip === false) continue;
    const line = `tests/conformance ${data.name}: ${data.skip === true || data.skip === '' ? 'no reason given' : data.skip}\n`;
    if (process.env.WA_SKIPS) appendFileSync(process.env.WA_SKIPS, line);
    yield `skipped: ${line}`;
  }
}
