// Signs, drawn on 20 by 20. Each stands beside a word: none says anything by itself.

import { svg } from './dom.js';

/** @type {Record<string, string>} */
const PATHS = {
  good: 'M4 10.5l4 4 8-9',
  warning: 'M10 3l8 14H2zM10 8.5v3.5M10 14.6v.2',
  error: 'M10 2a8 8 0 100 16 8 8 0 000-16zM7 7l6 6M13 7l-6 6',
  notice: 'M10 2a8 8 0 100 16 8 8 0 000-16zM10 9v5M10 6v.2',
  info: 'M10 8.5a1.5 1.5 0 100 3 1.5 1.5 0 000-3z',
  moon: 'M16.5 12.5A7 7 0 017.5 3.5 7 7 0 1016.5 12.5z',
  sun:
    'M10 6.5a3.5 3.5 0 100 7 3.5 3.5 0 000-7zM10 1.5v2M10 16.5v2M1.5 10h2M16.5 10h2' +
    'M4 4l1.4 1.4M14.6 14.6L16 16M4 16l1.4-1.4M14.6 5.4L16 4',
  leave: 'M8 3H4v14h4M8 10h9M13.5 6.5L17 10l-3.5 3.5',
  up: 'M10 15V5M5.5 9.500L10 5l4.5 4.5',
  down: 'M10 5v10M5.5 10.500L10 15l4.5-4.5',
  next: 'M8 5l5 5-5 5',
  close: 'M5 5l10 10M15 5L5 15',
  lost: 'M3 7.500a10 10 0 0114 0M6 11a6 6 0 018 0M10 15v.2M3 17L17 3',
};

/** @param {string} name */
export function icon(name) {
  return svg(
    'svg',
    { class: `icon icon-${name}`, viewBox: '0 0 20 20', 'aria-hidden': 'true' },
    svg('path', { d: PATHS[name] ?? PATHS.info }),
  );
}
