// How the slots of a service are, in words.

import { count, duration } from '../common/format.js';

/**
 * How slots are that changed hands; nothing if all are safe.
 * @param {import('../../types/balancer.d.ts').Slots} slots
 */
export function slotWords({ safe, mixed, at_risk: atRisk, learning_seconds: rest, deferred }) {
  const all = safe + mixed + atRisk;
  const told = [];
  if (atRisk > 0) {
    told.push(
      `${count(atRisk)} of ${count(all)} slots learn their sessions for ${duration(rest)} more`,
    );
  }
  if (mixed > 0) told.push(`${count(mixed)} slots have sessions of other backends`);
  if (deferred) told.push('some slots wait for room in the flow table to change their backend');
  return told.join('; ');
}
