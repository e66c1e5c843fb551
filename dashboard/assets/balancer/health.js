// The head of the first view: a sentence, and below it each finding with its age and the way to more.

import { h, List, setAttribute, setHidden, setText } from '../common/dom.js';
import { briefly, moment, plural } from '../common/format.js';
import { icon } from '../common/icons.js';
import { takesNew } from './standing.js';

/**
 * @typedef {import('./model.js').Model} Model
 *
 * @typedef {Object} Item
 * @property {import('../common/journal.js').Finding} finding
 * @property {import('../common/journal.js').Beginning | null} since
 * @property {number} at the moment that ages are told of (epoch, ms)
 */

/** Is anything wrong, what, and since when. */
export class Health {
  constructor() {
    this.sign = h('span', { class: 'health-sign' });
    this.heading = h('h1', { tabindex: -1 });
    this.about = h('p', {});
    this.items = h('ul', { class: 'findings' });
    this.list = new List(
      this.items,
      ({ finding }) => finding.id,
      () => new FindingLine(),
    );
    this.tone = '';
    const head = h(
      'div',
      { class: 'health-head' },
      this.sign,
      h('div', {}, this.heading, this.about),
    );
    this.element = h('section', { class: 'health', 'aria-label': 'Health' }, head, this.items);
  }

  /** @param {Model} model */
  update({ status, headline, findings, beginnings, journal, at }) {
    if (status === null) return;
    const { tone, words } = headline;
    if (tone !== this.tone) {
      this.tone = tone;
      this.element.className = `health tone-${tone}`;
      this.sign.replaceChildren(icon(tone));
    }
    setText(this.heading, words);
    const backends = status.services.flatMap((service) => service.backends);
    const up = status.services.filter(({ state }) => state === 'up').length;
    const parts = [
      `${up} of ${plural(status.services.length, 'service')} up`,
      `${backends.filter(takesNew).length} of ${plural(backends.length, 'backend')} take new clients`,
    ];
    const isBad = (/** @type {{severity: string}} */ { severity }) =>
      severity === 'warning' || severity === 'error';
    const last = journal.lastTime(isBad);
    if (tone === 'good' && last !== null)
      parts.push(`last warning ${briefly((at - last) / 1000)} ago`);
    setText(this.about, parts.join(' · '));
    setHidden(this.items, findings.length === 0);
    this.list.update(
      findings.map((finding) => ({ finding, since: beginnings.of(finding.id), at })),
    );
  }
}

class FindingLine {
  constructor() {
    this.sign = h('span', {});
    this.text = h('span', { class: 'finding-text' });
    this.since = h('span', { class: 'finding-since' });
    this.link = h('a', {}, this.sign, this.text, this.since, icon('next'));
    this.element = h('li', {}, this.link);
    this.tone = '';
  }

  /** @param {Item} item */
  update({ finding, since, at }) {
    const { tone, text, href } = finding;
    if (tone !== this.tone) {
      this.tone = tone;
      this.element.className = `tone-${tone}`;
      this.sign.replaceChildren(icon(tone));
    }
    setText(this.text, text);
    setAttribute(this.link, 'href', href);
    if (since === null) return;
    const age = briefly((at - since.at) / 1000);
    const words = since.isAtLeast ? `for ${age} at least` : `since ${moment(since.at, at)}, ${age}`;
    setText(this.since, words);
  }
}
