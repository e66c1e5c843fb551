// What an update of the page costs.

import { login } from './login.js';
import { Mock } from './mock/server.js';
import { SERVICE } from './options.js';

/** Updates that are measured. */
const UPDATES = 8;

/** Told, and not asserted: it says more of the machine than of the page. */
export async function cost({ page }) {
  const told = [];
  for (const hash of ['#/', SERVICE]) told.push(await costOf(page, hash));
  return told.join(', ');
}

export async function hundred({ browser }) {
  const mock = new Mock({ services: 1, backends: 100 });
  const page = await browser.page();
  try {
    await login(page, await mock.listen(), 'olga:tide-in-tide-out');
    return await costOf(page, '#/services/mqtt');
  } finally {
    await page.close();
    mock.close();
  }
}

async function costOf(page, hash) {
  await page.value(`location.hash = ${JSON.stringify(hash)}`);
  await page.until(`document.querySelectorAll('tbody tr').length > 0`, 'there are rows');
  await page.value(update(2));
  const each = [];
  while (each.length < UPDATES) {
    const before = await page.work();
    await page.value(update(1));
    each.push(((await page.work()) - before) * 1000);
  }
  // Whatever else the machine does is in some of them.
  const median = each.sort((a, b) => a - b)[UPDATES / 2];
  const rows = await page.value(`document.querySelectorAll('tbody tr').length`);
  return `${median.toFixed(1)} ms at ${hash} (${rows} rows)`;
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
