// What all assets must hold to: they find each other, ask for nothing from elsewhere, and get along
// with the policy that they are served with.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assets, ASSETS } from './read.js';

const ROOT = 'http://host/';

/** Every reference of an asset as the path of another. */
function references(name, text) {
  const patterns = {
    html: /(?:href|src)="([^"]+)"/g,
    js: /(?:from|import) '([^']+)'/g,
    css: /url\(([^)]+)\)/g,
  };
  const pattern = patterns[name.split('.').at(-1)];
  if (!pattern) return [];
  // The page is served at the root, all else by its path below `assets/`.
  const base = name.endsWith('.html') ? ROOT : `${ROOT}assets/${name}`;
  return [...text.matchAll(pattern)].map(([, target]) => new URL(target, base).href);
}

test('whatever an asset names is there', async () => {
  const all = await assets();
  assert.ok(all.size > 30, ASSETS.href);
  for (const [name, text] of all) {
    for (const target of references(name, text)) {
      assert.ok(target.startsWith(`${ROOT}assets/`), `${name} asks for ${target}`);
      assert.ok(
        all.has(target.slice(ROOT.length + 7)),
        `${name} names ${target}, which is not there`,
      );
    }
  }
});

test('every asset is used', async () => {
  const all = await assets();
  const used = new Set(['balancer/index.html']);
  for (const [name, text] of all) {
    for (const target of references(name, text)) used.add(target.slice(ROOT.length + 7));
    for (const [, target] of text.matchAll(/'assets\/([a-z/_-]+\.svg)'/g)) used.add(target);
  }
  assert.deepEqual(
    [...all.keys()].filter((name) => !used.has(name)),
    [],
  );
});

test('names fit the route that serves them', async () => {
  for (const name of (await assets()).keys()) {
    assert.match(name, /^(common|balancer|broker)\/[a-z_]+\.(js|css|svg|html)$/);
  }
});

test('nothing needs more than the policy allows', async () => {
  for (const [name, text] of await assets()) {
    if (name.endsWith('.html')) {
      assert.doesNotMatch(text, /\sstyle=|\son[a-z]+=|<style|<script(?![^>]*src=)/, name);
    } else if (name.endsWith('.js')) {
      const forbidden =
        /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/;
      assert.doesNotMatch(text, forbidden, name);
      assert.doesNotMatch(text, /setAttribute\([^)]*'style'/, name);
    }
    const elsewhere = text.replaceAll('http://www.w3.org/2000/svg', '');
    assert.doesNotMatch(elsewhere, /https?:\/\//, name);
  }
});

test('style sheets are short', async () => {
  for (const [name, text] of await assets()) {
    if (name.endsWith('.css')) assert.ok(text.split('\n').length <= 301, name);
  }
});

test('modules are short, and say first what they are for', async () => {
  for (const [name, text] of await assets()) {
    if (!name.endsWith('.js')) continue;
    const lines = text.split('\n');
    assert.ok(lines.length <= 300, `${name} has ${lines.length} lines`);
    assert.match(lines[0], /^\/\/ [A-Z]/, name);
    assert.ok(
      lines.every((line) => line.length <= 110),
      `${name} has a line that is too long`,
    );
  }
});
