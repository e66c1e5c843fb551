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
import { parseArgs } from 'node:util';

import { Chromium } from './chromium.js';
import { Mock } from './mock/server.js';

/** Updates that are measured. */
const UPDATES = 8;

const text = (value) => ({ type: /** @type {const} */ ('string'), default: value });
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    operator: text('olga:tide-in-tide-out'),
    viewer: text('vera:only-looking'),
    service: text('mqtt'),
    backend: text('broker3'),
  },
});
const { service, backend } = values;
const SERVICE = `#/services/${encodeURIComponent(service)}`;

/** What a browser says of answers that the page asks for on purpose: whether somebody is logged in. */
const EXPECTED = [/^network: .* 401 \(Unauthorized\) .*\/session$/];

const steps = [
  ['a wrong password is refused in words', refuse],
  ['an operator logs in and sees every service', overview],
  ['the session outlives a reload of the page', reload],
  ['keys reach everything', keyboard],
  ['a drain asks first, shows how far it is, and can be taken back', drain],
  ['the weight dialog tells what will come of it, and bounds it', weight],
  ['every view opens', views],
  ['a phone has no sideways scroll', phone],
  ['the theme can be chosen, and is remembered', theme],
  ['a viewer sees no buttons', viewer],
  ['an update costs', cost],
  ['an update of a hundred backends of one service costs', hundred],
];

function split(account) {
  const at = account.indexOf(':');
  return { name: account.slice(0, at), password: account.slice(at + 1) };
}

async function login(page, url, account) {
  const { name, password } = split(account);
  await page.open(url);
  await page.type('#name', name);
  await page.type('#password', password);
  await page.click('button', 'Log in');
  await page.until(`!!document.querySelector('.health h1')?.textContent`, 'the overview is there');
}

async function refuse({ page, url }) {
  await page.open(url);
  await page.type('#name', split(values.operator).name);
  await page.type('#password', 'wrong');
  await page.click('button', 'Log in');
  await page.until(
    `document.querySelector('.login-message').textContent.length > 5`,
    'there is a message',
  );
  assert.equal(await page.value(`document.querySelector('#password').value`), '');
}

async function overview({ page, url }) {
  await login(page, url, values.operator);
  const rows = await page.until(
    `[...document.querySelectorAll('.column-name a')].map((it) => it.textContent)`,
    'there are services',
  );
  assert.ok(rows.includes(service), `${service} is not among ${rows}`);
  await page.until(
    `/^[\\d.]+[kMG]?$/.test(document.querySelector('td.column-packets').textContent)`,
    'there are rates',
  );
}

async function reload({ page, url }) {
  await page.open(`${url}/`);
  await page.until(
    `!!document.querySelector('.health h1')?.textContent`,
    'the overview is there again',
  );
}

async function keyboard({ page }) {
  await page.value(`location.hash = ''`);
  await page.value(`document.activeElement?.blur()`);
  await page.key('Tab');
  const first = await page.value(`document.activeElement.textContent`);
  assert.equal(first, 'Skip to content');
  const nameless = await page.value(`[...document.querySelectorAll('button, a, input, select')]
    .filter((it) => it.checkVisibility())
    .filter((it) => !it.textContent.trim() && !it.getAttribute('aria-label') && !it.labels?.length)
    .map((it) => it.outerHTML)`);
  assert.deepEqual(nameless, []);
}

const row = (name) => `[...document.querySelectorAll('tbody tr')]
  .find((it) => it.querySelector('.column-name a')?.textContent === ${JSON.stringify(name)})`;

async function drain({ page }) {
  await page.value(`location.hash = ${JSON.stringify(SERVICE)}`);
  await page.click(`button[aria-label="Drain ${backend}"]`);
  await page.until(
    `document.querySelector('dialog')?.textContent.includes('It gets no new clients')`,
  );
  await page.click('dialog button', 'Cancel');
  await page.until(`!document.querySelector('dialog')`, 'the dialog is gone');
  assert.ok(
    !(await page.value(`${row(backend)}.textContent.includes('drain')`)),
    'a cancelled drain is none',
  );
  await page.click(`button[aria-label="Drain ${backend}"]`);
  await page.click('dialog button[type=submit]');
  await page.until(
    `/drain/.test(${row(backend)}.querySelector('.badge').textContent)`,
    'it drains',
    20_000,
  );
  await page.click(`button[aria-label="Enable ${backend}"]`);
  await page.click('dialog button[type=submit]');
  await page.until(
    `!/drain/.test(${row(backend)}.querySelector('.badge').textContent)`,
    'it is enabled',
    20_000,
  );
}

async function weight({ page }) {
  const old = await page.value(`${row(backend)}.querySelector('.column-share small').textContent`);
  await page.click(`button[aria-label="Weight ${backend}"]`);
  await page.type('dialog input[type=number]', '999');
  assert.ok(!(await page.value(`document.querySelector('dialog form').checkValidity()`)));
  await page.type('dialog input[type=number]', '3');
  await page.until(
    `/% of new clients/.test(document.querySelector('dialog output').value)`,
    'it tells the share',
  );
  await page.click('dialog button[type=submit]');
  await page.until(
    `${row(backend)}.querySelector('.column-share small').textContent.endsWith('3')`,
    'it has the weight',
  );
  await page.click(`button[aria-label="Weight ${backend}"]`);
  await page.type('dialog input[type=number]', /\d+$/.exec(old)[0]);
  await page.click('dialog button[type=submit]');
  await page.until(
    `${row(backend)}.querySelector('.column-share small').textContent === ${JSON.stringify(old)}`,
    'it has the old one',
  );
}

