// Values of the last ten minutes, one for each second: the memory behind plots.

/** Seconds that are remembered. */
export const LENGTH = 600;

/** A status may come a little late: so many seconds without one are not seen as a gap. */
const BRIDGED = 2;

/**
 * A ring of one value a second. Longer times without any are gaps (`NaN`), whether the page was asleep
 * or the connection lost.
 */
export class Series {
  constructor() {
    this.values = new Float64Array(LENGTH).fill(NaN);
    /** The newest and the oldest second that were written. */
    this.newest = -Infinity;
    this.oldest = Infinity;
  }

  /**
   * @param {number} second
   * @param {number} value
   */
  put(second, value) {
    if (second > this.newest) {
      const first = Math.max(this.newest + 1, second - LENGTH + 1);
      const between = second - first <= BRIDGED ? value : NaN;
      for (let gap = first; gap < second; gap += 1) this.values[gap % LENGTH] = between;
      this.newest = second;
    } else if (second <= this.newest - LENGTH) {
      return;
    }
    this.oldest = Math.min(this.oldest, second);
    this.values[second % LENGTH] = value;
  }

  /** @param {number} second */
  at(second) {
    const isKept = second <= this.newest && second > this.newest - LENGTH;
    return isKept ? this.values[second % LENGTH] : NaN;
  }

  /**
   * The last `length` seconds up to `now`, the oldest first.
   * @param {number} now
   * @param {number} [length]
   */
  until(now, length = LENGTH) {
    return Array.from({ length }, (_, index) => this.at(now - length + 1 + index));
  }

  /**
   * The mean of the last few values, which a reader can follow better than each; `NaN` of none.
   * @param {number} now
   * @param {number} seconds
   */
  mean(now, seconds) {
    let sum = 0;
    let known = 0;
    for (let second = now - seconds + 1; second <= now; second += 1) {
      const value = this.at(second);
      if (Number.isNaN(value)) continue;
      sum += value;
      known += 1;
    }
    return sum / known;
  }
}

/** Seconds that a plot may show, from a minute on. */
const SPANS = [60, 120, 300, LENGTH];

/**
 * How many seconds are worth showing: a page that was opened a moment ago has no ten minutes.
 * @param {Series[]} all
 * @param {number} now
 */
export function spanOf(all, now) {
  const oldest = Math.min(now, ...all.map((series) => series.oldest));
  return SPANS.find((span) => span > now - oldest) ?? LENGTH;
}
