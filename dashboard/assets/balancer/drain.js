// How far a drain is, and how long it may take: from what is left, seen again and again.

/** Seconds that tell how fast sessions go; what was before counts no more. */
const WINDOW = 120;

/** Less than so many seconds of watching tell nothing of the pace. */
const LEAST = 10;

/**
 * @typedef {Object} Progress
 * @property {boolean} isDone
 * @property {number} left sessions
 * @property {boolean} isExact whether these are all
 * @property {number} first how many there were when the drain was first seen, or most since
 * @property {number} part what has gone, 0 to 1
 * @property {number} learning seconds until all sessions are known, 0: they are
 * @property {number | null} rest seconds, at the pace of the last two minutes; `null`: none can be told
 */

export class Drain {
  constructor() {
    /** @type {{second: number, left: number}[]} */
    this.seen = [];
    this.first = 0;
  }

  /**
   * @param {import('../../types/balancer.d.ts').Backend} backend that drains
   * @param {number} second
   * @returns {Progress}
   */
  observe(backend, second) {
    const { drained = false, left = 0, left_exact: isExact = false } = backend;
    const learning = backend.drain_learning_seconds ?? 0;
    this.first = Math.max(this.first, left);
    this.seen.push({ second, left });
    while (this.seen[0].second < second - WINDOW) this.seen.shift();
    const part = drained ? 1 : this.first > 0 ? 1 - left / this.first : 0;
    const rest = drained ? 0 : this.rest(second, left);
    return { isDone: drained, left, isExact, first: this.first, part, learning, rest };
  }

  /**
   * @param {number} second
   * @param {number} left
   */
  rest(second, left) {
    const { second: start, left: then } = this.seen[0];
    const gone = then - left;
    if (second - start < LEAST || gone <= 0) return null;
    return (left * (second - start)) / gone;
  }
}

/**
 * The same words as those of `tidegate backend drain --wait`.
 * @param {Progress} progress
 * @param {(seconds: number) => string} duration
 * @param {(number: number) => string} count
 */
export function inWords({ isDone, left, isExact, first, learning, rest }, duration, count) {
  if (isDone) return 'drained: no session is left';
  const least = isExact ? '' : 'at least ';
  const of = first > left ? ` of ${count(first)}` : '';
  const sessions = (first > left ? first : left) === 1 ? 'session' : 'sessions';
  const known = `${least}${count(left)}${of} ${sessions} left`;
  if (!isExact) {
    return learning > 0 ? `${known}, learning ${duration(learning)} more` : `${known}, counting`;
  }
  return rest === null ? known : `${known}, about ${duration(rest)} more at this pace`;
}
