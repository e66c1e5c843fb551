// What a person does with the page, and should see.

import assert from 'node:assert/strict';

import { cost, hundred } from './costs.js';
import { login, split } from './login.js';
import { Mock } from './mock/server.js';
import { SERVICE, values } from './options.js';

const { service, backend } = values;

export const steps = [
  ['a wrong password is refused in words', refuse],
  ['an operator logs in and sees every service', overview],
  ['the session outlives a reload of the page', reload],
  ['keys reach everything', keyboard],
  ['a drain asks first, shows how far it is, and can be taken back', drain],
  ['the weight dialog tells what will come of it, and bounds it', weight],
  ['rows are put in order', sort],
  ['every view opens', views],
  ['what a daemon says is text, whatever is in it', markup],
  ['a phone has no sideways scroll', phone],
  ['the theme can be chosen, and is remembered', theme],
  ['a viewer sees no buttons', viewer],
  ['an update costs', cost],
  ['an update of a hundred backends of one service costs', hundred],
];

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
  // While a backend starts slowly, what is in force stands before it: `0.3 of 3`.
  const shown = `/\\d+$/.exec(${row(backend)}.querySelector('.column-share small').textContent)[0]`;
  const set = async (number) => {
    await page.click(`button[aria-label="Weight ${backend}"]`);
    await page.type('dialog input[type=number]', number);
    await page.click('dialog button[type=submit]');
    await page.until(`${shown} === '${number}'`, `the weight is ${number}`);
  };
  const old = await page.value(shown);
  await page.click(`button[aria-label="Weight ${backend}"]`);
  await page.type('dialog input[type=number]', '999');
  assert.ok(!(await page.value(`document.querySelector('dialog form').checkValidity()`)));
  await page.type('dialog input[type=number]', '3');
  const told = `/% of new clients/.test(document.querySelector('dialog output').value)`;
  await page.until(told, 'it tells the share');
  await page.key('Escape');
  await page.until(`!document.querySelector('dialog')`, 'Escape closes it');
  assert.equal(await page.value(shown), old);
  await set('3');
  await set(old);
}

async function sort({ page }) {
  await page.value(`location.hash = ${JSON.stringify(SERVICE)}`);
  const cells = (id) => `[...document.querySelectorAll('tbody .column-${id}')]`;
  const names = `${cells('name')}.map((it) => it.querySelector('a').textContent)`;
  const before = await page.until(`${names}.length > 1 && ${names}`, 'there are backends');
  const least = [...before].sort(new Intl.Collator('en', { numeric: true }).compare);
  await page.click('.column-name .sorter');
  assert.deepEqual(await page.value(names), [...least].reverse());
  assert.equal(await page.value(`document.querySelector('[aria-sort]').ariaSort`), 'descending');
  await page.click('.column-name .sorter');
  assert.deepEqual(await page.value(names), least);
  await page.click('.column-name .sorter');
  assert.deepEqual(await page.value(names), before);
}

async function markup({ browser }) {
  const mock = new Mock({ services: 1, backends: 2 });
  const bad = '<img src=x onerror="document.title=1"><b>bold</b>';
  const page = await browser.page();
  try {
    const { world } = mock;
    const [it] = world.status.services;
    Object.assign(it, { name: bad, vip: bad, balance: bad, tunnel: bad });
    Object.assign(it.backends[0], {
      name: bad,
      address: bad,
      health: 'down',
      reason: bad,
      next_hop: bad,
    });
    Object.assign(world.status.vrrp.routers[0], {
      name: bad,
      group: bad,
      interface: bad,
      faults: [bad],
    });
    Object.assign(world.status.sync.sending, { in_sync_seconds: null, error: bad });
    Object.assign(world.status.config, { path: bad, last_error: bad });
    world.status.verdicts[bad] = 1;
    world.status.notifiers[0].last_error = bad;
    world.tell(bad, 'warning', bad, { service: bad, backend: bad });
    await login(page, await mock.listen(), 'olga:tide-in-tide-out');
    const path = encodeURIComponent(bad);
    for (const hash of [
      '#/',
      `#/services/${path}`,
      `#/services/${path}/${path}`,
      '#/vrrp',
      '#/node',
      '#/events',
    ]) {
      await page.value(`location.hash = ${JSON.stringify(hash)}`);
      await page.until(
        `document.querySelector('main').textContent.includes('<b>bold</b>')`,
        `${hash} says it`,
      );
      const found = await page.value(`document.querySelectorAll('main img, main b').length`);
      assert.equal(found, 0, hash);
    }
    return { complaints: [...page.complaints] };
  } finally {
    await page.close();
    mock.close();
  }
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

export async function lost({ browser, mock, url }) {
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
  const said = await page.value(`document.querySelector('p.unseen[role=alert]').textContent`);
  assert.match(said, /^No connection/);
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
