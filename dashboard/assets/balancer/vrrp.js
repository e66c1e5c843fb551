// Which of the pair has which address and why, and whether each knows the other's sessions.

import { h, List, setHidden, setText } from '../common/dom.js';
import { count, counts, duration, latency, plural, size } from '../common/format.js';
import { Badge, Facts, section } from '../common/parts.js';
import { ofRouter, ofVip } from './standing.js';
import { cause, hindrance, role } from './words.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('../../types/balancer.d.ts').Router} Router
 * @typedef {import('../../types/balancer.d.ts').Sync} Sync
 * @typedef {import('../../types/balancer.d.ts').Vip} Vip
 */

export class VrrpView {
  /** @param {import('./actions.js').Actions | null} actions */
  constructor(actions) {
    this.routers = h('div', { class: 'cards' });
    this.routerList = new List(
      this.routers,
      ({ name }) => name,
      () => new RouterCard(actions),
    );
    this.noRouter = h(
      'p',
      { class: 'empty' },
      'No virtual router is configured: this node has its addresses alone.',
    );
    this.vips = h('ul', { class: 'lines' });
    this.vipList = new List(
      this.vips,
      ({ address }) => address,
      () => new VipLine(),
    );
    this.sync = new SyncCards();
    this.element = h(
      'div',
      { class: 'view' },
      h('header', { class: 'heading' }, h('h1', { tabindex: -1 }, 'VRRP and sync')),
      this.routers,
      this.noRouter,
      section('Virtual addresses', this.vips),
      this.sync.element,
    );
  }

  /** @param {Model} model */
  update({ status }) {
    if (status === null) return;
    this.routerList.update(status.vrrp.routers);
    setHidden(this.routers, status.vrrp.routers.length === 0);
    setHidden(this.noRouter, status.vrrp.routers.length > 0);
    this.vipList.update(status.vips);
    this.sync.update(status.sync);
  }
}

class RouterCard {
  /** @param {import('./actions.js').Actions | null} actions */
  constructor(actions) {
    this.name = h('h2', {});
    this.badge = new Badge();
    this.since = h('p', { class: 'about' });
    this.facts = routerFacts();
    this.actions = actions?.forRouter() ?? null;
    const head = h('header', {}, this.name, this.badge.element, this.actions?.element);
    this.element = h('section', { class: 'panel card' }, head, this.since, this.facts.element);
  }

  /** @param {Router} router */
  update(router) {
    const { name, last_change: last } = router;
    setText(this.name, `Router ${name}`);
    this.badge.update(ofRouter(router));
    const words = last
      ? `${role(last.to)} for ${duration(last.seconds_ago)}, was ${role(last.from)}: ${cause(last.cause)}`
      : '';
    setText(this.since, words);
    this.facts.update(router);
    this.actions?.update(router);
  }
}

/** @returns {Facts<Router>} */
function routerFacts() {
  return new Facts([
    ['Addresses', ({ vips }) => vips.join(', ')],
    ['Active is', active],
    [
      'Priority',
      ({ priority, lowered_by: by }) => (by.length > 0 ? `${priority}, lowered` : String(priority)),
    ],
    ['Kept back by', keptBack],
    ['Depends on', tracked],
    [
      'Speaks on',
      ({ interface: device, source, vrid, version }) =>
        `${device}${source ? ` from ${source}` : ''}, VRID ${vrid}, VRRPv${version}`,
    ],
    ['Virtual MAC address', ({ virtual_mac: mac }) => mac ?? ''],
    ['Group', ({ group }) => group ?? ''],
    ['Adverts sent', ({ adverts }) => count(adverts.sent)],
    ['Adverts received', ({ adverts }) => count(adverts.received)],
    ['Adverts refused', ({ adverts }) => counts(adverts.refused)],
    ['Odd adverts', ({ adverts }) => counts(adverts.remarked)],
    [
      'Contests while Active',
      ({ adverts }) => (adverts.contests > 0 ? count(adverts.contests) : ''),
    ],
  ]);
}

/** @param {Router} router */
function active({ role: own, peer }) {
  if (peer !== null) return `${peer.address} (priority ${peer.priority})`;
  return own === 'active' ? 'this node' : 'unknown';
}

