import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Live, pause } from '../assets/common/live.js';

/** A world with a clock that is moved by hand. */
class World {
  constructor() {
    this.time = 0;
    this.timers = new Map();
    this.sources = [];
    this.states = [];
    this.data = [];
    this.welcome = async () => true;
    this.live = new Live({
      url: '/v1/live',
      kinds: ['status'],
      onData: (kind, data) => this.data.push([kind, data]),
      onState: ({ kind }) => this.states.push(kind),
      isWelcome: () => this.welcome(),
      means: {
        open: () => this.open(),
        now: () => this.time,
        after: (callback, millis) => this.after(callback, millis),
        cancel: (timer) => this.timers.delete(timer),
        random: () => 0.5,
      },
    });
  }

  open() {
    const source = new EventTarget();
    source.close = () => (source.isClosed = true);
    this.sources.push(source);
    return source;
  }

  after(callback, millis) {
    const timer = {};
    this.timers.set(timer, { callback, at: this.time + millis });
    return timer;
  }

  async pass(millis) {
    this.time += millis;
    for (const [timer, { callback, at }] of [...this.timers]) {
      if (at > this.time || !this.timers.delete(timer)) continue;
      callback();
      await new Promise(setImmediate);
    }
  }

  /** @param {number} [at] which stream, the last one otherwise */
  say(data, at = -1) {
    this.sources
      .at(at)
      .dispatchEvent(Object.assign(new Event('status'), { data: JSON.stringify(data) }));
  }

  fail() {
    this.sources.at(-1).dispatchEvent(new Event('error'));
  }
}

test('pauses grow, and vary by a fifth', () => {
  const pauses = [0, 1, 2, 3, 4, 5, 50].map((attempt) => pause(attempt, 0.5));
  assert.deepEqual(pauses, [1000, 2000, 4000, 8000, 15_000, 30_000, 30_000]);
  assert.deepEqual([pause(0, 0), pause(0, 1)], [800, 1200]);
});

test('a stream that breaks off is opened again after a pause', async () => {
  const world = new World();
  world.live.start();
  world.say({ a: 1 });
  assert.deepEqual(world.data, [['status', { a: 1 }]]);
  world.fail();
  assert.equal(world.live.state.kind, 'lost');
  assert.equal(world.live.state.retryAt, 1000);
  assert.ok(world.sources[0].isClosed);
  await world.pass(999);
  assert.equal(world.sources.length, 1);
  await world.pass(1);
  assert.equal(world.sources.length, 2);
  assert.equal(world.live.state.kind, 'lost', 'it is lost until something comes');
  world.say({ a: 2 });
  assert.equal(world.live.state.kind, 'live');
});

test('silence is a loss, and what is said too late is not heard', async () => {
  const world = new World();
  world.live.start();
  world.say({});
  for (let beat = 0; beat < 10; beat += 1) {
    await world.pass(5000);
    world.say({});
  }
  assert.equal(world.live.state.kind, 'live');
  await world.pass(6000);
  assert.equal(world.live.state.kind, 'lost');
  assert.equal(world.live.state.since, 50_000, 'what is shown is from then');
  const heard = world.data.length;
  world.say({});
  assert.equal(world.data.length, heard);
});

test('attempts are further and further apart until one succeeds', async () => {
  const world = new World();
  world.live.start();
  for (const millis of [1000, 2000, 4000]) {
    world.fail();
    assert.equal(world.live.state.retryAt - world.time, millis);
    await world.pass(millis);
  }
  world.say({});
  world.fail();
  assert.equal(world.live.state.retryAt - world.time, 1000);
});

test('who is not welcome any more does not come back', async () => {
  const world = new World();
  world.live.start();
  world.welcome = async () => false;
  world.fail();
  await world.pass(1000);
  assert.equal(world.sources.length, 1);
  assert.equal(world.timers.size, 0);
});

test('nobody who answers is no reason to give up', async () => {
  const world = new World();
  world.live.start();
  world.welcome = async () => {
    throw new Error('nobody has answered');
  };
  world.fail();
  await world.pass(1000);
  assert.equal(world.sources.length, 2);
});

test('a daemon that answers and gives no stream is told from one that is gone', async () => {
  const world = new World();
  world.live.start();
  world.fail();
  assert.equal(world.live.state.isRefused, false);
  await world.pass(1000);
  world.fail();
  assert.equal(world.live.state.isRefused, true);
  world.welcome = async () => {
    throw new Error('nobody has answered');
  };
  await world.pass(2000);
  world.fail();
  assert.equal(world.live.state.isRefused, false);
});

test('a stop holds, even while the session is asked for', async () => {
  const world = new World();
  world.live.start();
  let answer;
  world.welcome = () => new Promise((resolve) => (answer = resolve));
  world.fail();
  await world.pass(1000);
  world.live.stop();
  answer(true);
  await new Promise(setImmediate);
  assert.equal(world.sources.length, 1);
});
