import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RequestError, Session } from '../assets/common/session.js';

const OLGA = { name: 'olga', role: 'operator', csrf: 'c5rf', expires_seconds: 60 };

/** A session whose requests are answered in turn. */
function sessionWith(...answers) {
  const asked = [];
  const session = new Session(async (path, options) => {
    asked.push([options.method, path, options.headers['X-CSRF-Token'], options.body]);
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    const [status, body, headers = {}] = answer;
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    return new Response(status === 204 ? null : text, { status, headers });
  });
  return { session, asked };
}

test('who logs in has a role, and shows the csrf value with changes alone', async () => {
  const { session, asked } = sessionWith([200, OLGA], [200, []], [200, {}], [204]);
  await session.login('olga', 'secret');
  assert.ok(session.isOperator);
  await session.call('GET', '/v1/events?wait=0');
  await session.call('POST', '/v1/vrrp/front/release');
  await session.logout();
  assert.equal(session.account, null);
  assert.deepEqual(asked, [
    ['POST', '/session', undefined, '{"name":"olga","password":"secret"}'],
    ['GET', '/v1/events?wait=0', undefined, undefined],
    ['POST', '/v1/vrrp/front/release', 'c5rf', undefined],
    ['DELETE', '/session', 'c5rf', undefined],
  ]);
});

test('a page that is loaded again finds its session, or that there is none', async () => {
  const { session } = sessionWith([200, OLGA], [401, { error: 'no', hint: '' }], [503, 'busy']);
  assert.equal(await session.resume(), true);
  assert.equal(await session.resume(), false);
  assert.equal(session.account, null);
  await assert.rejects(session.resume(), (error) => error.status === 503);
});

test('a refusal has the words of the daemon, and how long to wait', async () => {
  const refused = { error: 'too many attempts', hint: 'wait a little' };
  const { session } = sessionWith([429, refused, { 'Retry-After': '4' }], [502, '<html>']);
  await assert.rejects(session.login('a', 'b'), (error) => {
    assert.ok(error instanceof RequestError);
    assert.deepEqual(
      [error.status, error.message, error.hint, error.retryAfter],
      [429, 'too many attempts', 'wait a little', 4],
    );
    return true;
  });
  await assert.rejects(session.login('a', 'b'), /the answer was 502/);
});

test('a session that has ended is told of once it is noticed', async () => {
  const { session } = sessionWith([200, OLGA], [401, { error: 'no', hint: '' }]);
  await session.login('olga', 'secret');
  let ended = 0;
  session.onEnd = () => (ended += 1);
  await assert.rejects(session.call('POST', '/v1/x'));
  assert.deepEqual([ended, session.account], [1, null]);
});

test('nobody who answers is told as that', async () => {
  const { session } = sessionWith(new TypeError('fetch failed'));
  await assert.rejects(session.resume(), /nobody has answered/);
});
