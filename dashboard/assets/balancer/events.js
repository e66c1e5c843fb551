// What has happened, the newest first, with a filter that the address keeps.

import { h, List, setHidden, setText } from '../common/dom.js';
import { moment, plural } from '../common/format.js';
import { icon } from '../common/icons.js';
import { format } from '../common/routes.js';
import { admits } from './filter.js';

/**
 * @typedef {import('../../types/balancer.d.ts').EventRecord} EventRecord
 * @typedef {import('./model.js').Model} Model
 */

/** More are shown if somebody asks for them. */
const STEP = 100;

export class EventsView {
  /** @param {Record<string, string>} options of the address */
  constructor(options) {
    this.shown = STEP;
    const labels = {
      '': 'All',
      notice: 'Notice and worse',
      warning: 'Warning and worse',
      error: 'Errors',
    };
    this.severity = choice('severity', Object.entries(labels));
    this.service = choice('service', [['', 'All services']]);
    this.text = h('input', { type: 'search', id: 'text', placeholder: 'Words or kind' });
    this.severity.value = options.severity ?? '';
    this.wanted = options.service ?? '';
    this.text.value = options.text ?? '';
    this.summary = h('p', { class: 'about', 'aria-live': 'polite' });
    this.items = h('ul', { class: 'events is-long' });
    this.list = new List(
      this.items,
      ({ seq }) => String(seq),
      (event) => new EventRow(event),
    );
    this.more = h('button', { type: 'button', class: 'quiet' }, 'Show more');
    this.element = h(
      'div',
      { class: 'view' },
      h('header', { class: 'heading' }, h('h1', { tabindex: -1 }, 'Events'), this.summary),
      h(
        'form',
        { class: 'filters', role: 'search' },
        h('label', {}, 'Severity', this.severity),
        h('label', {}, 'Service', this.service),
        h('label', {}, 'Text', this.text),
      ),
      h('section', { class: 'panel' }, this.items, this.more),
    );
    /** @type {Model | null} */
    this.model = null;
    this.listen();
  }

  listen() {
    for (const field of [this.severity, this.service, this.text]) {
      field.addEventListener('input', () => this.handleFilter());
    }
    this.text.form?.addEventListener('submit', (event) => event.preventDefault());
    this.more.addEventListener('click', () => {
      this.shown += STEP;
      if (this.model) this.update(this.model);
    });
  }

  /** The address changes with it, so that it can be sent to somebody; going back leaves the view. */
  handleFilter() {
    this.shown = STEP;
    this.wanted = this.service.value;
    history.replaceState(null, '', format(['events'], { ...this.filter() }));
    if (this.model) this.update(this.model);
  }

  /** @returns {import('./filter.js').Filter} */
  filter() {
    return { severity: this.severity.value, service: this.wanted, text: this.text.value.trim() };
  }

  /** @param {Model} model */
  update(model) {
    this.model = model;
    this.offer(model.status?.services.map(({ name }) => name) ?? []);
    const { records, missed } = model.journal;
    const found = records.filter((event) => admits(event, this.filter()));
    this.list.update(found.slice(0, this.shown));
    setHidden(this.more, found.length <= this.shown);
    const forgotten =
      missed > 0 ? `, ${plural(missed, 'older one is', 'older ones are')} not remembered` : '';
    setText(this.summary, `${found.length} of ${plural(records.length, 'event')}${forgotten}`);
  }

  /** @param {string[]} names */
  offer(names) {
    const all = this.wanted === '' || names.includes(this.wanted) ? names : [...names, this.wanted];
    const known = [...this.service.options].slice(1).map(({ value }) => value);
    if (known.join('\n') !== all.join('\n')) {
      const options = all.map((name) => h('option', { value: name }, name));
      this.service.replaceChildren(h('option', { value: '' }, 'All services'), ...options);
    }
    this.service.value = this.wanted;
  }
}

/**
 * @param {string} id
 * @param {[string, string][]} options
 */
function choice(id, options) {
  return h('select', { id }, ...options.map(([value, label]) => h('option', { value }, label)));
}

/** One event. It does not change any more. */
export class EventRow {
  /** @param {EventRecord} event */
  constructor({ time, severity, kind, message }) {
    const at = Date.parse(time);
    const tone = severity === 'info' ? 'quiet' : severity;
    const sign = h(
      'span',
      { class: 'event-sign', title: severity },
      icon(severity),
      h('span', { class: 'unseen' }, severity),
    );
    this.element = h(
      'li',
      { class: `tone-${tone}` },
      sign,
      h('time', { datetime: time, title: time }, moment(at, Date.now())),
      h('span', { class: 'event-message' }, message),
      h('code', { class: 'event-kind' }, kind),
    );
  }

  update() {}
}
