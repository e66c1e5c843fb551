// The balancer's page in a real browser, against the mock or a daemon:
//
//   node dashboard/tests/browser.mjs
//   node dashboard/tests/browser.mjs http://127.0.0.1:8404 --operator olga:SECRET --viewer vera:SECRET \
//     [--service mqtt --backend broker1]
//
// Logs in, watches a drain, changes a weight, looks on as a viewer, and says what an update costs. Fails
// if the console complains, or the content policy is violated. `CHROMIUM` names the browser if it is not
// `chromium`; without one the test is skipped, and says so.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';

import { Chromium } from './chromium.js';
import { Mock } from './mock/server.js';
import { positionals } from './options.js';
import { lost, steps } from './steps.js';

/** What a browser says of answers that the page asks for on purpose: whether somebody is logged in. */
const EXPECTED = [/^network: .* 401 \(Unauthorized\) .*\/session$/];

function complaints(pages) {
  const all = pages.flatMap(({ complaints: own }) => own);
  return all.filter((line) => !EXPECTED.some((pattern) => pattern.test(line)));
}

async function main() {
  const program = process.env.CHROMIUM ?? 'chromium';
  if (spawnSync(program, ['--version']).status !== 0) {
    console.log(`skipped: there is no ${program} here (apt-get install chromium)`);
    return;
  }
  const [given] = positionals;
  const mock = given ? null : new Mock();
  const url = given?.replace(/\/$/, '') ?? (await mock.listen());
  // A daemon under test has a certificate that nobody has signed.
  const more = url.startsWith('https:') ? ['--ignore-certificate-errors'] : [];
  const browser = await Chromium.launch(program, more);
  try {
    const page = await browser.page();
    const pages = [page];
    for (const [name, step] of steps) {
      const result = await step({ browser, page, mock, url });
      if (typeof result === 'object') pages.push(result);
      console.log(`ok: ${name}${typeof result === 'string' ? ` ${result}` : ''}`);
    }
    assert.deepEqual(complaints(pages), []);
    console.log('ok: the console has nothing to say');
    if (mock === null) {
      console.log('skipped: only the mock can be taken away');
    } else {
      assert.deepEqual(await lost({ browser, mock, url }), []);
      console.log('ok: a lost connection is told, and found again');
    }
  } finally {
    await browser.close();
    mock?.close();
  }
}

await main();
