import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Drain, inWords as drainWords } from '../assets/balancer/drain.js';
import { Journal } from '../assets/common/journal.js';
import { Model, TOTAL } from '../assets/balancer/model.js';
import { between } from '../assets/balancer/rates.js';
import { CELL_SECONDS, CELLS, inWords, runsOf, Strip } from '../assets/balancer/strip.js';
import { World } from './mock/world.js';

const status = () =>
  structuredClone(new World({ services: 2, backends: 2, scenario: 'calm' }).status);
const plain = (number) => String(Math.round(number));

test('rates are differences over time', () => {
  const [earlier, now] = [status(), status()];
  const [service] = now.services;
  service.packets += 200;
  service.bytes += 1000;
  service.dropped += 4;
  service.backends[0].resets += 1;
  now.verdicts.drop_denied += 4;
  now.verdicts.drop_challenge_answered = 100;
  const { rows, total, verdicts } = between(earlier, now, 2);
  assert.equal(rows.get('mqtt').packets, 100);
  assert.equal(rows.get('mqtt').bits, 4000);
  assert.equal(rows.get('mqtt').drops, 2);
  assert.equal(rows.get('mqtt/broker1').resets, 0.5);
  assert.equal(verdicts.get('drop_challenge_answered'), 50);
  assert.equal(total.drops, 2, 'answers to challenges are no drops');
});

test('a daemon that was started anew counts as still, and what is new starts when it is seen', () => {
  const [earlier, now] = [status(), status()];
  now.services[0].packets = 1;
  now.services[1].name = 'renamed';
  const { rows } = between(earlier, now, 1);
  assert.equal(rows.get('mqtt').packets, 0);
  assert.equal(rows.get('renamed').packets, 0);
  assert.equal(between(earlier, now, 0).total.packets, 0);
});

test('a burst after a sleep makes no rates of its own', () => {
  const model = new Model();
  const first = status();
  model.takeStatus(first, 999_000);
  model.takeStatus(first, 1_000_000);
  const later = (packets, at) => {
    const next = structuredClone(first);
    next.services[0].packets += packets;
    model.takeStatus(next, at);
  };
  later(100, 1_001_000);
  assert.equal(model.rates.total.packets, 100);
  later(200, 1_001_001);
  assert.equal(model.rates.total.packets, 100);
  later(300, 1_002_000);
  assert.ok(Math.abs(model.rates.total.packets - 200) < 1, 'over all of the time since');
});

test('the first status of a stream may be old, and makes no rates', () => {
  const model = new Model();
  const first = status();
  const later = (packets, at) => {
    const next = structuredClone(first);
    next.services[0].packets += packets;
    model.takeStatus(next, at);
    return model.history(TOTAL).packets.at(Math.floor(at / 1000));
  };
  assert.ok(Number.isNaN(later(0, 1_000_000)));
  assert.ok(
    Number.isNaN(later(5000, 1_000_500)),
    'the one before was late by nobody knows how much',
  );
  assert.equal(later(5100, 1_001_500), 100);
  model.handleStream();
  assert.ok(Number.isNaN(later(90_000, 1_020_000)));
  assert.ok(Number.isNaN(later(90_100, 1_021_000)));
  assert.equal(later(90_200, 1_022_000), 100);
});

test('a clock that is set back begins a new history', () => {
  const model = new Model();
  const first = status();
  for (const at of [1_000_000, 1_001_000, 1_002_000, 500_000, 501_000]) model.takeStatus(first, at);
  assert.equal(model.rates.total.packets, 0);
  assert.equal(model.history(TOTAL).packets.at(501), 0, 'rates go on at once');
  assert.ok(Number.isNaN(model.history(TOTAL).packets.at(1001)));
});

test('a node is known by what it speaks to its peers from', () => {
  const model = new Model();
  assert.equal(model.address, '');
  const it = status();
  model.takeStatus(it, 1_000_000);
  assert.equal(model.address, '172.16.40.22');
  it.vrrp.routers = [];
  it.sync.listen = '[fd00:40::22]:9464';
  assert.equal(model.address, '[fd00:40::22]');
  it.sync = null;
  assert.equal(model.address, '');
});

test('the model forgets who is gone', () => {
  const model = new Model();
  const first = status();
  model.takeStatus(first, 1_000_000);
  assert.ok(model.histories.has('mqtt/broker2') && model.strips.has('mqtt/broker2'));
  const next = structuredClone(first);
  next.services[0].backends.pop();
  model.takeStatus(next, 1_001_000);
  assert.ok(!model.histories.has('mqtt/broker2') && !model.strips.has('mqtt/broker2'));
  assert.ok(model.histories.has(TOTAL));
});

