// What several views show of backends: how one was, how far a drain is, shares, sessions, weights.

import { h, setAttribute, setHidden, setStyle, setText, svg } from '../common/dom.js';
import { count, duration, percent } from '../common/format.js';
import { inWords as drainInWords } from './drain.js';
import { CELLS, inWords as stripInWords, runsOf } from './strip.js';

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
 * The weight, with what of it is in force while a backend starts slowly.
 * @param {import('../../types/balancer.d.ts').Backend} backend
 */
export function weightText({ weight, effective_weight: effective }) {
  return effective > 0 && effective < weight
    ? `${effective.toFixed(1)} of ${weight}`
    : String(weight);
}
