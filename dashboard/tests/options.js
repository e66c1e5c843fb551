// What `browser.mjs` is told.

import { parseArgs } from 'node:util';

const text = (value) => ({ type: /** @type {const} */ ('string'), default: value });
export const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    operator: text('olga:tide-in-tide-out'),
    viewer: text('vera:only-looking'),
    service: text('mqtt'),
    backend: text('broker3'),
  },
});

export const SERVICE = `#/services/${encodeURIComponent(values.service)}`;