async function views({ page }) {
  const places = {
    '#/vrrp': 'VRRP and sync',
    '#/node': 'Node',
    '#/events': 'Events',
    [SERVICE]: service,
  };
  places[`${SERVICE}/${encodeURIComponent(backend)}`] = backend;
  for (const [hash, title] of Object.entries(places)) {
    await page.value(`location.hash = ${JSON.stringify(hash)}`);
    await page.until(
      `document.querySelector('h1')?.textContent === ${JSON.stringify(title)}`,
      `${hash} is there`,
    );
  }
  await page.value(`location.hash = '#/events'`);
  await page.until(`document.querySelectorAll('.events li').length > 0`, 'there are events');
  await page.value(`location.hash = '#/services/nosuch'`);
  await page.until(`document.body.textContent.includes('no service named nosuch')`);
}

async function phone({ browser, url }) {
  const page = await browser.page({ width: 360, height: 780, isTouch: true });
  await login(page, url, values.operator);
  for (const hash of [
    '#/',
    SERVICE,
    `${SERVICE}/${encodeURIComponent(backend)}`,
    '#/vrrp',
    '#/node',
    '#/events',
  ]) {
    await page.value(`location.hash = ${JSON.stringify(hash)}`);
    await page.until(`document.querySelector('h1')?.textContent`);
    const width = await page.value('document.documentElement.scrollWidth');
    assert.ok(width <= 360, `${hash} is ${width} wide`);
  }
  return page;
}

async function theme({ page }) {
  const ground = () => page.value(`getComputedStyle(document.body).backgroundColor`);
  const light = await ground();
  await page.click('button[aria-label="Change to dark colours"]');
  assert.notEqual(await ground(), light);
  await page.value('location.reload()');
  await page.until(`document.documentElement.dataset.theme === 'dark'`);
  await page.click('button[aria-label="Change to light colours"]');
  assert.equal(await ground(), light);
}

async function viewer({ browser, url }) {
  const page = await browser.page();
  await login(page, url, values.viewer);
  await page.value(`location.hash = ${JSON.stringify(SERVICE)}`);
  await page.until(`!!${row(backend)}`, 'there is the backend');
  assert.equal(await page.value(`document.querySelectorAll('.orders').length`), 0);
  await page.value(`location.hash = '#/vrrp'`);
  await page.until(`document.querySelector('h1')?.textContent === 'VRRP and sync'`);
  assert.equal(await page.value(`document.querySelectorAll('.orders').length`), 0);
  await page.click('button[aria-label="Log out"]');
  await page.until(`!!document.querySelector('form.login')`, 'the form is there');
  await page.open(`${url}/`);
  await page.until(`!!document.querySelector('form.login')`, 'the session is over');
  return page;
}

async function lost({ browser, mock, url }) {
  const page = await browser.page();
  await login(page, url, values.operator);
  await page.value(`location.hash = ${JSON.stringify(SERVICE)}`);
  await page.until(`!!${row(backend)}`, 'there is the backend');
  mock.vanish(true);
  await page.until(`document.querySelector('.lost').checkVisibility()`, 'it says so');
  assert.ok(
    await page.value(`document.querySelector('button[aria-label="Drain ${backend}"]').disabled`),
  );
  assert.match(await page.value('document.title'), /^No connection/);
  mock.world.tell('reloaded', 'notice', 'told while nobody listened', { generation: 4 });
  mock.vanish(false);
  await page.until(`!document.querySelector('.lost').checkVisibility()`, 'it is back');
  assert.ok(
    !(await page.value(`document.querySelector('button[aria-label="Drain ${backend}"]').disabled`)),
  );
  await page.value(`location.hash = '#/events'`);
  await page.until(`document.body.textContent.includes('told while nobody listened')`);
  // What the browser says of connections that break is what the test is about.
  return page.complaints.filter((line) => !line.startsWith('network:'));
}

/** Told, and not asserted: it says more of the machine than of the page. */
async function cost({ page }) {
  const told = [];
  for (const hash of ['#/', SERVICE]) told.push(await costOf(page, hash));
  return told.join(', ');
}

async function hundred({ browser }) {
  const mock = new Mock({ services: 1, backends: 100 });
  try {
    const page = await browser.page();
    await login(page, await mock.listen(), 'olga:tide-in-tide-out');
    return await costOf(page, '#/services/mqtt');
  } finally {
    mock.close();
  }
}

async function costOf(page, hash) {
  await page.value(`location.hash = ${JSON.stringify(hash)}`);
  await page.until(`document.querySelectorAll('tbody tr').length > 0`, 'there are rows');
  await page.value(update(2));
  const before = await page.work();
  await page.value(update(UPDATES));
  const millis = ((await page.work()) - before) * 1000;
  const rows = await page.value(`document.querySelectorAll('tbody tr').length`);
  return `${(millis / UPDATES).toFixed(1)} ms at ${hash} (${rows} rows)`;
}

/** Waits for so many changes of what is shown. */
function update(number) {
  return `new Promise((resolve) => {
    let left = ${number};
    const observer = new MutationObserver(() => {
      left -= 1;
      if (left > 0) return;
      observer.disconnect();
      resolve();
    });
    observer.observe(document.querySelector('main'), { subtree: true, childList: true, characterData: true });
  })`;
}

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
  const browser = await Chromium.launch(program);
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
