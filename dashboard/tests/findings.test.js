import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

import * as consequences from '../assets/balancer/consequences.js';
import { admits } from '../assets/balancer/filter.js';
import { findings, headline } from '../assets/balancer/findings.js';
import { slotWords } from '../assets/balancer/slotwords.js';
import { ofBackend, ofRouter, ofVip } from '../assets/balancer/standing.js';
import { cause, hindrance, verdict, VERDICT_LABELS } from '../assets/balancer/words.js';
import { World } from './mock/world.js';

/** What is found in a calm world after something has changed in it. */
function found(change) {
  const status = structuredClone(new World({ services: 1, backends: 5, scenario: 'calm' }).status);
  change(status, status.services[0]);
  return findings(status).map(({ tone, text }) => `${tone}: ${text}`);
}

const router = (change) => found(({ vrrp }) => Object.assign(vrrp.routers[0], change));

test('a calm world has no findings', () => {
  assert.deepEqual(
    found(() => {}),
    [],
  );
  assert.deepEqual(headline([]), { tone: 'good', words: 'All is well' });
});

test('the worst comes first, and the sentence is of the worst', () => {
  const all = found((status, service) => {
    service.state = 'down';
    service.backends[0].admin = 'disabled';
    Object.assign(service.backends[1], { health: 'down', reason: 'timed out' });
    status.config.last_error = 'a.toml:3: no port\n  | port';
  });
  assert.deepEqual(all, [
    'error: mqtt has no healthy backend: packets to 172.16.40.24:1883/mqtt are dropped',
    'warning: the last reload was refused, the old configuration is in force: a.toml:3: no port',
    'notice: mqtt/broker1 is disabled: it gets no packets',
  ]);
  const tones = (...list) => headline(list.map((tone) => ({ tone }))).words;
  assert.equal(tones('error', 'warning', 'notice'), '1 failure, 1 warning');
  assert.equal(tones('warning', 'warning'), 'Clients are served, 2 warnings');
  assert.equal(tones('notice'), 'All is well');
});

test('many backends that are down are one finding', () => {
  const all = found((_, { backends }) => {
    for (const it of backends.slice(1)) it.health = 'down';
  });
  assert.deepEqual(all, ['warning: 4 of 5 backends of mqtt are down']);
});

test('what is under way is a notice', () => {
  const backend = (change) => found((_, { backends }) => Object.assign(backends[0], change));
  const draining = { admin: 'draining', drained: false, left: 7, left_exact: true };
  assert.deepEqual(backend(draining), ['notice: mqtt/broker1 drains: 7 sessions left']);
  assert.deepEqual(backend({ ...draining, evacuated: true, left: 1, left_exact: false }), [
    'notice: mqtt/broker1 drains, as its check asks for it: at least 1 session left',
  ]);
  assert.deepEqual(backend({ ...draining, leaving: true }), [
    'notice: mqtt/broker1 leaves: 7 sessions left',
  ]);
  assert.deepEqual(backend({ ...draining, drained: true }), [
    'notice: mqtt/broker1 is drained: no session is left',
  ]);
});

test('backends at their limit, slots and clients are told of', () => {
  const full = { max_connections: 5, sessions: { count: 5, exact: true } };
  const some = found((_, { backends }) => Object.assign(backends[0], full));
  assert.deepEqual(some, ['warning: 1 of 5 backends of mqtt are full']);
  const all = found((_, { backends }) => backends.forEach((it) => Object.assign(it, full)));
  assert.deepEqual(all, ['error: every backend of mqtt is full: new clients are turned away']);
  const slots = found((_, service) =>
    Object.assign(service.slots, { at_risk: 5, learning_seconds: 61, deferred: true }),
  );
  assert.deepEqual(
    slots.map((text) => text.split(':')[0]),
    ['warning', 'notice'],
  );
  const flood = found((_, { guard }) => (guard.is_challenging = true));
  assert.deepEqual(flood, ['warning: mqtt is under attack: new clients are challenged']);
  const asked = found((_, { mqtt }) => (mqtt.longest_keep_alive_seconds = 65_535));
  assert.match(asked[0], /^warning: a client of mqtt asks for a keep-alive of 18 h 12 min/);
});

