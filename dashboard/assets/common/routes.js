// Addresses within the page: what comes after `#`.

/**
 * @typedef {Object} Route
 * @property {string[]} path its parts, without escapes
 * @property {Record<string, string>} options
 */

/**
 * @param {string} hash as `location.hash` has it
 * @returns {Route}
 */
export function parse(hash) {
  const [path, query = ''] = hash.replace(/^#/, '').split('?', 2);
  const parts = path.split('/').filter((part) => part !== '');
  return { path: parts.map(unescaped), options: Object.fromEntries(new URLSearchParams(query)) };
}

/**
 * @param {string[]} path
 * @param {Record<string, string>} [options] empty ones are left out
 */
export function format(path, options = {}) {
  const given = Object.entries(options).filter(([, value]) => value !== '');
  const query = new URLSearchParams(given).toString();
  return `#/${path.map(encodeURIComponent).join('/')}${query === '' ? '' : `?${query}`}`;
}

/** Somebody may have typed a stray `%`. @param {string} part */
function unescaped(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