/** A fault says more than that there is one. @param {Router} router */
function keptBack({ held, faults, lowered_by: lowered, awaits_sync: waits }) {
  const all = [...held.filter((hold) => hold !== 'fault'), ...faults, ...lowered].map(hindrance);
  if (waits) all.push('it is not in sync with the Active yet');
  return all.join('; ');
}

/** @param {Router} router */
function tracked({ tracked: all }) {
  const words = all.map(({ name, target, state, cost }) => {
    const price = cost === null ? 'gives its role up when down' : `-${cost} when down`;
    return `${name} (${target}): ${state}; ${price}`;
  });
  return words.join('. ');
}

class VipLine {
  constructor() {
    this.what = h('span', { class: 'line-what' });
    this.badge = new Badge();
    this.about = h('small', {});
    this.element = h('li', {}, this.what, this.badge.element, this.about);
  }

  /** @param {Vip} vip */
  update(vip) {
    setText(this.what, vip.address);
    this.badge.update(ofVip(vip));
    setText(
      this.about,
      `on ${vip.interface}${vip.lack === null ? '' : `: ${hindrance(vip.lack)}`}`,
    );
  }
}

/** Both directions of the channel. */
class SyncCards {
  constructor() {
    this.none = h(
      'p',
      { class: 'empty' },
      'No peer is configured with [sync]: what only this node knows of sessions goes with it.',
    );
    this.to = new Direction('This node to its peer', [
      [
        'Entries the peer has',
        ({ sending: it }) => `${count(it.entries - it.pending)} of ${count(it.entries)}`,
      ],
      ['Lag', ({ sending: it }) => (it.in_sync_seconds === null ? '' : latency(it.lag_seconds))],
      ['New flows there after', lag],
      [
        'Not acknowledged',
        ({ sending: it }) => (it.unacknowledged > 0 ? count(it.unacknowledged) : ''),
      ],
      [
        'Not reported at once',
        ({ sending: it }) => (it.events_lost > 0 ? count(it.events_lost) : ''),
      ],
      ['Sent', ({ sending: it }) => `${plural(it.messages, 'message')}, ${size(it.bytes)}`],
    ]);
    this.from = new Direction('Its peer to this node', [
      ['Records taken in', ({ receiving: it }) => count(it.taken)],
      ['Taken back', ({ receiving: it }) => count(it.removed)],
      ['Of no use here', ({ receiving: it }) => counts(it.refused)],
      ['Connections refused', ({ receiving: it }) => counts(it.rejected)],
    ]);
    this.cards = h('div', { class: 'cards' }, this.to.element, this.from.element);
    this.element = h('div', {}, this.none, this.cards);
  }

  /** @param {Sync | null} sync */
  update(sync) {
    setHidden(this.none, sync !== null);
    setHidden(this.cards, sync === null);
    if (sync === null) return;
    this.to.update(sync, sync.sending);
    this.from.update(sync, sync.receiving);
  }
}

/** @param {Sync} sync */
function lag({ sending: { flow_lag: it } }) {
  if (it.flows === 0) return '';
  const [half, most, all] = [it.p50_seconds, it.p99_seconds, it.max_seconds].map(latency);
  return `p50 ${half}, p99 ${most}, max ${all}`;
}

class Direction {
  /**
   * @param {string} title
   * @param {[string, (sync: Sync) => string][]} entries
   */
  constructor(title, entries) {
    this.badge = new Badge();
    this.about = h('p', { class: 'about' });
    this.facts = new Facts(entries);
    const head = h('header', {}, h('h2', {}, title), this.badge.element);
    this.element = h('section', { class: 'panel card' }, head, this.about, this.facts.element);
  }

  /**
   * @param {Sync} sync
   * @param {{in_sync_seconds: number | null, error: string | null}} way
   */
  update(sync, { in_sync_seconds: seconds, error }) {
    const isWell = seconds !== null;
    this.badge.update({
      word: isWell ? 'in sync' : 'not in sync',
      tone: isWell ? 'good' : 'warning',
    });
    const words =
      seconds === null ? (error ?? 'not yet') : `with ${sync.peer} for ${duration(seconds)}`;
    setText(this.about, words);
    this.facts.update(sync);
  }
}