test('backends that are held point at the link', () => {
  const held = found((_, { backends }) => backends.forEach((it) => (it.held = true)));
  assert.deepEqual(held, [
    "warning: nobody answers, 5 backends kept as they are: look at this host's link",
  ]);
});

test('addresses and routers', () => {
  const vip = (state, lack) => found(({ vips }) => Object.assign(vips[0], { state, lack }));
  assert.deepEqual(vip('absent', null), ['error: VIP 172.16.40.24 should be on eth0, and is not']);
  assert.deepEqual(vip('withdrawn', 'no_backends'), [
    'warning: VIP 172.16.40.24 is withdrawn from eth0: no service of its addresses has a healthy backend',
  ]);
  assert.deepEqual(vip('standby', null), []);
  const peer = { address: '172.16.40.23', priority: 200 };
  assert.deepEqual(router({ role: 'backup', peer }), []);
  assert.match(router({ role: 'backup', peer: null })[0], /^warning: .* hears no Active/);
  assert.match(router({ role: 'backup', peer, held: ['operator'] })[0], /^notice: .* is released/);
  assert.match(router({ faults: ['link_down'] })[0], /^warning: .*: the interface is down$/);
  assert.match(
    router({ lowered_by: ['silent_backends'], priority: 12 })[0],
    /lower priority, 12: no backend answers/,
  );
  assert.match(router({ role: 'initialize' })[0], /^error: virtual router front is stopped/);
});

test('peer, configuration and notices', () => {
  const sending = (change) => found(({ sync }) => Object.assign(sync.sending, change));
  assert.match(
    sending({ in_sync_seconds: null, error: 'timed out' })[0],
    /^warning: .* is not in sync with this node: timed out$/,
  );
  assert.match(sending({ in_sync_seconds: null })[0], /^notice: .* yet$/);
  assert.deepEqual(
    found((status) => (status.sync = null)),
    [],
  );
  assert.match(
    found(({ config }) => (config.last_error = 'line 3'))[0],
    /old configuration is in force: line 3$/,
  );
  assert.deepEqual(
    found((status) => (status.dashboard = null)),
    [],
  );
  const accounts = found(({ dashboard }) => (dashboard.accounts_error = 'line 3'));
  assert.match(accounts[0], /^warning: the accounts of the dashboard .*: line 3$/);
  assert.match(
    found(({ notifiers }) => (notifiers[0].last_error = '404'))[0],
    /^warning: ops could not be notified: 404$/,
  );
});

test('every finding has an id of its own', () => {
  const status = structuredClone(new World({ services: 2, backends: 2 }).status);
  for (const service of status.services) {
    service.state = 'down';
    for (const it of service.backends) it.health = 'down';
  }
  status.vrrp.routers.forEach((it) =>
    Object.assign(it, {
      role: 'backup',
      peer: null,
      faults: ['link_down'],
      held: ['operator'],
      awaits_sync: true,
    }),
  );
  const ids = findings(status).map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length);
});

test('backends stand as tidegate top has them', () => {
  const word = (change) => {
    const backend = structuredClone(
      new World({ services: 1, backends: 1, scenario: 'calm' }).status.services[0].backends[0],
    );
    return ofBackend(Object.assign(backend, { sessions: { count: 4, exact: true } }, change)).word;
  };
  assert.equal(word({}), 'up');
  assert.equal(word({ effective_weight: 0.3 }), 'up 30%');
  assert.equal(word({ held: true }), 'held');
  assert.equal(word({ max_connections: 4 }), 'full');
  assert.equal(word({ max_connections: 5 }), 'up');
  assert.equal(word({ weight: 0, effective_weight: 0 }), 'up');
  assert.equal(word({ health: 'down', admin: 'draining' }), 'down');
  assert.equal(word({ admin: 'draining' }), 'draining');
  assert.equal(word({ admin: 'draining', leaving: true }), 'leaving');
  assert.equal(word({ admin: 'disabled', health: 'down' }), 'disabled');
  assert.equal(ofRouter({ role: 'active', leaving: true }).word, 'leaving');
  assert.equal(ofVip({ state: 'absent' }).tone, 'error');
});

