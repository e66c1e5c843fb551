import assert from 'node:assert/strict';
import { test } from 'node:test';

import { rateText } from '../assets/common/parts.js';
import * as format from '../assets/common/format.js';
import { format as route, parse } from '../assets/common/routes.js';
import { greatest, niceEnd, paths, runs } from '../assets/common/scale.js';
import { LENGTH, Series, spanOf } from '../assets/common/series.js';

test('numbers stay short, as in tidegate top', () => {
  const numbers = [0, 0.5, 7, 99.96, 999, 1234, 99_960, 5e6, 2.5e9, 9e14];
  const texts = ['0', '0.5', '7', '100', '999', '1.2k', '100k', '5.0M', '2.5G', '900T'];
  assert.deepEqual(numbers.map(format.scaled), texts);
});

test('times have their two largest units', () => {
  assert.equal(format.duration(59.9), '59 s');
  assert.equal(format.duration(61), '1 min 1 s');
  assert.equal(format.duration(3_725), '1 h 2 min');
  assert.equal(format.duration(90_000), '1 d 1 h');
  assert.equal(format.duration(-1), '0 s');
  assert.equal(format.briefly(3_725), '1 h');
});

test('a moment of another day has its date, one of another year that too', () => {
  const now = new Date(2026, 10, 28, 3, 0, 0).getTime();
  assert.equal(format.moment(new Date(2026, 10, 28, 1, 2, 3).getTime(), now), '01:02:03');
  assert.equal(format.moment(new Date(2026, 10, 27, 1, 2, 3).getTime(), now), '27 Nov, 01:02:03');
  assert.match(format.moment(new Date(2025, 10, 28, 1, 2, 3).getTime(), now), /2025, 01:02:03$/);
});

test('rates have no more digits than they deserve', () => {
  const rates = [NaN, 0, 0.04, 0.94, 1.0001, 9.94, 9.96, 76.5, 1234];
  const texts = ['–', '0', '0', '0.9', '1', '9.9', '10', '77', '1.2k'];
  assert.deepEqual(rates.map(rateText), texts);
});

test('sizes, shares, latencies and addresses', () => {
  assert.equal(format.size(999), '999 B');
  assert.equal(format.size(1500), '1.5 kB');
  assert.equal(format.percent(0.125), '12.5%');
  assert.equal(format.latency(0.0015), '1.5 ms');
  assert.equal(format.latency(0.25), '250 ms');
  assert.equal(format.latency(2), '2.0 s');
  assert.equal(format.socket('fd00::1', 1883), '[fd00::1]:1883');
  assert.equal(format.count(1234567), '1,234,567');
  assert.equal(format.plural(1, 'session'), '1 session');
  assert.equal(format.plural(0, 'prefix', 'prefixes'), '0 prefixes');
});

test('routes come back as they were given, whatever names are', () => {
  for (const name of ['mqtt', 'a/b', 'ä ?#%&=', '%']) {
    const { path, options } = parse(route(['services', name], { text: name, empty: '' }));
    assert.deepEqual(path, ['services', name]);
    assert.deepEqual(options, { text: name });
  }
  assert.deepEqual(parse(''), { path: [], options: {} });
  assert.deepEqual(parse('#/services/%zz').path, ['services', '%zz']);
});

test('a series forgets what is older than ten minutes', () => {
  const series = new Series();
  series.put(1000, 5);
  series.put(1000 + LENGTH - 1, 7);
  assert.equal(series.at(1000), 5);
  series.put(1000 + LENGTH, 8);
  assert.ok(Number.isNaN(series.at(1000)));
  series.put(1000, 9);
  assert.ok(Number.isNaN(series.at(1000)), 'what comes too late changes nothing');
  const values = series.until(1000 + LENGTH);
  assert.equal(values.length, LENGTH);
  assert.deepEqual(values.slice(-2), [7, 8]);
});

test('a long silence is a gap, and a short one is bridged', () => {
  const series = new Series();
  series.put(10, 1);
  series.put(13, 2);
  assert.deepEqual(series.until(13, 4), [1, 2, 2, 2]);
  series.put(20, 3);
  assert.ok(series.until(19, 6).every(Number.isNaN));
  series.put(20 + 5 * LENGTH, 4);
  assert.equal(series.until(20 + 5 * LENGTH).filter((it) => !Number.isNaN(it)).length, 1);
});

test('a plot begins with a minute, and ends with ten', () => {
  const series = new Series();
  assert.equal(spanOf([series], 1000), 60);
  series.put(1000, 1);
  const spans = [1000, 1059, 1060, 1130, 1400, 9000].map((now) =>
    spanOf([new Series(), series], now),
  );
  assert.deepEqual(spans, [60, 60, 120, 300, LENGTH, LENGTH]);
});

test('a mean leaves gaps out', () => {
  const series = new Series();
  series.put(1, 2);
  series.put(9, 4);
  assert.equal(series.mean(9, 3), 4);
  assert.equal(series.mean(9, 10), 3);
  assert.ok(Number.isNaN(series.mean(7, 3)));
});

test('axes end at numbers that can be read and halved', () => {
  const ends = [0, NaN, 0.3, 1, 1.1, 17, 41, 970, 1001].map(niceEnd);
  assert.deepEqual(
    ends.map((it) => Number(it.toPrecision(3))),
    [1, 1, 0.3, 1, 1.5, 20, 50, 1000, 1500],
  );
  for (let value = 0.01; value < 1e7; value *= 1.37) {
    assert.ok(niceEnd(value) >= value * 0.999 && niceEnd(value) <= value * 2, String(value));
  }
});

test('a path has a part for each run between gaps', () => {
  const values = [NaN, 1, 2, NaN, 3, NaN];
  assert.deepEqual(runs(values), [
    [1, [1, 2]],
    [4, [3]],
  ]);
  assert.equal(greatest(values), 3);
  const { line, area } = paths(values, 4, 50, 100);
  assert.equal(line, 'M10 75L20 50M40 25L45 25');
  assert.equal(area, 'M10 100L10 75L20 50L20 100ZM40 100L40 25L45 25L45 100Z');
  assert.deepEqual(paths([NaN, NaN], 1, 10, 10), { line: '', area: '' });
});
