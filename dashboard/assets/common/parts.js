// What views are made of: a state as a badge, a figure, labels and values.

import { h, setHidden, setText } from './dom.js';
import { scaled } from './format.js';
import { icon } from './icons.js';
import { Spark } from './plot.js';

/**
 * @typedef {'good' | 'quiet' | 'notice' | 'warning' | 'error'} Tone
 * @typedef {{word: string, tone: Tone}} Standing
 */

/** The sign of a tone. It has a form of its own as well as a colour. @type {Record<string, string>} */
const SIGNS = { good: 'good', quiet: 'info', notice: 'notice', warning: 'warning', error: 'error' };

/** A state in a word, with its sign. */
export class Badge {
  constructor() {
    this.word = h('span', {});
    this.element = h('span', { class: 'badge' }, this.word);
    this.tone = '';
  }

  /** @param {Standing} standing */
  update({ word, tone }) {
    setText(this.word, word);
    if (tone === this.tone) return;
    this.tone = tone;
    this.element.className = `badge tone-${tone}`;
    this.element.replaceChildren(icon(SIGNS[tone]), this.word);
  }
}

/** A number with its name, and how it was. */
export class Figure {
  /**
   * @param {string} label
   * @param {number} [least] see `Spark`
   */
  constructor(label, least) {
    this.value = h('span', { class: 'figure-value' });
    this.spark = new Spark(least);
    const name = h('span', { class: 'figure-label' }, label);
    this.element = h('div', { class: 'figure' }, name, this.value, this.spark.element);
  }

  /**
   * @param {string} value
   * @param {import('./series.js').Series} series
   * @param {number} now
   */
  update(value, series, now) {
    setText(this.value, value);
    this.spark.update(series, now);
  }
}

/** Labels and values. What has no value is left out. @template T */
export class Facts {
  /** @param {[string, (item: T) => string][]} entries */
  constructor(entries) {
    this.rows = entries.map(([label, text]) => {
      const value = h('dd', {});
      return { text, value, row: h('div', {}, h('dt', {}, label), value) };
    });
    this.element = h('dl', { class: 'facts' }, ...this.rows.map(({ row }) => row));
  }

  /** @param {T} item */
  update(item) {
    for (const { text, value, row } of this.rows) {
      const words = text(item);
      setText(value, words);
      setHidden(row, words === '');
    }
  }
}

/**
 * A rate, with no more digits than it deserves; a dash if it is not known yet.
 * @param {number} rate
 */
export function rateText(rate) {
  if (Number.isNaN(rate)) return '–';
  return scaled(rate < 9.95 ? Math.round(rate * 10) / 10 : Math.round(rate));
}

/**
 * @param {string} title
 * @param {...import('./dom.js').Child} content
 */
export function section(title, ...content) {
  return h('section', { class: 'panel' }, h('h2', {}, title), ...content);
}
