// What several views show: a state as a badge, a figure, how a backend was, how far a drain is.

import { h, setAttribute, setHidden, setStyle, setText, svg } from '../common/dom.js';
import { count, duration, percent, scaled } from '../common/format.js';
import { icon } from '../common/icons.js';
import { Spark } from '../common/plot.js';
import { inWords as drainInWords } from './drain.js';
import { CELLS, inWords as stripInWords, runsOf } from './strip.js';

/** The sign of a tone. It has a form of its own as well as a colour. @type {Record<string, string>} */
const SIGNS = { good: 'good', quiet: 'info', notice: 'notice', warning: 'warning', error: 'error' };

/** A state in a word, with its sign. */
export class Badge {
  constructor() {
    this.word = h('span', {});
    this.element = h('span', { class: 'badge' }, this.word);
    this.tone = '';
  }

  /** @param {import('./standing.js').Standing} standing */
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
   * @param {import('../common/series.js').Series} series
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

/** How a backend was: high and full is down, low is up, so that it can be read without colour. */
export class StripPicture {
  constructor() {
    this.paths = new Map(
      ['up', 'held', 'unknown', 'down'].map((state) => [
        state,
        svg('path', { class: `strip-${state}` }),
      ]),
    );
    const size = { viewBox: `0 0 ${CELLS} 10`, preserveAspectRatio: 'none' };
    this.element = svg('svg', { ...size, class: 'strip', role: 'img' }, ...this.paths.values());
  }

  /**
   * @param {import('./strip.js').Strip} strip
   * @param {number} now
   */
  update(strip, now) {
    const cells = strip.until(now);
    const heights = { up: 4, held: 7, unknown: 2, down: 10 };
    /** @type {Record<string, string>} */
    const drawn = { up: '', held: '', unknown: '', down: '' };
    for (const { state, first, length } of runsOf(cells)) {
      if (state === null) continue;
      const height = heights[state];
      drawn[state] += `M${first} ${10 - height}h${length}v${height}h-${length}z`;
    }
    for (const [state, path] of this.paths) setAttribute(path, 'd', drawn[state]);
    setAttribute(this.element, 'aria-label', stripInWords(cells));
  }
}

/** How far a drain is. */
export class DrainBar {
  constructor() {
    this.bar = h('progress', { max: 1, 'aria-label': 'Drain' });
    this.words = h('span', {});
    this.element = h('div', { class: 'drain' }, this.bar, this.words);
  }

  /** @param {import('./drain.js').Progress | undefined} progress */
  update(progress) {
    setHidden(this.element, progress === undefined);
    if (progress === undefined) return;
    setAttribute(this.bar, 'value', progress.part.toFixed(3));
    setText(this.words, drainInWords(progress, duration, count));
  }
}

/** A part of a whole as a bar with its number. */
export class ShareBar {
  constructor() {
    this.bar = h('span', { class: 'share-bar', 'aria-hidden': 'true' });
    this.text = h('span', {});
    this.element = h('span', { class: 'share' }, this.bar, this.text);
  }

  /** @param {number} share */
  update(share) {
    setStyle(this.bar, '--part', share.toFixed(4));
    setText(this.text, percent(share));
  }
}

/**
 * An estimate is marked as one.
 * @param {import('../../types/balancer.d.ts').Sessions} sessions
 */
export function sessionsText({ count: number, exact }) {
  return `${exact ? '' : '~'}${count(number)}`;
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
 * The weight, with what of it is in force while a backend starts slowly.
 * @param {import('../../types/balancer.d.ts').Backend} backend
 */
export function weightText({ weight, effective_weight: effective }) {
  return effective > 0 && effective < weight
    ? `${effective.toFixed(1)} of ${weight}`
    : String(weight);
}

/**
 * @param {string} title
 * @param {...import('../common/dom.js').Child} content
 */
export function section(title, ...content) {
  return h('section', { class: 'panel' }, h('h2', {}, title), ...content);
}
