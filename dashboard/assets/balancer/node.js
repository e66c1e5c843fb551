// The node itself: how its packets end, its flow table, its configuration, and who is told of events.

import { h, setHidden, setText } from '../common/dom.js';
import { count, counts, duration } from '../common/format.js';
import { Facts, rateText, section } from '../common/parts.js';
import { Group, Plot } from '../common/plot.js';
import { Table } from '../common/table.js';
import { TOTAL } from './model.js';
import { isDrop } from './rates.js';
import { verdict } from './words.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('../../types/balancer.d.ts').Status} Status
 * @typedef {import('../../types/balancer.d.ts').Notifier} Notifier
 * @typedef {import('../../types/balancer.d.ts').Dashboard} Dashboard
 * @typedef {{label: string, number: number, rate: number}} Ending
 */

export class NodeView {
  constructor() {
    const group = new Group();
    this.packets = new Plot({ title: 'Packets/s', format: rateText, group });
    this.drops = new Plot({ title: 'Dropped/s', format: rateText, group });
    this.endings = verdictTable();
    this.notifiers = notifierTable();
    this.facts = nodeFacts();
    this.told = section('Who is told of events', this.notifiers.element);
    this.lookers = lookerFacts();
    this.looked = section('Who looks', this.lookers.element);
    this.error = h('pre', { class: 'said' });
    this.element = h(
      'div',
      { class: 'view' },
      h('header', { class: 'heading' }, h('h1', { tabindex: -1 }, 'Node')),
      section('Process', this.facts.element, this.error),
      h('div', { class: 'plots' }, this.packets.element, this.drops.element),
      section('How packets end', this.endings.element),
      this.told,
      this.looked,
    );
  }

  /** @param {Model} model */
  update(model) {
    const { status, rates } = model;
    if (status === null) return;
    const { packets, drops } = model.history(TOTAL);
    this.packets.update(
      [{ series: packets }],
      model.second,
      rateText(model.calmly(TOTAL, 'packets')),
    );
    this.drops.update([{ series: drops }], model.second, rateText(model.calmly(TOTAL, 'drops')));
    this.facts.update(status);
    setText(this.error, status.config.last_error ?? '');
    setHidden(this.error, status.config.last_error === null);
    const endings = Object.entries(status.verdicts)
      .filter(([, number]) => number > 0)
      .map(([label, number]) => ({ label, number, rate: rates?.verdicts.get(label) ?? NaN }));
    this.endings.update(
      endings.sort((a, b) => group(a.label) - group(b.label) || b.number - a.number),
    );
    this.notifiers.update(status.notifiers);
    this.told.hidden = status.notifiers.length === 0;
    this.looked.hidden = !status.dashboard;
    if (status.dashboard) this.lookers.update(status.dashboard);
  }
}

/** Forwarded, answered and left alone first, dropped last. @param {string} label */
function group(label) {
  if (isDrop(label)) return 2;
  return label.startsWith('pass_') ? 1 : 0;
}

/** @returns {Table<Ending>} */
function verdictTable() {
  return new Table({
    caption: 'How packets end',
    key: ({ label }) => label,
    columns: [
      { id: 'words', label: 'What', isTitle: true, text: ({ label }) => verdict(label) },
      { id: 'label', label: 'Verdict', text: ({ label }) => label },
      {
        id: 'number',
        label: 'So far',
        isNumber: true,
        text: ({ number }) => count(number),
        order: ({ number }) => number,
      },
      {
        id: 'rate',
        label: 'A second',
        isNumber: true,
        text: ({ rate }) => rateText(rate),
        order: ({ rate }) => rate || 0,
      },
    ],
    onRow: (row, { label, rate }) => row.classList.toggle('is-drop', isDrop(label) && rate > 0),
  });
}

/** @returns {Table<Notifier>} */
function notifierTable() {
  const number = (/** @type {'sent' | 'failed' | 'held_back' | 'waiting'} */ what) => ({
    isNumber: true,
    text: (/** @type {Notifier} */ notifier) => count(notifier[what]),
  });
  return new Table({
    caption: 'Who is told of events',
    key: ({ name }) => name,
    columns: [
      { id: 'name', label: 'Name', isTitle: true, text: ({ name }) => name },
      { id: 'type', label: 'Means', text: ({ type }) => type },
      { id: 'sent', label: 'Told', ...number('sent') },
      { id: 'failed', label: 'Given up', ...number('failed') },
      { id: 'held', label: 'Held back', ...number('held_back') },
      { id: 'waiting', label: 'Waiting', ...number('waiting') },
      { id: 'error', label: 'Last error', text: ({ last_error: error }) => error ?? '' },
    ],
  });
}

/** @returns {Facts<Status>} */
function nodeFacts() {
  return new Facts([
    ['Version', ({ version }) => version],
    ['Up for', ({ uptime_seconds: seconds }) => duration(seconds)],
    ['Process', ({ pid }) => String(pid)],
    ['Interface', ({ interface: it }) => `${it.name}, ${it.xdp_mode} mode`],
    ['Configuration', ({ config }) => `${config.path}, generation ${config.generation}`],
    ['Reloads', ({ counters: it }) => count(it.reloads_ok)],
    ['Reloads refused', ({ counters: it }) => count(it.reloads_failed)],
    ['Tracked flows', ({ flows }) => count(flows.tracked)],
    ['Half open', ({ flows }) => count(flows.half_open)],
    [
      'Changes not taken at once',
      ({ counters: it }) => (it.apply_errors > 0 ? `${count(it.apply_errors)}, see the log` : ''),
    ],
  ]);
}

/** @returns {Facts<Dashboard>} */
function lookerFacts() {
  return new Facts([
    ['Sessions', ({ sessions }) => count(sessions)],
    ['Live pages', ({ live_streams: streams }) => count(streams)],
    ['Connections', ({ connections }) => count(connections)],
    ['Too many of them', ({ connections_refused: refused }) => (refused > 0 ? count(refused) : '')],
    ['Accounts', ({ accounts }) => count(accounts)],
    ['Tokens', ({ tokens }) => count(tokens)],
    ['Logins', ({ logins }) => counts(logins)],
    ['Requests refused', ({ refused }) => counts(refused)],
  ]);
}
