// The arithmetic of plots: where an axis ends, and what a line looks like as a path.

/** Ends of an axis that can be read, and halved. */
const STEPS = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];

/**
 * The end of an axis that has room for `most`.
 * @param {number} most
 */
export function niceEnd(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  const step = STEPS.find((it) => it * power >= most * (1 - 1e-9));
  return (step ?? 10) * power;
}

/**
 * The greatest of some values, gaps aside; 0 of none.
 * @param {number[]} values
 */
export function greatest(values) {
  return values.reduce((most, value) => (value > most ? value : most), 0);
}

/**
 * Runs of values between gaps, as [first index, values].
 * @param {number[]} values
 * @returns {[number, number[]][]}
 */
export function runs(values) {
  /** @type {[number, number[]][]} */
  const found = [];
  let isOpen = false;
  values.forEach((value, index) => {
    if (Number.isNaN(value)) isOpen = false;
    else if (isOpen) found[found.length - 1][1].push(value);
    else {
      found.push([index, [value]]);
      isOpen = true;
    }
  });
  return found;
}

/**
 * Values as the `d` of a line and of the area below it, `width` by `height`, 0 at the bottom. A lone
 * value between two gaps is a short stroke, as a point would not be seen.
 * @param {number[]} values
 * @param {number} end
 * @param {number} width
 * @param {number} height
 */
export function paths(values, end, width, height) {
  const step = width / Math.max(1, values.length - 1);
  const x = (/** @type {number} */ index) => round(index * step);
  const y = (/** @type {number} */ value) => round(height - (Math.min(value, end) / end) * height);
  let line = '';
  let area = '';
  for (const [first, run] of runs(values)) {
    const points = run.map((value, index) => `${x(first + index)} ${y(value)}`);
    if (points.length === 1) points.push(`${x(first + 0.5)} ${y(run[0])}`);
    const last = points.length === 2 && run.length === 1 ? first + 0.5 : first + run.length - 1;
    line += `M${points.join('L')}`;
    area += `M${x(first)} ${height}L${points.join('L')}L${x(last)} ${height}Z`;
  }
  return { line, area };
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 10) / 10;
}
