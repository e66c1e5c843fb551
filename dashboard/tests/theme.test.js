// Whether people with weak eyes can read the pages: WCAG 2.2, 1.4.3 and 1.4.11.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assets } from './read.js';

/** Text, and what it stands on. */
const TEXTS = [
  ...['ground', 'surface', 'sunken'].flatMap((ground) =>
    ['ink', 'ink-soft', 'accent', 'good', 'notice', 'warning', 'error'].map((ink) => [ink, ground]),
  ),
  ['good', 'good-ground'],
  ['notice', 'notice-ground'],
  ['warning', 'warning-ground'],
  ['error', 'error-ground'],
  ['accent', 'accent-ground'],
  ['on-accent', 'accent'],
  ['on-error', 'error'],
  ['on-shade', 'shade-0'],
  ['on-shade', 'shade-1'],
];

/** What is no text but has to be seen: edges of fields, marks of states. */
const SHAPES = [
  ['line-strong', 'surface'],
  ['line-strong', 'ground'],
  ['accent', 'surface'],
];

async function colours() {
  const css = (await assets()).get('common/theme.css');
  const pairs = [...css.matchAll(/--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)/g)];
  return new Map(pairs.map(([, name, light, dark]) => [name, { light, dark }]));
}

function luminance(colour) {
  const parts = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16) / 255);
  const [r, g, b] = parts.map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

for (const theme of ['light', 'dark']) {
  for (const [pairs, least] of [
    [TEXTS, 4.5],
    [SHAPES, 3],
  ]) {
    test(`contrast of ${theme} colours is ${least} at least`, async () => {
      const all = await colours();
      for (const [ink, ground] of pairs) {
        const found = contrast(all.get(ink)[theme], all.get(ground)[theme]);
        assert.ok(found >= least, `${ink} on ${ground}: ${found.toFixed(2)}`);
      }
    });
  }
}
