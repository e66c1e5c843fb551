// The findings about the node itself: addresses, virtual routers, its peer, configuration, notices.

import { format } from '../common/routes.js';
import { hindrance } from './words.js';

/**
 * @typedef {import('../../types/balancer.d.ts').Status} Status
 * @typedef {import('../../types/balancer.d.ts').Router} Router
 * @typedef {import('../../types/balancer.d.ts').EventRecord} EventRecord
 * @typedef {import('../common/journal.js').Finding} Finding
 */

const VRRP = format(['vrrp']);
const NODE = format(['node']);

/**
 * @param {Status} status
 * @returns {Finding[]}
 */
export function ofNode(status) {
  const { vips, vrrp, config, notifiers, dashboard } = status;
  return [
    ...vips.flatMap(ofVip),
    ...vrrp.routers.flatMap(ofRouter),
    ...ofSync(status),
    ...ofConfig(config),
    ...notifiers.flatMap(ofNotifier),
    ...(dashboard ? ofAccounts(dashboard) : []),
  ];
}

/**
 * @param {Status['vips'][number]} vip
 * @returns {Finding[]}
 */
function ofVip({ address, interface: device, state, lack }) {
  const [bare] = address.split('/');
  const why = lack === null ? '' : `: ${hindrance(lack)}`;
  const texts = {
    absent: `VIP ${bare} should be on ${device}, and is not`,
    withdrawn: `VIP ${bare} is withdrawn from ${device}${why}`,
    left: `VIP ${bare} should be withdrawn, but somebody else has put it on ${device}${why}`,
  };
  const text = texts[/** @type {keyof typeof texts} */ (state)];
  if (text === undefined) return [];
  const isBegunBy = (/** @type {EventRecord} */ { kind, vip }) =>
    vip === bare && (kind === 'vip_withdrawn' || kind === 'vip_moved');
  const tone = state === 'absent' ? 'error' : 'warning';
  return [{ id: `vip:${address}:${state}`, tone, text, href: VRRP, isBegunBy }];
}

/**
 * @param {Router} router
 * @returns {Finding[]}
 */
function ofRouter(router) {
  const {
    name,
    role,
    peer,
    priority,
    held,
    faults,
    lowered_by: lowered,
    awaits_sync: waits,
  } = router;
  /** @type {Finding[]} */
  const found = [];
  /**
   * @param {string} what
   * @param {Finding['tone']} tone
   * @param {string} text
   * @param {string} [kind]
   */
  const add = (what, tone, text, kind) => {
    const isBegunBy = (/** @type {EventRecord} */ event) =>
      event.kind === kind && event.router === name;
    found.push({ id: `router:${name}:${what}`, tone, text, href: VRRP, isBegunBy });
  };
  const who = `virtual router ${name}`;
  if (role === 'initialize') add('stopped', 'error', `${who} is stopped`, 'role_changed');
  if (faults.length > 0) {
    add('faults', 'warning', `${who} cannot be Active: ${list(faults)}`, 'router_faults');
  }
  if (lowered.length > 0) {
    const text = `${who} has a lower priority, ${priority}: ${list(lowered)}`;
    add('lowered', 'warning', text, 'router_priority');
  }
  const isReleased = held.includes('operator');
  if (isReleased)
    add('released', 'notice', `${who} is released: it takes no role until it is resumed`);
  else if (held.includes('group')) add('group', 'notice', `${who} is held with its group`);
  if (role === 'backup' && peer === null) {
    const text = `${who} hears no Active: its addresses may be nowhere`;
    add('nobody', isReleased || faults.length > 0 ? 'error' : 'warning', text, 'role_changed');
  }
  if (waits) add('waits', 'notice', `${who} waits until it is in sync with the Active`);
  return found;
}

/** @param {string[]} labels */
function list(labels) {
  return labels.map(hindrance).join(', ');
}

/**
 * @param {Status} status
 * @returns {Finding[]}
 */
function ofSync({ sync }) {
  if (sync === null) return [];
  const directions = [
    { way: 'sending', words: `${sync.peer} is not in sync with this node`, of: sync.sending },
    { way: 'receiving', words: `this node is not in sync with ${sync.peer}`, of: sync.receiving },
  ];
  return directions.flatMap(({ way, words, of }) => {
    if (of.in_sync_seconds !== null) return [];
    const isBegunBy = (/** @type {EventRecord} */ event) =>
      event.kind === 'sync_down' && event.direction === way;
    const tone = of.error === null ? 'notice' : 'warning';
    const text = of.error === null ? `${words} yet` : `${words}: ${of.error}`;
    return [{ id: `sync:${way}`, tone, text, href: VRRP, isBegunBy }];
  });
}

/**
 * @param {Status['config']} config
 * @returns {Finding[]}
 */
function ofConfig({ last_error: error }) {
  if (error === null) return [];
  const [first] = error.split('\n');
  const text = `the last reload was refused, the old configuration is in force: ${first}`;
  const isBegunBy = (/** @type {EventRecord} */ { kind }) => kind === 'reload_failed';
  return [{ id: 'config', tone: 'warning', text, href: NODE, isBegunBy }];
}

/**
 * @param {Status['notifiers'][number]} notifier
 * @returns {Finding[]}
 */
function ofNotifier({ name, last_error: error }) {
  if (error === null) return [];
  const text = `${name} could not be notified: ${error}`;
  const isBegunBy = (/** @type {EventRecord} */ { kind, notifier }) =>
    kind === 'notify_failed' && notifier === name;
  return [{ id: `notifier:${name}`, tone: 'warning', text, href: NODE, isBegunBy }];
}

/**
 * @param {import('../../types/balancer.d.ts').Dashboard} dashboard
 * @returns {Finding[]}
 */
function ofAccounts({ accounts_error: error }) {
  if (error === null) return [];
  const text = `the accounts of the dashboard cannot be used, those from before are in force: ${error}`;
  const isBegunBy = (/** @type {EventRecord} */ { kind }) => kind === 'accounts_refused';
  return [{ id: 'accounts', tone: 'warning', text, href: NODE, isBegunBy }];
}
