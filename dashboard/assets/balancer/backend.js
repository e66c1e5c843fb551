// One backend of one service: all that is known of it, and what can be done.

import { h, List, setHidden, setText } from '../common/dom.js';
import { count, latency, percent, scaled, socket } from '../common/format.js';
import { Badge, Facts, rateText, section } from '../common/parts.js';
import { Group, Plot } from '../common/plot.js';
import { format } from '../common/routes.js';
import { EventRow } from './events.js';
import { DrainBar, sessionsText, StripPicture, weightText } from './parts.js';
import { keyOf } from './rates.js';
import { ofBackend } from './standing.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('../../types/balancer.d.ts').Backend} Backend
 */

const PLOTS = /** @type {const} */ ([
  ['sessions', 'Sessions'],
  ['fresh', 'New flows/s'],
  ['packets', 'Packets/s'],
  ['bits', 'Bit/s'],
]);

/** The newest of its events. */
const EVENTS = 20;

export class BackendView {
  /**
   * @param {import('./actions.js').Actions | null} actions
   * @param {string} service
   * @param {string} name
   */
  constructor(actions, service, name) {
    this.service = service;
    this.name = name;
    this.badge = new Badge();
    this.reason = h('p', { class: 'about' });
    this.drain = new DrainBar();
    this.actions = actions?.forRow() ?? null;
    const group = new Group();
    this.plots = PLOTS.map(([what, title]) => ({
      what,
      plot: new Plot({ title, format: scaled, group }),
    }));
    this.strip = new StripPicture();
    this.facts = backendFacts();
    this.events = h('ul', { class: 'events' });
    this.list = new List(
      this.events,
      ({ seq }) => String(seq),
      (event) => new EventRow(event),
    );
    const up = h('a', { href: format(['services', this.service]) }, this.service);
    this.known = h(
      'div',
      { class: 'view' },
      this.drain.element,
      h('div', { class: 'plots' }, ...this.plots.map(({ plot }) => plot.element)),
      section('Health, the last 10 minutes', this.strip.element),
      section('More', this.facts.element),
      section('Its events', this.events),
    );
    this.gone = h('p', { class: 'empty', hidden: true }, 'It is not there, or not any more.');
    this.element = h(
      'div',
      { class: 'view' },
      h(
        'nav',
        { class: 'crumbs', 'aria-label': 'Way back' },
        h('a', { href: format(['services']) }, 'Services'),
        ' / ',
        up,
      ),
      h(
        'header',
        { class: 'heading' },
        h('h1', { tabindex: -1 }, this.name),
        this.badge.element,
        this.actions?.element,
        this.reason,
      ),
      this.gone,
      this.known,
    );
  }

  /** @param {Model} model */
  update(model) {
    const service = model.status?.services.find(({ name }) => name === this.service);
    const backend = service?.backends.find(({ name }) => name === this.name);
    const isGone = service === undefined || backend === undefined;
    setHidden(this.gone, !isGone);
    for (const part of [this.known, this.badge.element, this.reason]) setHidden(part, isGone);
    if (this.actions) setHidden(this.actions.element, isGone);
    if (isGone) return;
    const key = keyOf(service.name, backend.name);
    this.badge.update(ofBackend(backend));
    const why = backend.reason === null ? '' : ` · ${backend.reason}`;
    setText(this.reason, `${socket(backend.address, backend.port)}${why}`);
    this.drain.update(model.drains.get(key)?.progress);
    this.actions?.update({ service, backend, model });
    const history = model.history(key);
    for (const { what, plot } of this.plots) {
      const value =
        what === 'sessions' ? sessionsText(backend.sessions) : rateText(model.calmly(key, what));
      plot.update([{ series: history[what] }], model.second, value);
    }
    this.strip.update(model.strip(key), model.second);
    this.facts.update(backend);
    const own = model.journal.records.filter(
      (it) => it.service === this.service && it.backend === this.name,
    );
    this.list.update(own.slice(0, EVENTS));
  }
}

/** @returns {Facts<Backend>} */
function backendFacts() {
  const positive = (/** @type {number} */ number) => (number > 0 ? count(number) : '');
  return new Facts([
    ['Weight', weightText],
    ['Share of new flows', ({ share }) => percent(share)],
    ['Most sessions', ({ max_connections: most }) => (most > 0 ? count(most) : 'any number')],
    ['By order', ({ admin }) => admin],
    ['By its probes', ({ health, held }) => (held ? 'held: nobody else answers either' : health)],
    ['Probes answered', ({ probe }) => count(probe.successes)],
    ['Probes failed', ({ probe }) => count(probe.failures)],
    [
      'Last answer took',
      ({ probe }) => (probe.last_seconds === null ? '' : latency(probe.last_seconds)),
    ],
    ['Next hop', ({ next_hop: hop }) => hop ?? 'unknown'],
    ['New flows so far', ({ new_connections: fresh }) => count(fresh)],
    ['Closed', ({ closed }) => count(closed)],
    ['Of these reset', ({ resets }) => count(resets)],
    ['Packets to it', ({ packets }) => count(packets)],
    ['Replies translated', ({ reply_packets: packets }) => positive(packets)],
    ['Dropped', ({ dropped }) => count(dropped)],
    ['Flows without a record', ({ untracked }) => positive(untracked)],
  ]);
}
