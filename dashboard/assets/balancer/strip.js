// How a backend was, the last ten minutes: one cell for each ten seconds, with the worst of them.

/** @typedef {'up' | 'held' | 'unknown' | 'down'} State */

/** Cells of a strip, and the seconds that each stands for. */
export const CELLS = 60;
export const CELL_SECONDS = 10;

/** From best to worst. @type {State[]} */
const ORDER = ['up', 'held', 'unknown', 'down'];

export class Strip {
  constructor() {
    /** @type {Map<number, State>} */
    this.cells = new Map();
  }

  /**
   * @param {State} state
   * @param {number} second
   */
  observe(state, second) {
    const cell = Math.floor(second / CELL_SECONDS);
    const known = this.cells.get(cell);
    if (known === undefined || ORDER.indexOf(state) > ORDER.indexOf(known)) {
      this.cells.set(cell, state);
    }
    for (const old of this.cells.keys()) {
      if (old > cell - CELLS) break;
      this.cells.delete(old);
    }
  }

  /**
   * Fills in how it was before the page was opened: between two changes of which the daemon tells, a
   * backend was what the first says it came to, and before the first what that one says it came from.
   * @param {{second: number, from: State, to: State}[]} changes in their order
   * @param {number} start the daemon's: nothing is known of what was before
   * @param {number} now
   * @param {State} state how it is
   */
  recall(changes, start, now, state) {
    const seen = this.cells;
    this.cells = new Map();
    const oldest = Math.max(start, now - (CELLS - 1) * CELL_SECONDS);
    for (let second = oldest; second < now; second += CELL_SECONDS / 2) {
      this.observe(stateAt(changes, second, state), second);
    }
    for (const { second, to } of changes) if (second >= oldest) this.observe(to, second);
    for (const [cell, known] of seen) this.observe(known, cell * CELL_SECONDS);
  }

  /**
   * The cells up to `now`, the oldest first; `null`: nobody knows.
   * @param {number} now
   * @returns {(State | null)[]}
   */
  until(now) {
    const last = Math.floor(now / CELL_SECONDS);
    return Array.from({ length: CELLS }, (_, at) => this.cells.get(last - CELLS + 1 + at) ?? null);
  }
}

/**
 * @param {{second: number, from: State, to: State}[]} changes
 * @param {number} second
 * @param {State} otherwise
 */
function stateAt(changes, second, otherwise) {
  const before = changes.findLast((change) => change.second <= second);
  return before?.to ?? changes[0]?.from ?? otherwise;
}

/**
 * Runs of equal cells.
 * @param {(State | null)[]} cells
 * @returns {{state: State | null, first: number, length: number}[]}
 */
export function runsOf(cells) {
  /** @type {{state: State | null, first: number, length: number}[]} */
  const runs = [];
  cells.forEach((state, first) => {
    const last = runs.at(-1);
    if (last && last.state === state) last.length += 1;
    else runs.push({ state, first, length: 1 });
  });
  return runs;
}

/**
 * The same in words, for who cannot see it.
 * @param {(State | null)[]} cells
 */
export function inWords(cells) {
  const known = /** @type {State[]} */ (cells.filter((state) => state !== null));
  if (known.length === 0) return 'nothing known of the last minutes';
  const minutes = Math.max(1, Math.round((known.length * CELL_SECONDS) / 60));
  const bad = known.filter((state) => state !== 'up');
  const span = `the last ${minutes === 1 ? 'minute' : `${minutes} minutes`}`;
  if (bad.length === 0) return `up for all of ${span}`;
  const worst = [...ORDER].reverse().find((state) => known.includes(state));
  const share = Math.round((bad.length / known.length) * 100);
  return `not up for ${share}% of ${span}, at worst ${worst}`;
}
