// A table whose rows are kept, and can be put in order. On a narrow screen a row becomes a card, with
// each column's name beside its value; the roles are said, as such a table is none to some browsers.

import { h, List, setAttribute, setText } from './dom.js';

/** Puts `broker10` after `broker9`. */
const NAMES = new Intl.Collator('en', { numeric: true });

/**
 * @template T
 * @typedef {Object} Column
 * @property {string} id
 * @property {string} label
 * @property {boolean} [isNumber]
 * @property {boolean} [isTitle] whether it names the row
 * @property {(item: T) => string} [text]
 * @property {(item: T) => import('./dom.js').Part<T>} [make] where text is not enough
 * @property {(item: T) => number | string} [order] what rows can be put in order by
 */

/** @template T */
export class Table {
  /**
   * @param {Object} options
   * @param {string} options.caption
   * @param {Column<T>[]} options.columns
   * @param {(item: T) => string} options.key
   * @param {(row: HTMLTableRowElement, item: T) => void} [options.onRow] has each row updated as well
   */
  constructor({ caption, columns, key, onRow = () => {} }) {
    this.columns = columns;
    this.key = key;
    this.onRow = onRow;
    /** @type {{id: string, isFalling: boolean} | null} */
    this.sort = null;
    /** @type {string[]} */
    this.sequence = [];
    /** @type {T[]} */
    this.items = [];
    this.body = h('tbody', { role: 'rowgroup' });
    this.heads = columns.map((column) => this.head(column));
    this.list = new List(this.body, key, (item) => this.row(item));
    this.element = h(
      'table',
      { role: 'table' },
      h('caption', { class: 'unseen' }, caption),
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ...this.heads)),
      this.body,
    );
  }

  /** @param {Column<T>} column */
  head({ id, label, isNumber, order }) {
    const props = { role: 'columnheader', scope: 'col', class: classes(id, isNumber) };
    if (!order) return h('th', props, label);
    const button = h('button', { type: 'button', class: 'sorter' }, label);
    button.addEventListener('click', () => this.sortBy(id));
    return h('th', props, button);
  }

  /** The greatest first, then the least, then as it was. @param {string} id */
  sortBy(id) {
    if (this.sort?.id !== id) this.sort = { id, isFalling: true };
    else this.sort = this.sort.isFalling ? { id, isFalling: false } : null;
    this.columns.forEach((column, index) => {
      const direction = this.sort?.isFalling ? 'descending' : 'ascending';
      setAttribute(this.heads[index], 'aria-sort', column.id === this.sort?.id && direction);
    });
    this.list.update(this.inOrder(true));
  }

  /** @param {T[]} items */
  update(items) {
    this.items = items;
    // A row must not move away from under a hand that is about to press its button.
    const isInHand = this.body.matches(':hover, :focus-within');
    this.list.update(this.inOrder(!isInHand));
  }

  /** @param {boolean} mayMove */
  inOrder(mayMove) {
    const column = this.columns.find(({ id }) => id === this.sort?.id);
    const order = column?.order;
    if (!order || !this.sort) return this.items;
    const sign = this.sort.isFalling ? -1 : 1;
    const sorted = [...this.items];
    if (mayMove) {
      sorted.sort((a, b) => sign * compare(order(a), order(b)));
    } else {
      const places = new Map(this.sequence.map((key, place) => [key, place]));
      const place = (/** @type {T} */ item) => places.get(this.key(item)) ?? Infinity;
      sorted.sort((a, b) => compare(place(a), place(b)));
    }
    this.sequence = sorted.map(this.key);
    return sorted;
  }

  /** @param {T} item */
  row(item) {
    const parts = this.columns.map((column) => this.cell(column, item));
    const element = h('tr', { role: 'row' }, ...parts.map((part) => part.element));
    const update = (/** @type {T} */ next) => {
      for (const part of parts) part.update(next);
      this.onRow(element, next);
    };
    return { element, update };
  }

  /**
   * @param {Column<T>} column
   * @param {T} item
   */
  cell({ id, label, isNumber, isTitle, text, make }, item) {
    const role = isTitle ? 'rowheader' : 'cell';
    const props = { role, class: classes(id, isNumber), 'data-label': label };
    const element = isTitle ? h('th', { ...props, scope: 'row' }) : h('td', props);
    if (!make) {
      return { element, update: (/** @type {T} */ next) => setText(element, text?.(next) ?? '') };
    }
    const part = make(item);
    element.append(part.element);
    return { element, update: (/** @type {T} */ next) => part.update(next) };
  }
}

/**
 * @param {string} id
 * @param {boolean} [isNumber]
 */
function classes(id, isNumber) {
  return isNumber ? `number column-${id}` : `column-${id}`;
}

/**
 * @param {number | string} a
 * @param {number | string} b
 */
function compare(a, b) {
  if (typeof a === 'string' || typeof b === 'string') return NAMES.compare(String(a), String(b));
  return a === b ? 0 : a - b;
}
