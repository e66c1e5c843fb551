// All that the page knows, made from statuses and events as they come. Views read it, nothing else
// changes it.

import { Beginnings, Journal } from '../common/journal.js';
import { Series } from '../common/series.js';
import { Drain } from './drain.js';
import { findings, headline } from './findings.js';
import { between, keyOf } from './rates.js';
import { Strip } from './strip.js';

/**
 * @typedef {import('../../types/balancer.d.ts').Status} Status
 * @typedef {import('../../types/balancer.d.ts').Service} Service
 * @typedef {import('../../types/balancer.d.ts').Backend} Backend
 * @typedef {import('../../types/balancer.d.ts').EventRecord} EventRecord
 * @typedef {import('./rates.js').Row} Row
 * @typedef {Record<'sessions' | 'packets' | 'bits' | 'fresh' | 'drops', Series>} History
 */

/** Statuses that arrive closer together tell no rate: the page was asleep, and gets them all at once. */
const LEAST = 0.4;

/** Shown rates are those of so many seconds: each by itself flickers. */
const CALM = 3;

/** The key of all services together, which no service can have: names are not empty. */
export const TOTAL = '';

export class Model {
  constructor() {
    /** @type {Status | null} */
    this.status = null;
    /** When it came (epoch, ms). */
    this.at = 0;
    /** @type {import('./rates.js').Rates | null} */
    this.rates = null;
    /** What rates are made against. @type {{status: Status, at: number} | null} */
    this.base = null;
    this.isFresh = true;
    /** Whether the last status has told new rates. */
    this.hasRates = false;
    /** @type {Map<string, History>} */
    this.histories = new Map();
    /** @type {Map<string, Strip>} */
    this.strips = new Map();
    /** @type {Map<string, {drain: Drain, progress: import('./drain.js').Progress}>} */
    this.drains = new Map();
    this.journal = new Journal();
    this.beginnings = new Beginnings();
    /** @type {import('../common/journal.js').Finding[]} */
    this.findings = [];
    this.headline = headline([]);
  }

  /** The second that plots end with. */
  get second() {
    return Math.floor(this.at / 1000);
  }

  /** What it speaks to its peers from, if it has any: without, no other node is taken for it. */
  get address() {
    const { vrrp, sync } = this.status ?? {};
    const source = vrrp?.routers.find((router) => router.source !== null)?.source;
    return source ?? sync?.listen.replace(/:\d+$/, '') ?? '';
  }

  /** A new stream begins with a status that is up to a second old: no rates are made from that one. */
  handleStream() {
    this.base = null;
    this.isFresh = true;
  }

  /** The clock of this computer was set back: what was seen by the other time is in no order with it. */
  forget() {
    this.base = null;
    for (const kept of [this.histories, this.strips, this.drains]) kept.clear();
  }

  /**
   * @param {Status} status
   * @param {number} at epoch, ms
   * @returns {import('../common/journal.js').Finding[]} what is found that was not before
   */
  takeStatus(status, at) {
    if (at < this.at) this.forget();
    const seconds = this.base ? (at - this.base.at) / 1000 : 0;
    const isRestarted = this.status !== null && this.status.pid !== status.pid;
    const hasRates = this.base !== null && seconds >= LEAST && !isRestarted;
    if (this.base && hasRates) this.rates = between(this.base.status, status, seconds);
    if (!this.base || hasRates || isRestarted) this.base = this.isFresh ? null : { status, at };
    this.isFresh = false;
    this.hasRates = hasRates;
    this.status = status;
    this.at = at;
    this.remember(status);
    return this.find(status, at);
  }

  /**
   * @param {EventRecord[]} records
   * @returns {EventRecord[]} those that are news
   */
  takeEvents(records) {
    const news = this.journal.add(records);
    if (this.status) this.find(this.status, this.at);
    return news;
  }

  /** Fills strips with what events tell of the time before. Once, after the first of both. */
  recall() {
    if (!this.status) return;
    const start = this.second - this.status.uptime_seconds;
    const changes = this.journal.records.filter(({ kind }) => kind === 'backend_health').reverse();
    for (const service of this.status.services) {
      for (const backend of service.backends) {
        const own = changes
          .filter((it) => it.service === service.name && it.backend === backend.name)
          .map(({ time, from, to }) => ({
            second: Math.floor(Date.parse(time) / 1000),
            from: /** @type {import('./strip.js').State} */ (from),
            to: /** @type {import('./strip.js').State} */ (to),
          }));
        const strip = this.strip(keyOf(service.name, backend.name));
        strip.recall(own, start, this.second, stateOf(backend));
      }
    }
  }

  /** @param {Status} status */
  remember(status) {
    const seen = new Set([TOTAL]);
    let sessions = 0;
    for (const service of status.services) {
      sessions += service.sessions.count;
      this.put(service.name, service.sessions.count, seen);
      for (const backend of service.backends) {
        const key = keyOf(service.name, backend.name);
        this.put(key, backend.sessions.count, seen);
        this.strip(key).observe(stateOf(backend), this.second);
        this.follow(key, backend);
      }
    }
    this.put(TOTAL, sessions, seen);
    // Who is gone from the file for good must not be remembered for good.
    for (const kept of [this.histories, this.strips, this.drains]) {
      for (const key of kept.keys()) if (!seen.has(key)) kept.delete(key);
    }
  }

  /**
   * @param {string} key
   * @param {number} sessions
   * @param {Set<string>} seen
   */
  put(key, sessions, seen) {
    seen.add(key);
    const history = this.history(key);
    history.sessions.put(this.second, sessions);
    if (!this.hasRates) return;
    const row = key === TOTAL ? this.rates?.total : this.rates?.rows.get(key);
    if (!row) return;
    for (const what of /** @type {const} */ (['packets', 'bits', 'fresh', 'drops'])) {
      history[what].put(this.second, row[what]);
    }
  }

  /**
   * @param {string} key
   * @param {Backend} backend
   */
  follow(key, backend) {
    if (backend.admin !== 'draining') {
      this.drains.delete(key);
      return;
    }
    const drain = this.drains.get(key)?.drain ?? new Drain();
    this.drains.set(key, { drain, progress: drain.observe(backend, this.second) });
  }

  /**
   * @param {Status} status
   * @param {number} now
   */
  find(status, now) {
    this.findings = findings(status);
    const news = this.beginnings.update(this.findings, this.journal, now);
    this.headline = headline(this.findings);
    return news;
  }

  /**
   * @param {string} key
   * @returns {History}
   */
  history(key) {
    let history = this.histories.get(key);
    if (!history) {
      const [sessions, packets, bits] = [new Series(), new Series(), new Series()];
      history = { sessions, packets, bits, fresh: new Series(), drops: new Series() };
      this.histories.set(key, history);
    }
    return history;
  }

  /** @param {string} key */
  strip(key) {
    let strip = this.strips.get(key);
    if (!strip) {
      strip = new Strip();
      this.strips.set(key, strip);
    }
    return strip;
  }

  /**
   * A rate as it is shown; `NaN`: not known yet.
   * @param {string} key
   * @param {'packets' | 'bits' | 'fresh' | 'drops'} what
   */
  calmly(key, what) {
    return this.history(key)[what].mean(this.second, CALM);
  }
}

/**
 * @param {Backend} backend
 * @returns {import('./strip.js').State}
 */
function stateOf({ held, health }) {
  return held ? 'held' : health;
}
