// Which events are asked for.

/** From least to most. */
const SEVERITIES = ['info', 'notice', 'warning', 'error'];

/**
 * @typedef {Object} Filter
 * @property {string} severity the least
 * @property {string} service
 * @property {string} text
 */

/**
 * @param {import('../../types/balancer.d.ts').EventRecord} event
 * @param {Filter} filter empty parts admit all
 */
export function admits(event, { severity, service, text }) {
  const least = SEVERITIES.indexOf(severity);
  const words = text.toLowerCase();
  return (
    SEVERITIES.indexOf(event.severity) >= least &&
    (service === '' || event.service === service) &&
    (event.message.toLowerCase().includes(words) || event.kind.includes(words))
  );
}
