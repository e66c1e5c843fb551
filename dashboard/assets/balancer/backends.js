// The backends of a service as a table.

import { h, setAttribute, setHidden, setText } from '../common/dom.js';
import { count, latency, socket } from '../common/format.js';
import { Badge, rateText } from '../common/parts.js';
import { format } from '../common/routes.js';
import { Table } from '../common/table.js';
import { DrainBar, sessionsText, ShareBar, StripPicture, weightText } from './parts.js';
import { keyOf } from './rates.js';
import { ofBackend } from './standing.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('../../types/balancer.d.ts').Backend} Backend
 * @typedef {{service: import('../../types/balancer.d.ts').Service, backend: Backend, model: Model}} Item
 */

/**
 * @param {import('./actions.js').Actions | null} actions
 * @returns {Table<Item>}
 */
export function backendTable(actions) {
  const rate = (/** @type {'fresh' | 'packets' | 'bits'} */ what) => {
    const value = (/** @type {Item} */ { service, backend, model }) =>
      model.calmly(keyOf(service.name, backend.name), what);
    return {
      isNumber: true,
      text: (/** @type {Item} */ item) => rateText(value(item)),
      order: (/** @type {Item} */ item) => value(item) || 0,
    };
  };
  /** @type {import('../common/table.js').Column<Item>[]} */
  const columns = [
    {
      id: 'name',
      label: 'Backend',
      isTitle: true,
      make: () => new Name(),
      order: ({ backend }) => backend.name,
    },
    {
      id: 'state',
      label: 'State',
      make: () => new State(),
      order: ({ backend }) => ofBackend(backend).word,
    },
    { id: 'strip', label: 'Last 10 min', make: () => new Strip() },
    {
      id: 'sessions',
      label: 'Sessions',
      isNumber: true,
      make: () => new SessionCell(),
      order: ({ backend }) => backend.sessions.count,
    },
    {
      id: 'share',
      label: 'Share',
      isNumber: true,
      make: () => new Share(),
      order: ({ backend }) => backend.share,
    },
    { id: 'fresh', label: 'New/s', ...rate('fresh') },
    { id: 'packets', label: 'Packets/s', ...rate('packets') },
    { id: 'bits', label: 'Bit/s', ...rate('bits') },
    {
      id: 'probe',
      label: 'Probe',
      isNumber: true,
      text: probe,
      order: ({ backend }) => backend.probe.last_seconds ?? 0,
    },
  ];
  if (actions) columns.push({ id: 'actions', label: 'Change', make: () => actions.forRow() });
  return new Table({
    caption: 'Backends',
    columns,
    key: ({ backend }) => backend.name,
    onRow: (row, { backend }) => setAttribute(row, 'data-tone', ofBackend(backend).tone),
  });
}

/** @param {Item} item */
function probe({ backend }) {
  const seconds = backend.probe.last_seconds;
  return seconds === null || backend.health === 'down' ? '–' : latency(seconds);
}

class Name {
  constructor() {
    this.link = h('a', {});
    this.address = h('small', {});
    this.element = h('span', { class: 'named' }, this.link, this.address);
  }

  /** @param {Item} item */
  update({ service, backend }) {
    setText(this.link, backend.name);
    setAttribute(this.link, 'href', format(['services', service.name, backend.name]));
    setText(this.address, socket(backend.address, backend.port));
  }
}

/** The word, and below it why, or how far a drain is. */
class State {
  constructor() {
    this.badge = new Badge();
    this.reason = h('small', {});
    this.drain = new DrainBar();
    this.element = h(
      'span',
      { class: 'state' },
      this.badge.element,
      this.reason,
      this.drain.element,
    );
  }

  /** @param {Item} item */
  update({ service, backend, model }) {
    this.badge.update(ofBackend(backend));
    const reason = backend.admin === 'disabled' ? '' : (backend.reason ?? '');
    setText(this.reason, reason);
    setHidden(this.reason, reason === '');
    const drain = model.drains.get(keyOf(service.name, backend.name));
    this.drain.update(backend.drained ? undefined : drain?.progress);
  }
}

class Strip extends StripPicture {
  /** @param {any} item */
  update({ service, backend, model }) {
    super.update(model.strip(keyOf(service.name, backend.name)), model.second);
  }
}

/** How many, and below it how many it may have. */
class SessionCell {
  constructor() {
    this.count = h('span', {});
    this.most = h('small', {});
    this.element = h('span', { class: 'stacked' }, this.count, this.most);
  }

  /** @param {Item} item */
  update({ backend: { sessions, max_connections: most } }) {
    setText(this.count, sessionsText(sessions));
    setText(this.most, `of ${count(most)}`);
    setHidden(this.most, most === 0);
  }
}

/** The share of new flows, and below it the weight that it comes from. */
class Share {
  constructor() {
    this.bar = new ShareBar();
    this.weight = h('small', {});
    this.element = h('span', { class: 'stacked' }, this.bar.element, this.weight);
  }

  /** @param {Item} item */
  update({ backend }) {
    this.bar.update(backend.share);
    setText(this.weight, `weight ${weightText(backend)}`);
  }
}
