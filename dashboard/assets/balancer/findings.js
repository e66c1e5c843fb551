// What is wrong, and what is under way, from one status: what somebody who was woken looks for first.
//
// An `error` means that clients are not served, or an address is not where it should be; a `warning`
// that something is wrong and the service goes on; a `notice` that somebody should know.

import { duration, plural, socket } from '../common/format.js';
import { format } from '../common/routes.js';
import { ofNode } from './findings_node.js';
import { isFull, takesNew } from './standing.js';

/**
 * @typedef {import('../../types/balancer.d.ts').Status} Status
 * @typedef {import('../../types/balancer.d.ts').Service} Service
 * @typedef {import('../../types/balancer.d.ts').Backend} Backend
 * @typedef {import('../../types/balancer.d.ts').EventRecord} EventRecord
 *
 * @typedef {import('../common/journal.js').Finding} Finding
 */

/** So many backends of a service that are down are named one by one. */
const NAMED = 3;

const RANK = { error: 0, warning: 1, notice: 2 };

/**
 * All findings, the worst first.
 * @param {Status} status
 * @returns {Finding[]}
 */
export function findings(status) {
  const found = [...status.services.flatMap(ofService), ...held(status), ...ofNode(status)];
  return found.sort((a, b) => RANK[a.tone] - RANK[b.tone]);
}

/**
 * One sentence for all of them.
 * @param {Finding[]} found
 * @returns {{tone: 'good' | 'notice' | 'warning' | 'error', words: string}}
 */
export function headline(found) {
  const number = (/** @type {string} */ tone) => found.filter((it) => it.tone === tone).length;
  const [errors, warnings] = [number('error'), number('warning')];
  if (errors > 0) {
    const more = warnings > 0 ? `, ${plural(warnings, 'warning')}` : '';
    return { tone: 'error', words: `${plural(errors, 'failure')}${more}` };
  }
  if (warnings > 0) {
    return { tone: 'warning', words: `Clients are served, ${plural(warnings, 'warning')}` };
  }
  return { tone: 'good', words: 'All is well' };
}

/**
 * @param {Service} service
 * @returns {Finding[]}
 */
function ofService(service) {
  const { name, vip, port, protocol, state } = service;
  const href = format(['services', name]);
  const about = { href, service: name };
  /** @type {Finding[]} */
  const found = [];
  if (state === 'down') {
    const text = `${name} has no healthy backend: packets to ${socket(vip, port)}/${protocol} are dropped`;
    found.push(finding('down', 'error', text, about, ['service_down']));
  } else {
    // Who knows that nobody is there need not hear it of each.
    found.push(...down(service, about));
  }
  found.push(...underWay(service), ...full(service, about));
  found.push(...tables(service, about), ...clients(service, about));
  return found;
}

/**
 * @param {string} what
 * @param {Finding['tone']} tone
 * @param {string} text
 * @param {{href: string, service: string, backend?: string}} about
 * @param {string[]} kinds of events that were its beginning
 * @returns {Finding}
 */
function finding(what, tone, text, { href, service, backend }, kinds) {
  const isBegunBy = (/** @type {EventRecord} */ event) =>
    kinds.includes(event.kind) &&
    event.service === service &&
    (backend === undefined || event.backend === backend) &&
    (event.kind !== 'backend_health' || event.to === 'down');
  return { id: `${what}:${service}/${backend ?? ''}`, tone, text, href, isBegunBy };
}

/**
 * @param {Service} service
 * @param {{href: string, service: string}} about
 */
function down({ name, backends }, about) {
  const all = backends.filter(({ admin, health }) => health === 'down' && admin !== 'disabled');
  if (all.length > NAMED) {
    const text = `${all.length} of ${backends.length} backends of ${name} are down`;
    return [finding('backends-down', 'warning', text, about, ['backend_health'])];
  }
  return all.map((backend) => {
    const why = backend.reason === null ? '' : `: ${backend.reason}`;
    const text = `${name}/${backend.name} is down${why}`;
    return finding('backend-down', 'warning', text, of(name, backend), ['backend_health']);
  });
}

/**
 * What operators, reloads and backends themselves have asked for.
 * @param {Service} service
 */
function underWay({ name, backends }) {
  return backends.flatMap((backend) => {
    const about = of(name, backend);
    const full = `${name}/${backend.name}`;
    if (backend.admin === 'disabled') {
      const text = `${full} is disabled: it gets no packets`;
      return [finding('disabled', 'notice', text, about, ['backend_ordered'])];
    }
    if (backend.admin !== 'draining') return [];
    if (backend.drained) {
      const text = `${full} is drained: no session is left`;
      return [finding('drained', 'notice', text, about, ['backend_drained'])];
    }
    const verb = backend.leaving ? 'leaves' : 'drains';
    const why = backend.evacuated ? ', as its check asks for it' : '';
    const least = backend.left_exact ? '' : 'at least ';
    const text = `${full} ${verb}${why}: ${least}${plural(backend.left ?? 0, 'session')} left`;
    return [finding('drains', 'notice', text, about, ['backend_ordered', 'backend_evacuating'])];
  });
}

/**
 * @param {Service} service
 * @param {{href: string, service: string}} about
 */
function full({ name, backends }, about) {
  const taking = backends.filter(takesNew);
  const all = taking.filter(isFull);
  if (all.length === 0) return [];
  if (all.length === taking.length) {
    const text = `every backend of ${name} is full: new clients are turned away`;
    return [finding('full', 'error', text, about, [])];
  }
  const text = `${all.length} of ${backends.length} backends of ${name} are full`;
  return [finding('full', 'warning', text, about, [])];
}

/**
 * @param {Service} service
 * @param {{href: string, service: string}} about
 */
function tables({ name, slots }, about) {
  const found = [];
  if (slots.deferred) {
    const text = `slots of ${name} wait for room in the flow table to change their backend`;
    found.push(finding('deferred', 'warning', text, about, []));
  }
  if (slots.at_risk > 0) {
    const rest = duration(slots.learning_seconds);
    const text = `slots of ${name} learn their sessions for ${rest} more`;
    found.push(finding('learning', 'notice', text, about, []));
  }
  return found;
}

/**
 * What clients do that they should not.
 * @param {Service} service
 * @param {{href: string, service: string}} about
 */
function clients({ name, guard, mqtt }, about) {
  const found = [];
  if (guard.is_challenging && guard.challenge === 'auto') {
    const text = `${name} is under attack: new clients are challenged`;
    found.push(finding('flood', 'warning', text, about, ['flood_began']));
  }
  const { longest_keep_alive_seconds: seen, keep_alive_max_seconds: most } = mqtt ?? {};
  if (seen && most && seen > most) {
    const text =
      `a client of ${name} asks for a keep-alive of ${duration(seen)}, learning windows ` +
      `wait for ${duration(most)}: raise keep_alive_max if that device is real`;
    found.push(finding('keep-alive', 'warning', text, about, ['keep_alive_claimed']));
  }
  return found;
}

/**
 * @param {Status} status
 * @returns {Finding[]}
 */
function held({ services }) {
  const number = services.flatMap(({ backends }) => backends).filter((it) => it.held).length;
  if (number === 0) return [];
  const text = `nobody answers, ${plural(number, 'backend')} kept as they are: look at this host's link`;
  const isBegunBy = (/** @type {EventRecord} */ event) => event.kind === 'backends_silent';
  return [{ id: 'held', tone: 'warning', text, href: format([]), isBegunBy }];
}

/**
 * @param {string} service
 * @param {Backend} backend
 */
function of(service, backend) {
  return { href: format(['services', service, backend.name]), service, backend: backend.name };
}