test('findings begin when events say so, otherwise when they were first seen', () => {
  const model = new Model();
  const it = status();
  Object.assign(it.services[0].backends[0], { health: 'down', reason: 'refused' });
  const time = new Date(500_000).toISOString();
  const event = {
    seq: 1,
    time,
    kind: 'backend_health',
    severity: 'warning',
    message: '',
    service: 'mqtt',
    backend: 'broker1',
    to: 'down',
  };
  const news = model.takeStatus(it, 1_000_000);
  const [{ id }] = news;
  assert.deepEqual(model.beginnings.of(id), { at: 1_000_000, isAtLeast: true });
  model.takeEvents([
    { ...event, seq: 2, to: 'up' },
    { ...event, seq: 3, backend: 'broker2' },
  ]);
  assert.ok(model.beginnings.of(id).isAtLeast, 'those are about something else');
  model.takeEvents([event]);
  assert.deepEqual(model.beginnings.of(id), { at: 500_000, isAtLeast: false });
  assert.deepEqual(model.takeStatus(it, 1_001_000), [], 'it is no news any more');
});

test('the journal has each event once, the newest first', () => {
  const journal = new Journal();
  const event = (seq) => ({ seq, time: '', kind: '', severity: 'info', message: '' });
  assert.deepEqual(
    journal.add([event(5)]).map(({ seq }) => seq),
    [5],
  );
  assert.deepEqual(
    journal.add([event(4), event(5), event(3)]).map(({ seq }) => seq),
    [3, 4],
  );
  journal.add([event(6)]);
  assert.deepEqual(
    journal.records.map(({ seq }) => seq),
    [6, 5, 4, 3],
  );
  assert.equal(journal.last, 6);
  journal.add(Array.from({ length: 3000 }, (_, at) => event(at + 10)));
  assert.ok(journal.records.length < 2000 && journal.records[0].seq === 3009);
});

test('a strip keeps the worst of each cell, and ten minutes', () => {
  const strip = new Strip();
  for (const [state, second] of [
    ['up', 1],
    ['down', 2],
    ['up', 9],
    ['up', 10],
  ])
    strip.observe(state, second);
  assert.deepEqual(strip.until(19).slice(-2), ['down', 'up']);
  strip.observe('up', CELLS * CELL_SECONDS + 5);
  assert.equal(strip.cells.size, 2, 'the first is too old');
  assert.equal(strip.until(CELLS * CELL_SECONDS).length, CELLS);
});

test('a strip recalls from events what was before the page', () => {
  const strip = new Strip();
  strip.observe('up', 1000);
  strip.recall(
    [
      { second: 900, from: 'up', to: 'down' },
      { second: 930, from: 'down', to: 'up' },
    ],
    800,
    1000,
    'up',
  );
  const cells = strip.until(1000);
  const at = (second) => cells[CELLS - 1 - (100 - Math.floor(second / CELL_SECONDS))];
  assert.equal(at(790), null, 'the daemon was not there');
  assert.deepEqual([890, 905, 925, 945, 1000].map(at), ['up', 'down', 'down', 'up', 'up']);
  const short = new Strip();
  short.recall(
    [
      { second: 981, from: 'up', to: 'down' },
      { second: 982, from: 'down', to: 'up' },
    ],
    0,
    1000,
    'up',
  );
  assert.ok(short.until(1000).includes('down'), 'however short it was');
  const silent = new Strip();
  silent.recall([], 0, 1000, 'down');
  assert.ok(
    silent
      .until(999)
      .slice(1)
      .every((state) => state === 'down'),
  );
});

test('strips are said in words and drawn in runs', () => {
  assert.equal(inWords([null, null]), 'nothing known of the last minutes');
  assert.equal(inWords(Array(60).fill('up')), 'up for all of the last 10 minutes');
  const half = [...Array(30).fill('down'), ...Array(30).fill('up')];
  assert.equal(inWords(half), 'not up for 50% of the last 10 minutes, at worst down');
  assert.deepEqual(runsOf(['up', 'up', null]), [
    { state: 'up', first: 0, length: 2 },
    { state: null, first: 2, length: 1 },
  ]);
});

test('a drain tells its pace, and no more than is known', () => {
  const drain = new Drain();
  const say = (left, second, more = {}) =>
    drainWords(
      drain.observe({ left, left_exact: true, drain_learning_seconds: 0, ...more }, second),
      (it) => `${plain(it)} s`,
      plain,
    );
  assert.equal(
    say(100, 0, { left_exact: false, drain_learning_seconds: 9 }),
    'at least 100 sessions left, learning 9 s more',
  );
  assert.equal(say(100, 1, { left_exact: false }), 'at least 100 sessions left, counting');
  assert.equal(say(90, 5), '90 of 100 sessions left', 'five seconds tell nothing');
  assert.equal(say(80, 20), '80 of 100 sessions left, about 80 s more at this pace');
  assert.equal(say(80, 500), '80 of 100 sessions left', 'nobody has left for a while');
  assert.equal(say(0, 510, { drained: true }), 'drained: no session is left');
  assert.equal(drain.observe({ drained: true }, 511).part, 1);
});
