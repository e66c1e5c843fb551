// One service: what goes through it, who has its slots, and its backends.

import { h, List, setAttribute, setHidden, setText } from '../common/dom.js';
import { count, duration, plural, scaled, socket } from '../common/format.js';
import { icon } from '../common/icons.js';
import { Badge, Facts, rateText, section } from '../common/parts.js';
import { Group, Plot } from '../common/plot.js';
import { format } from '../common/routes.js';
import { backendTable } from './backends.js';
import { sessionsText } from './parts.js';
import { SlotPicture } from './slots.js';
import { ofBackend } from './standing.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('../../types/balancer.d.ts').Service} Service
 */

const PLOTS = /** @type {const} */ ([
  ['sessions', 'Sessions'],
  ['fresh', 'New flows/s'],
  ['packets', 'Packets/s'],
  ['bits', 'Bit/s'],
]);

export class ServiceView {
  /**
   * @param {import('./actions.js').Actions | null} actions
   * @param {string | undefined} name the first one, if it is left out
   */
  constructor(actions, name) {
    this.name = name;
    this.chooser = new Chooser();
    this.heading = h('h1', { tabindex: -1 });
    this.badge = new Badge();
    this.about = h('p', { class: 'about' });
    const group = new Group();
    this.plots = PLOTS.map(([what, title]) => ({
      what,
      plot: new Plot({ title, format: scaled, group }),
    }));
    this.slots = new SlotPicture();
    this.table = backendTable(actions);
    this.facts = serviceFacts();
    this.known = h(
      'div',
      { class: 'view' },
      h('header', { class: 'heading' }, this.heading, this.badge.element, this.about),
      h('div', { class: 'plots' }, ...this.plots.map(({ plot }) => plot.element)),
      section('Share of new flows', this.slots.element),
      section('Backends', h('div', { class: 'scroll is-steady' }, this.table.element)),
      section('More', this.facts.element),
    );
    this.unknown = h('p', { class: 'empty', hidden: true });
    this.element = h('div', { class: 'view' }, this.chooser.element, this.unknown, this.known);
  }

  /** @param {Model} model */
  update(model) {
    const services = model.status?.services ?? [];
    const service =
      this.name === undefined ? services[0] : services.find(({ name }) => name === this.name);
    this.chooser.update(services, service?.name);
    setHidden(this.known, service === undefined);
    setHidden(this.unknown, service !== undefined);
    if (service === undefined) {
      setText(
        this.unknown,
        this.name ? `There is no service named ${this.name}.` : 'No service is configured.',
      );
      return;
    }
    const { name, vip, port, protocol, balance, forward, tunnel, state, backends } = service;
    setText(this.heading, name);
    this.badge.update({ word: state, tone: state === 'up' ? 'good' : 'error' });
    const form = tunnel === null ? '' : ` ${tunnel}`;
    const parts = [`${socket(vip, port)}/${protocol}`, balance, forward + form];
    setText(this.about, [...parts, plural(backends.length, 'backend')].join(' · '));
    const history = model.history(name);
    for (const { what, plot } of this.plots) {
      const value =
        what === 'sessions' ? sessionsText(service.sessions) : rateText(model.calmly(name, what));
      plot.update([{ series: history[what] }], model.second, value);
    }
    this.slots.update(service);
    this.table.update(backends.map((backend) => ({ service, backend, model })));
    this.facts.update(service);
  }
}

/** The way from one service to another. */
class Chooser {
  constructor() {
    this.element = h('nav', { class: 'chooser', 'aria-label': 'Services' });
    this.list = new List(
      this.element,
      ({ service }) => service.name,
      () => new Choice(),
    );
  }

  /**
   * @param {Service[]} services
   * @param {string | undefined} chosen
   */
  update(services, chosen) {
    this.list.update(services.map((service) => ({ service, isChosen: service.name === chosen })));
  }
}

class Choice {
  constructor() {
    this.sign = h(
      'span',
      { hidden: true },
      icon('warning'),
      h('span', { class: 'unseen' }, ' (look)'),
    );
    this.name = h('span', {});
    this.element = h('a', {}, this.name, this.sign);
    this.wasChosen = false;
  }

  /** @param {{service: Service, isChosen: boolean}} item */
  update({ service, isChosen }) {
    const isDown = service.state === 'down';
    const isHurt = service.backends.some((it) => ofBackend(it).tone === 'error');
    setHidden(this.sign, !isDown && !isHurt);
    setAttribute(this.sign, 'class', `tone-${isDown ? 'error' : 'warning'}`);
    setText(this.name, service.name);
    setAttribute(this.element, 'href', format(['services', service.name]));
    setAttribute(this.element, 'aria-current', isChosen && 'page');
    // On a phone it may be out of sight.
    if (isChosen && !this.wasChosen)
      this.element.scrollIntoView({ block: 'nearest', inline: 'center' });
    this.wasChosen = isChosen;
  }
}

/** What is seldom asked for. @returns {Facts<Service>} */
function serviceFacts() {
  const replies = (/** @type {Service} */ { reply_packets: packets }) =>
    packets > 0 ? count(packets) : '';
  return new Facts([
    ['New flows so far', ({ new_connections: fresh }) => count(fresh)],
    ['Closed', ({ closed }) => count(closed)],
    ['Of these reset', ({ resets }) => count(resets)],
    ['Client packets', ({ packets }) => count(packets)],
    ['Replies translated', replies],
    ['Dropped', ({ dropped }) => count(dropped)],
    ['Flows without a record', ({ untracked }) => (untracked > 0 ? count(untracked) : '')],
    ['Clients sent', mqttWords],
    [
      'Longest keep-alive',
      ({ mqtt }) =>
        mqtt?.longest_keep_alive_seconds ? duration(mqtt.longest_keep_alive_seconds) : '',
    ],
    [
      'First packets',
      ({ mqtt }) =>
        mqtt ? (mqtt.checks_first_packets ? 'checked: CONNECT only' : 'not checked') : '',
    ],
    ['Guard', guardWords],
  ]);
}

/** @param {Service} service */
function mqttWords({ mqtt }) {
  const seen = Object.entries(mqtt?.packets ?? {}).filter(([, number]) => number > 0);
  return seen.map(([name, number]) => `${name} ${scaled(number)}`).join(', ');
}

/** The same words as `tidegate status` has. @param {Service} service */
export function guardWords({ guard }) {
  const counts = [
    ['denied', guard.denied],
    ["beyond a source's rate", guard.source_limited],
    ["beyond the service's rate", guard.service_limited],
    ['challenged', guard.challenged],
    ['answers', guard.answered],
  ];
  const told = counts
    .filter(([, number]) => Number(number) > 0)
    .map(([what, number]) => `${what} ${count(Number(number))}`);
  if (guard.is_challenging) told.unshift('new clients are challenged');
  if (guard.access_entries > 0)
    told.push(`${plural(guard.access_entries, 'prefix', 'prefixes')} in the access list`);
  return told.join('; ');
}
