// A service's slot table as a picture: one bar, in which each backend has as much room as it has of
// the new flows. Two shades alternate, as no reader can tell a hundred colours apart; pointing at a
// part names it.

import { h, List, setAttribute, setHidden, setStyle, setText } from '../common/dom.js';
import { percent } from '../common/format.js';
import { format } from '../common/routes.js';
import { slotWords } from './slotwords.js';
import { ofBackend } from './standing.js';

/**
 * @typedef {import('../../types/balancer.d.ts').Service} Service
 * @typedef {import('../../types/balancer.d.ts').Backend} Backend
 */

/** Narrower parts have no room for their name. */
const NAMED = 0.06;

export class SlotPicture {
  constructor() {
    this.bar = h('div', { class: 'slots-bar' });
    this.list = new List(
      this.bar,
      ({ backend }) => backend.name,
      () => new Part(),
    );
    this.none = h('p', { class: 'slots-none' }, 'No backend takes new flows.');
    this.words = h('p', { class: 'slots-words' });
    this.element = h('div', { class: 'slots' }, this.bar, this.none, this.words);
  }

  /** @param {Service} service */
  update({ name, backends, slots }) {
    const taking = backends.filter(({ share }) => share > 0);
    this.list.update(taking.map((backend, at) => ({ backend, at, service: name })));
    setHidden(this.bar, taking.length === 0);
    setHidden(this.none, taking.length > 0);
    setText(this.words, slotWords(slots));
    setHidden(this.words, this.words.textContent === '');
  }
}

class Part {
  constructor() {
    this.name = h('span', {});
    this.element = h('a', { class: 'slots-part' }, this.name);
  }

  /** @param {{backend: Backend, at: number, service: string}} item */
  update({ backend, at, service }) {
    const { name, share } = backend;
    const words = `${name}: ${percent(share)} of new flows, ${ofBackend(backend).word}`;
    setAttribute(this.element, 'href', format(['services', service, name]));
    setAttribute(this.element, 'title', words);
    setAttribute(this.element, 'aria-label', words);
    setAttribute(this.element, 'data-shade', at % 2);
    setStyle(this.element, 'flex-grow', share.toFixed(4));
    setText(this.name, share >= NAMED ? name : '');
  }
}
