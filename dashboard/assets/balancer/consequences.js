// What an order will do, in sentences, from the status at the moment when somebody asks.

import { count, percent, plural } from '../common/format.js';
import { takesNew } from './standing.js';

/**
 * @typedef {import('../../types/balancer.d.ts').Service} Service
 * @typedef {import('../../types/balancer.d.ts').Backend} Backend
 * @typedef {import('../../types/balancer.d.ts').Router} Router
 */

/** Nodes of a pair do not tell each other of orders. */
export const PEER = 'This node alone does so: give its peer the same order.';

/**
 * Whether another node stands by, or is at work as well.
 * @param {import('../../types/balancer.d.ts').Status | null} status
 */
export function isPaired(status) {
  return status !== null && (status.sync !== null || status.vrrp.routers.length > 0);
}

/**
 * Whether new clients of a service have nowhere to go without a backend.
 * @param {Service} service
 * @param {Backend} backend
 */
export function isLast({ backends }, backend) {
  return takesNew(backend) && backends.filter(takesNew).length === 1;
}

/**
 * @param {Service} service
 * @param {Backend} backend
 * @returns {{body: string[], isHarmful: boolean}}
 */
export function drain(service, backend) {
  const isHarmful = isLast(service, backend);
  const body = ['It gets no new clients.', goingOn(backend)];
  if (isHarmful)
    body.push(
      `It is the last that takes new clients of ${service.name}: they will be turned away.`,
    );
  return { body, isHarmful };
}

/** @param {Backend} backend */
function goingOn({ sessions: { count: number, exact } }) {
  if (number === 0) return 'It has no sessions.';
  if (number === 1 && exact) return 'Its session goes on until it ends by itself.';
  const known = `${exact ? '' : 'about '}${count(number)}`;
  return `Its ${known} sessions go on until they end by themselves.`;
}

/**
 * @param {Backend} backend
 * @returns {string[]}
 */
export function enable({ health, weight, evacuated }) {
  const body = ['It is used again as its health and weight allow.'];
  if (health === 'down') body.push('Its probes fail: it gets no clients until they are answered.');
  if (evacuated) body.push('Its check asks for no new clients: it gets none until that is over.');
  if (weight === 0) body.push('Its weight is 0: it gets no new clients until it has another.');
  return body;
}

/**
 * @param {Service} service
 * @param {Backend} backend
 * @returns {string[]}
 */
export function disable(service, backend) {
  const { count: number, exact } = backend.sessions;
  const cut =
    number === 0
      ? 'It has no sessions.'
      : `${exact ? '' : 'About '}${plural(number, 'session')} will be cut at once.`;
  const body = ['It gets no packets at all.', cut];
  if (isLast(service, backend)) {
    body.push(
      `It is the last that takes new clients of ${service.name}: they will be turned away.`,
    );
  }
  if (number > 0) body.push('To let sessions end by themselves, drain it instead.');
  return body;
}

/** @returns {string[]} */
export function weight() {
  return ['It changes the share of new clients. Sessions stay where they are.'];
}

/**
 * What share another weight would be, all else as it is.
 * @param {Service} service
 * @param {Backend} backend
 * @param {number} value
 */
export function share({ backends }, backend, value) {
  if (value === 0) return 'With 0 it gets no new clients.';
  const others = backends.filter((it) => it.name !== backend.name && takesNew(it));
  const rest = others.reduce((sum, it) => sum + it.effective_weight, 0);
  const part = percent(value / (rest + value));
  const isTaking = backend.admin === 'enabled' && backend.health === 'up';
  return isTaking
    ? `That is ${part} of new clients.`
    : `That will be ${part} of new clients when it takes any.`;
}

/**
 * @param {Router} router
 * @returns {string[]}
 */
export function release({ role, vips, group, peer }) {
  const body =
    role === 'active'
      ? [
          `It hands ${vips.join(', ')} over as soon as its successor is heard.`,
          'If there is none, it gives them up all the same, and nobody has them.',
        ]
      : [`${peer === null ? 'It' : `It stands by for ${peer.address}, and`} will not take over.`];
  body.push('It takes no role until it is resumed, or the daemon restarts.');
  if (group !== null) body.push(`All routers of the group ${group} move together.`);
  return body;
}

/**
 * @param {Router} router
 * @returns {string[]}
 */
export function resume({ group }) {
  const body = ['It takes part again. It may take its role back from a peer of lower priority.'];
  if (group !== null) body.push(`All routers of the group ${group} move together.`);
  return body;
}
