// A plot of the last minutes, ten at most. Pointing, touching, or the arrow keys show the value of a second,
// in all plots of a group at once.

import { h, setAttribute, setHidden, setStyle, setText, svg } from './dom.js';
import { clock } from './format.js';
import { greatest, niceEnd, paths } from './scale.js';
import { LENGTH, spanOf } from './series.js';

/** Points of a line without axes. */
const POINTS = 120;

const WIDTH = 600;
const HEIGHT = 100;

/** Plots that share a cursor. */
export class Group {
  constructor() {
    /** @type {Plot[]} */
    this.plots = [];
    /** Seconds before the end of the plots; `null`: nobody points. @type {number | null} */
    this.ago = null;
  }

  /** @param {number | null} ago */
  point(ago) {
    this.ago = ago;
    for (const plot of this.plots) plot.showCursor();
  }
}

/**
 * @typedef {Object} Line
 * @property {import('./series.js').Series} series
 * @property {string} [name] needed where there are several
 */

export class Plot {
  /**
   * @param {Object} options
   * @param {string} options.title
   * @param {(value: number) => string} options.format
   * @param {Group} options.group
   */
  constructor({ title, format, group }) {
    this.format = format;
    this.group = group;
    group.plots.push(this);
    /** @type {Line[]} */
    this.lines = [];
    this.now = 0;
    this.span = LENGTH;
    this.drawn = [1, 2].map((number) => ({
      area: svg('path', { class: `plot-area plot-area-${number}` }),
      line: svg('path', { class: `plot-line plot-line-${number}` }),
    }));
    const middle = svg('path', { class: 'plot-grid', d: `M0 ${HEIGHT / 2}H${WIDTH}` });
    const top = svg('path', { class: 'plot-grid', d: `M0 0H${WIDTH}` });
    const shapes = this.drawn.flatMap(({ area, line }) => [area, line]);
    const size = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none' };
    this.cursor = h('div', { class: 'plot-cursor', hidden: true });
    this.end = h('span', { class: 'plot-end' });
    this.half = h('span', { class: 'plot-half' });
    this.time = h('small', {});
    this.value = h('span', {});
    this.latest = '';
    this.field = h(
      'div',
      {
        class: 'plot-field',
        tabindex: 0,
        role: 'slider',
        'aria-label': `${title}, the last minutes`,
      },
      svg('svg', { ...size, 'aria-hidden': 'true' }, middle, top, ...shapes),
      this.end,
      this.half,
      this.cursor,
    );
    setAttribute(this.field, 'aria-valuemax', 0);
    this.ages = ['', '', 'now'].map((age) => h('span', {}, age));
    this.element = h(
      'figure',
      { class: 'plot' },
      h(
        'figcaption',
        {},
        h('span', { class: 'plot-title' }, title),
        h('span', { class: 'plot-value' }, this.time, this.value),
      ),
      this.field,
      h('div', { class: 'plot-ages', 'aria-hidden': 'true' }, ...this.ages),
    );
    this.listen();
  }

  listen() {
    const { field, group } = this;
    const follow = (/** @type {PointerEvent} */ event) => {
      const box = field.getBoundingClientRect();
      const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      group.point(Math.round((1 - part) * (this.span - 1)));
    };
    field.addEventListener('pointermove', follow);
    field.addEventListener('pointerdown', follow);
    field.addEventListener('pointerleave', () => group.point(null));
    field.addEventListener('blur', () => group.point(null));
    field.addEventListener('keydown', (event) => {
      const steps = { ArrowLeft: 5, ArrowRight: -5, Home: LENGTH, End: -LENGTH };
      const step = steps[/** @type {keyof typeof steps} */ (event.key)];
      if (step === undefined) return;
      event.preventDefault();
      group.point(Math.min(this.span - 1, Math.max(0, (group.ago ?? 0) + step)));
    });
  }

  /**
   * @param {Line[]} lines two at most
   * @param {number} now the second at the right edge
   * @param {string} value what stands beside the title
   */
  update(lines, now, value) {
    this.lines = lines;
    this.now = now;
    this.setSpan(
      spanOf(
        lines.map(({ series }) => series),
        now,
      ),
    );
    const values = lines.map(({ series }) => series.until(now, this.span));
    // Some room above, so that the line is not behind the axis's words.
    const end = niceEnd(greatest(values.flat()) * 1.08);
    this.drawn.forEach(({ area, line }, index) => {
      const d = values[index] ? paths(values[index], end, WIDTH, HEIGHT) : { area: '', line: '' };
      setAttribute(area, 'd', d.area);
      setAttribute(line, 'd', d.line);
    });
    setText(this.end, this.format(end).replace('.0', ''));
    setText(this.half, this.format(end / 2).replace('.0', ''));
    this.latest = value;
    this.showCursor();
  }

  /** @param {number} span seconds */
  setSpan(span) {
    this.span = span;
    setText(this.ages[0], `${span / 60} min ago`);
    setText(this.ages[1], span > 60 ? `${span / 120} min` : '30 s');
    setAttribute(this.field, 'aria-valuemin', 1 - span);
  }

  showCursor() {
    const { ago } = this.group;
    const second = this.now - (ago ?? 0);
    const words = this.lines.map(({ series, name }) => {
      const value = series.at(second);
      const text = Number.isNaN(value) ? '–' : this.format(value);
      return name === undefined ? text : `${name} ${text}`;
    });
    const [value, time] = [words.join(', '), clock(second * 1000)];
    setAttribute(this.field, 'aria-valuenow', -(ago ?? 0));
    setAttribute(this.field, 'aria-valuetext', `${value} at ${time}`);
    // What is pointed at stands where the latest value stands otherwise, and covers nothing.
    setText(this.value, ago === null ? this.latest : value);
    setText(this.time, ago === null ? '' : time);
    setHidden(this.cursor, ago === null);
    if (ago === null) return;
    const part = Math.max(0, 1 - ago / (this.span - 1));
    setStyle(this.cursor, 'left', `${part * 100}%`);
  }
}

/** A line without axes, for a row of a table. Its words stand beside it. */
export class Spark {
  /** @param {number} [least] what its height stands for at least, so that trifles stay low */
  constructor(least = 1) {
    this.least = least;
    /** @type {import('./series.js').Series | null} */
    this.series = null;
    this.last = 0;
    this.area = svg('path', { class: 'plot-area plot-area-1' });
    this.line = svg('path', { class: 'plot-line plot-line-1' });
    const size = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none' };
    const names = { class: 'spark', 'aria-hidden': 'true' };
    this.element = svg('svg', { ...size, ...names }, this.area, this.line);
  }

  /**
   * @param {import('./series.js').Series} series
   * @param {number} now
   */
  update(series, now) {
    // There is no room for a point each second, and nothing to see until there is another.
    const span = spanOf([series], now);
    const point = span / POINTS;
    const last = Math.floor(now / Math.max(1, point));
    if (series === this.series && last === this.last) return;
    this.series = series;
    this.last = last;
    const values =
      point < 1
        ? series.until(now, span)
        : Array.from({ length: POINTS }, (_, at) =>
            series.mean(now - span + point * (at + 1), point),
          );
    const d = paths(values, Math.max(greatest(values) * 1.1, this.least), WIDTH, HEIGHT);
    setAttribute(this.area, 'd', d.area);
    setAttribute(this.line, 'd', d.line);
  }
}
