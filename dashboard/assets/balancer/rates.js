// From two statuses to rates, as `tidegate top` makes them.

/**
 * @typedef {import('../../types/balancer.d.ts').Status} Status
 * @typedef {import('../../types/balancer.d.ts').Traffic} Traffic
 *
 * @typedef {Object} Row what happened a second
 * @property {number} packets from clients
 * @property {number} bits from clients
 * @property {number} fresh new flows
 * @property {number} resets
 * @property {number} drops
 * @property {number} replyBits where replies pass here
 *
 * @typedef {Object} Rates
 * @property {Row} total
 * @property {Map<string, Row>} rows by the name of a service, or `service/backend`
 * @property {Map<string, number>} verdicts
 */

/** The key of a backend. @param {string} service @param {string} backend */
export function keyOf(service, backend) {
  return `${service}/${backend}`;
}

/**
 * Every service and backend under its key.
 * @param {Status} status
 * @returns {Map<string, Traffic & {dropped: number}>}
 */
function counted(status) {
  const all = new Map();
  for (const service of status.services) {
    all.set(service.name, service);
    for (const backend of service.backends) all.set(keyOf(service.name, backend.name), backend);
  }
  return all;
}

/**
 * A counter that went back counts as still: the daemon was started anew. What was not there before
 * starts when it is first seen.
 * @param {Status} earlier
 * @param {Status} now
 * @param {number} seconds between the two
 * @returns {Rates}
 */
export function between(earlier, now, seconds) {
  const rate = (/** @type {number} */ before, /** @type {number} */ after) =>
    seconds > 0 ? Math.max(0, after - before) / seconds : 0;
  const before = counted(earlier);
  const rows = new Map();
  for (const [key, it] of counted(now)) rows.set(key, row(before.get(key) ?? it, it, rate));
  const verdicts = new Map();
  for (const [label, count] of Object.entries(now.verdicts)) {
    verdicts.set(label, rate(earlier.verdicts[label] ?? 0, count));
  }
  const services = now.services.map(({ name }) => rows.get(name));
  return { total: sum(services, verdicts), rows, verdicts };
}

/**
 * @param {Traffic & {dropped: number}} before
 * @param {Traffic & {dropped: number}} now
 * @param {(before: number, after: number) => number} rate
 * @returns {Row}
 */
function row(before, now, rate) {
  return {
    packets: rate(before.packets, now.packets),
    bits: rate(before.bytes, now.bytes) * 8,
    fresh: rate(before.new_connections, now.new_connections),
    resets: rate(before.resets, now.resets),
    drops: rate(before.dropped, now.dropped),
    replyBits: rate(before.reply_bytes, now.reply_bytes) * 8,
  };
}

/**
 * All services together. Drops are those of all packets: some belong to no service.
 * @param {Row[]} rows
 * @param {Map<string, number>} verdicts
 * @returns {Row}
 */
function sum(rows, verdicts) {
  const total = { packets: 0, bits: 0, fresh: 0, resets: 0, drops: 0, replyBits: 0 };
  for (const it of rows) {
    total.packets += it.packets;
    total.bits += it.bits;
    total.fresh += it.fresh;
    total.resets += it.resets;
    total.replyBits += it.replyBits;
  }
  for (const [label, rate] of verdicts) if (isDrop(label)) total.drops += rate;
  return total;
}

/**
 * A good answer to a challenge is dropped as well, and nobody misses it.
 * @param {string} verdict
 */
export function isDrop(verdict) {
  return verdict.startsWith('drop_') && verdict !== 'drop_challenge_answered';
}
