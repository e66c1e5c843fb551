// Takes the pictures of the README anew, from the mock: node dashboard/tests/pictures.mjs
//
// So that plots are full without ten minutes of waiting, the mock runs fast at first, and the page's
// clock goes on by a second with each status.

import { mkdir, writeFile } from 'node:fs/promises';

import { Chromium } from './chromium.js';
import { Mock } from './mock/server.js';

const IMAGES = new URL('../../docs/images/', import.meta.url);
const LAPTOP = { width: 1280, height: 800 };
const PHONE = { width: 360, height: 780, isTouch: true };

/** Seconds that are shown as past. */
const PAST = 610;

/** Runs in the page before all else. */
const CLOCK = `(() => {
  const real = Date.now.bind(Date);
  const listen = EventSource.prototype.addEventListener;
  let at = real() - ${PAST * 1000};
  let heldSince = null;
  globalThis.goOn = () => (heldSince = real());
  Date.now = () => (heldSince === null ? at : at + real() - heldSince);
  EventSource.prototype.addEventListener = function (kind, listener) {
    const advance = (event) => {
      if (heldSince === null) at += 1000;
      listener(event);
    };
    return listen.call(this, kind, kind === 'status' ? advance : listener);
  };
})()`;

async function picture(browser, name, { isDark, size, hash, before }) {
  const mock = new Mock();
  try {
    const url = await mock.listen();
    const page = await browser.page({ ...size, isDark });
    await page.send('Page.addScriptToEvaluateOnNewDocument', { source: CLOCK });
    await page.open(url);
    await page.type('#name', 'olga');
    await page.type('#password', 'tide-in-tide-out');
    await page.click('button', 'Log in');
    const from = mock.world.seconds;
    mock.run(10);
    while (mock.world.seconds < from + PAST)
      await new Promise((resolve) => setTimeout(resolve, 50));
    mock.run(1000);
    await page.value(`goOn(); location.hash = ${JSON.stringify(hash)}`);
    await before?.(page, mock);
    await page.send('Input.dispatchMouseEvent', { type: 'mouseMoved', x: 1, y: 1 });
    await page.value('scrollTo(0, 0)');
    // The numbers of one more second, at rest.
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    await writeFile(new URL(`${name}.png`, IMAGES), await page.picture());
  } finally {
    mock.close();
  }
}

async function drain(page, mock) {
  await page.click('button[aria-label="Drain broker3"]');
  await page.click('dialog button[type=submit]');
  const backend = mock.world.find('mqtt', 'broker3');
  while (!backend.left_exact) await new Promise((resolve) => setTimeout(resolve, 100));
}

async function drainElsewhere(page, mock) {
  mock.world.order('mqtt', 'broker3', 'drain', 0, true);
}

await mkdir(IMAGES, { recursive: true });
const browser = await Chromium.launch(process.env.CHROMIUM ?? 'chromium');
const pictures = {
  'balancer-overview': { size: LAPTOP, isDark: false, hash: '#/', before: drainElsewhere },
  'balancer-drain': { size: LAPTOP, isDark: true, hash: '#/services/mqtt', before: drain },
  'balancer-phone': { size: PHONE, isDark: false, hash: '#/', before: drainElsewhere },
};
try {
  for (const [name, how] of Object.entries(pictures)) await picture(browser, name, how);
} finally {
  await browser.close();
}
