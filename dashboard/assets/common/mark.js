// The sign of the browser's tab: the mark, with a spot on it when something is wrong. It is made here
// and not fetched: when it matters most, nobody may be there to fetch it from.

/** @type {Record<string, string>} */
const SPOTS = { warning: '#e0a030', error: '#d9343e', lost: '#d9343e' };

/**
 * @param {string} tone
 * @returns {string} the URL of a picture
 */
export function markOf(tone) {
  const spot = SPOTS[tone];
  if (spot === undefined) return 'assets/common/mark.svg';
  const picture =
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">' +
    '<rect width="32" height="32" rx="7" fill="#0b6e74"/>' +
    '<g fill="none" stroke="#fff" stroke-width="2.6" stroke-linecap="round">' +
    '<path d="M6 12V6.5M12.7 12V6.5"/>' +
    '<path d="M5 18c2.75 0 2.75 2.5 5.5 2.5S13.25 18 16 18s2.75 2.5 5.5 2.5S24.25 18 27 18"/>' +
    '<path d="M5 25c2.75 0 2.75 2.5 5.5 2.5S13.25 25 16 25s2.75 2.5 5.5 2.5S24.25 25 27 25"/></g>' +
    `<circle cx="23" cy="9" r="8" fill="${spot}" stroke="#fff" stroke-width="2"/></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(picture)}`;
}
