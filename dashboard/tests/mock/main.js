// Serves the mock until it is interrupted. See `server.js`.

import { parseArgs } from 'node:util';

import { Mock } from './server.js';

const text = (value) => ({ type: /** @type {const} */ ('string'), default: value });
const { values } = parseArgs({
  options: {
    port: text('8404'),
    scenario: text('trouble'),
    services: text('10'),
    backends: text('10'),
  },
});
const { port, scenario, services, backends } = values;
const mock = new Mock({ scenario, services: Number(services), backends: Number(backends) });
console.log(`${await mock.listen(Number(port))}  olga / tide-in-tide-out  vera / only-looking`);
