// The first view: is anything wrong, what, and since when; then what goes through, and who is well.

import { h, List, setAttribute, setText } from '../common/dom.js';
import { count, duration, scaled, socket } from '../common/format.js';
import { icon } from '../common/icons.js';
import { Badge, Figure, rateText, section } from '../common/parts.js';
import { Spark } from '../common/plot.js';
import { format } from '../common/routes.js';
import { Table } from '../common/table.js';
import { EventRow } from './events.js';
import { Health } from './health.js';
import { TOTAL } from './model.js';
import { sessionsText } from './parts.js';
import { ofBackend, ofRouter, ofVip, takesNew } from './standing.js';
import { role } from './words.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('../../types/balancer.d.ts').Service} Service
 */

/** The newest events that are shown here. */
const EVENTS = 6;

export class Overview {
  constructor() {
    this.health = new Health();
    const labels = ['Sessions', 'New flows/s', 'Packets/s', 'Bit/s'];
    this.figures = [...labels.map((label) => new Figure(label)), new Figure('Dropped/s', 20)];
    /** @type {Model | null} */
    this.model = null;
    this.table = this.services();
    this.node = h('ul', { class: 'lines' });
    this.lines = new List(
      this.node,
      ({ id }) => id,
      () => new NodeLine(),
    );
    this.events = h('ul', { class: 'events' });
    this.eventList = new List(
      this.events,
      ({ seq }) => String(seq),
      (event) => new EventRow(event),
    );
    this.footer = h('p', { class: 'footer' });
    this.element = h(
      'div',
      { class: 'view' },
      this.health.element,
      h('div', { class: 'figures' }, ...this.figures.map(({ element }) => element)),
      section('Services', h('div', { class: 'is-steady' }, this.table.element)),
      h(
        'div',
        { class: 'columns' },
        section('This node', this.node, link(['vrrp'], 'VRRP and sync')),
        section('Latest events', this.events, link(['events'], 'All events')),
      ),
      this.footer,
    );
  }

  /** @returns {Table<Service>} */
  services() {
    const rate = (/** @type {'fresh' | 'packets' | 'bits' | 'drops'} */ what) => ({
      text: (/** @type {Service} */ { name }) => rateText(this.model?.calmly(name, what) ?? NaN),
      order: (/** @type {Service} */ { name }) => this.model?.calmly(name, what) || 0,
    });
    return new Table({
      caption: 'Services',
      key: ({ name }) => name,
      columns: [
        {
          id: 'name',
          label: 'Service',
          isTitle: true,
          make: () => new ServiceName(),
          order: ({ name }) => name,
        },
        { id: 'state', label: 'State', make: () => new ServiceState() },
        { id: 'backends', label: 'Backends', make: () => new Backends() },
        {
          id: 'sessions',
          label: 'Sessions',
          isNumber: true,
          text: ({ sessions }) => sessionsText(sessions),
          order: ({ sessions }) => sessions.count,
        },
        { id: 'fresh', label: 'New/s', isNumber: true, ...rate('fresh') },
        { id: 'packets', label: 'Packets/s', isNumber: true, ...rate('packets') },
        { id: 'bits', label: 'Bit/s', isNumber: true, ...rate('bits') },
        { id: 'drops', label: 'Dropped/s', isNumber: true, ...rate('drops') },
        { id: 'plot', label: 'Packets, lately', make: () => this.spark() },
      ],
    });
  }

  spark() {
    const spark = new Spark();
    const update = (/** @type {Service} */ { name }) => {
      if (this.model) spark.update(this.model.history(name).packets, this.model.second);
    };
    return { element: spark.element, update };
  }

  /** @param {Model} model */
  update(model) {
    const { status } = model;
    if (status === null) return;
    this.model = model;
    this.health.update(model);
    const history = model.history(TOTAL);
    const isExact = status.services.every(({ sessions }) => sessions.exact);
    const sessions = status.services.reduce((sum, it) => sum + it.sessions.count, 0);
    const values = /** @type {const} */ (['fresh', 'packets', 'bits', 'drops']);
    this.figures[0].update(
      `${isExact ? '' : '~'}${count(sessions)}`,
      history.sessions,
      model.second,
    );
    values.forEach((what, at) => {
      this.figures[at + 1].update(rateText(model.calmly(TOTAL, what)), history[what], model.second);
    });
    this.table.update(status.services);
    this.lines.update(nodeLines(status));
    this.eventList.update(model.journal.records.slice(0, EVENTS));
    const { version, pid, uptime_seconds: up, config, interface: device } = status;
    const words = [
      `tidegate ${version} on ${device.name} (${device.xdp_mode} mode)`,
      `up ${duration(up)}, process ${pid}, configuration ${config.generation}`,
    ];
    setText(this.footer, words.join(', '));
  }
}

