// Numbers, sizes and times as people read them: the same words as the command line's.

const COUNT = new Intl.NumberFormat('en-GB');
const CLOCK = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const DAY = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const DATE = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium' });

/** @param {number} value */
export function count(value) {
  return COUNT.format(Math.round(value));
}

/**
 * A number in at most six characters, as `tidegate top` has it.
 * @param {number} value
 */
export function scaled(value) {
  const units = ['', 'k', 'M', 'G', 'T'];
  let rest = value;
  let unit = 0;
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  const isShort = rest < 99.95 && (unit > 0 || rest % 1 !== 0);
  return rest.toFixed(isShort ? 1 : 0) + units[unit];
}

/**
 * @param {number} bytes
 */
export function size(bytes) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let rest = bytes;
  let unit = 0;
  while (rest >= 1000 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${rest.toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}

/**
 * A time in its two largest units.
 * @param {number} seconds
 */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const days = Math.floor(whole / 86_400);
  const hours = Math.floor(whole / 3_600) % 24;
  const minutes = Math.floor(whole / 60) % 60;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min ${whole % 60} s`;
  return `${whole} s`;
}

/**
 * A time in its largest unit, for places with little room.
 * @param {number} seconds
 */
export function briefly(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole >= 86_400) return `${Math.floor(whole / 86_400)} d`;
  if (whole >= 3_600) return `${Math.floor(whole / 3_600)} h`;
  if (whole >= 60) return `${Math.floor(whole / 60)} min`;
  return `${whole} s`;
}

/**
 * A part of a whole, 0 to 1.
 * @param {number} share
 */
export function percent(share) {
  return `${(share * 100).toFixed(1)}%`;
}

/**
 * How long something took that takes milliseconds.
 * @param {number} seconds
 */
export function latency(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  const millis = seconds * 1000;
  return `${millis.toFixed(millis < 10 ? 1 : 0)} ms`;
}

/** The time of day, here. @param {number} millis */
export function clock(millis) {
  return CLOCK.format(millis);
}

/**
 * A moment as short as it can be told: the time alone if it is of this day.
 * @param {number} millis
 * @param {number} now
 */
export function moment(millis, now) {
  const [then, today] = [new Date(millis), new Date(now)];
  if (then.toDateString() === today.toDateString()) return clock(millis);
  const isThisYear = then.getFullYear() === today.getFullYear();
  return `${(isThisYear ? DAY : DATE).format(millis)}, ${clock(millis)}`;
}

/**
 * @param {number} number
 * @param {string} one
 * @param {string} [many]
 */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/**
 * Numbers by label, those that there are.
 * @param {Record<string, number>} by
 */
export function counts(by) {
  const told = Object.entries(by).filter(([, number]) => number > 0);
  return told.map(([what, number]) => `${what.replaceAll('_', ' ')} ${count(number)}`).join(', ');
}

/**
 * An address with a port; one with colons is bracketed.
 * @param {string} address
 * @param {number} port
 */
export function socket(address, port) {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