test('orders say what they will do', () => {
  const { services } = new World({ services: 1, backends: 2, scenario: 'calm' }).status;
  const [service] = structuredClone(services);
  const [one, other] = service.backends;
  one.sessions = { count: 1, exact: true };
  assert.deepEqual(consequences.drain(service, one), {
    body: ['It gets no new clients.', 'Its session goes on until it ends by itself.'],
    isHarmful: false,
  });
  one.sessions = { count: 2000, exact: false };
  assert.match(consequences.drain(service, one).body[1], /^Its about 2,000 sessions go on/);
  assert.match(
    consequences.disable(service, one).join(' '),
    /About 2,000 sessions will be cut at once/,
  );
  assert.equal(consequences.share(service, one, 3), 'That is 75.0% of new clients.');
  assert.equal(consequences.share(service, one, 0), 'With 0 it gets no new clients.');
  Object.assign(other, { admin: 'disabled', effective_weight: 0 });
  const last = consequences.drain(service, one);
  assert.ok(last.isHarmful && last.body.at(-1).includes('last that takes new clients of mqtt'));
  assert.match(
    consequences.enable({ health: 'down', weight: 0 }).join(' '),
    /probes fail.*weight is 0/,
  );
});

test('whoever has a peer is reminded of it', () => {
  const { status } = new World({ services: 1, backends: 1, scenario: 'calm' });
  assert.ok(consequences.isPaired(status));
  status.sync = null;
  assert.ok(consequences.isPaired(status));
  status.vrrp.routers = [];
  assert.ok(!consequences.isPaired(status) && !consequences.isPaired(null));
});

test('slots are told of while they are not safe', () => {
  const slots = { safe: 65_532, mixed: 0, at_risk: 0, learning_seconds: 0, deferred: false };
  assert.equal(slotWords(slots), '');
  assert.equal(
    slotWords({ ...slots, at_risk: 5, learning_seconds: 61 }),
    '5 of 65,537 slots learn their sessions for 1 min 1 s more',
  );
});

test('events are filtered by severity, service and words', () => {
  const event = {
    severity: 'warning',
    service: 'mqtt',
    message: 'Broker4 is down',
    kind: 'backend_health',
  };
  const all = { severity: '', service: '', text: '' };
  assert.ok(admits(event, all));
  assert.ok(admits(event, { ...all, severity: 'warning', service: 'mqtt', text: 'broker4' }));
  assert.ok(admits(event, { ...all, text: 'backend_h' }));
  assert.ok(!admits(event, { ...all, severity: 'error' }));
  assert.ok(!admits(event, { ...all, service: 'wss' }));
  assert.ok(!admits(event, { ...all, text: 'broker5' }));
});

test('labels that are not known are shown as they are', () => {
  assert.equal(cause('silence'), 'the Active was not heard any more');
  assert.equal(cause('some_new_cause'), 'some new cause');
  assert.equal(hindrance('constructor'), 'constructor');
});

test('every verdict of the program has its words', async () => {
  const source = await readFile(new URL('../../lb-common/src/verdict.rs', import.meta.url), 'utf8');
  const labels = [...source.matchAll(/= (?:Pass|Drop|Transmit|Redirect), "([a-z_]+)";/g)].map(
    ([, label]) => label,
  );
  assert.ok(labels.length > 30);
  assert.deepEqual([...VERDICT_LABELS].sort(), labels.sort());
  assert.equal(verdict('tx_dsr'), 'to a backend, by MAC address');
});