class ServiceName {
  constructor() {
    this.link = h('a', {});
    this.address = h('small', {});
    this.element = h('span', { class: 'named' }, this.link, this.address);
  }

  /** @param {Service} service */
  update({ name, vip, port, protocol }) {
    setAttribute(this.link, 'href', format(['services', name]));
    setText(this.link, name);
    setText(this.address, `${socket(vip, port)}/${protocol}`);
  }
}

class ServiceState extends Badge {
  /** @param {any} service */
  update(service) {
    super.update({ word: service.state, tone: service.state === 'up' ? 'good' : 'error' });
  }
}

/** A mark for each backend, and how many take new clients. */
class Backends {
  constructor() {
    this.marks = h('span', { class: 'marks', 'aria-hidden': 'true' });
    this.list = new List(
      this.marks,
      ({ name }) => name,
      () => mark(),
    );
    this.text = h('span', {});
    this.element = h('span', { class: 'marked' }, this.marks, this.text);
  }

  /** @param {Service} service */
  update({ backends }) {
    // A hundred would be a wall: the number says it.
    this.list.update(backends.length > 32 ? [] : backends);
    setText(this.text, `${backends.filter(takesNew).length} of ${backends.length}`);
  }
}

function mark() {
  const element = h('i', {});
  const update = (/** @type {import('../../types/balancer.d.ts').Backend} */ backend) => {
    const { word, tone } = ofBackend(backend);
    setAttribute(element, 'class', `tone-${tone}`);
    setAttribute(element, 'title', `${backend.name}: ${word}`);
  };
  return { element, update };
}

/** @typedef {{id: string, what: string, standing: import('./standing.js').Standing, about: string}} Line */

/**
 * Routers, addresses without one, and the peer, a line each.
 * @param {import('../../types/balancer.d.ts').Status} status
 * @returns {Line[]}
 */
function nodeLines({ vrrp, vips, sync }) {
  const routers = vrrp.routers.map((router) => ({
    id: `router ${router.name}`,
    what: `Router ${router.name}`,
    standing: ofRouter(router),
    about: [router.vips.join(', '), lastChange(router)].filter((part) => part !== '').join(' · '),
  }));
  const routed = new Set(vrrp.routers.flatMap((router) => router.vips));
  const alone = vips.filter(({ address }) => !routed.has(address.split('/')[0]));
  const addresses = alone.map((vip) => ({
    id: `vip ${vip.address}`,
    what: `VIP ${vip.address}`,
    standing: ofVip(vip),
    about: `on ${vip.interface}`,
  }));
  return [...routers, ...addresses, ...(sync ? [syncLine(sync)] : [])];
}

/** @param {import('../../types/balancer.d.ts').Router} router */
function lastChange({ last_change: last, role: now }) {
  return last === null ? '' : `${role(now)} for ${duration(last.seconds_ago)}`;
}

/**
 * @param {import('../../types/balancer.d.ts').Sync} sync
 * @returns {Line}
 */
function syncLine({ peer, sending, receiving }) {
  const isWell = sending.in_sync_seconds !== null && receiving.in_sync_seconds !== null;
  const seconds = Math.min(sending.in_sync_seconds ?? 0, receiving.in_sync_seconds ?? 0);
  const about = isWell
    ? `with ${peer} for ${duration(seconds)} · ${scaled(sending.entries)} entries`
    : (sending.error ?? receiving.error ?? `with ${peer}: not yet`);
  const standing = isWell
    ? { word: 'in sync', tone: /** @type {const} */ ('good') }
    : { word: 'not in sync', tone: /** @type {const} */ ('warning') };
  return { id: 'sync', what: 'Sync', standing, about };
}

class NodeLine {
  constructor() {
    this.what = h('span', { class: 'line-what' });
    this.badge = new Badge();
    this.about = h('small', {});
    this.element = h('li', {}, this.what, this.badge.element, this.about);
  }

  /** @param {Line} line */
  update({ what, standing, about }) {
    setText(this.what, what);
    this.badge.update(standing);
    setText(this.about, about);
  }
}

/**
 * @param {string[]} path
 * @param {string} label
 */
function link(path, label) {
  return h('a', { class: 'more', href: format(path) }, label, icon('next'));
}
