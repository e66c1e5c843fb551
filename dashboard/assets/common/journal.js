// The events that the page knows, each once, and what they tell of when something began.

/**
 * @typedef {Object} Told what all daemons tell of an event
 * @property {number} seq
 * @property {string} time
 * @property {string} kind
 * @property {'info' | 'notice' | 'warning' | 'error'} severity
 * @property {string} message
 *
 * @typedef {Told & Record<string, any>} EventRecord with what it is about, by kind
 *
 * @typedef {Object} Finding something that is wrong or under way
 * @property {string} id the same for as long as it holds
 * @property {'error' | 'warning' | 'notice'} tone
 * @property {string} text
 * @property {string} href where more is shown
 * @property {(event: any) => boolean} isBegunBy whether an event was its beginning
 */

/** As many as the daemon itself remembers. */
const MOST = 1_152;

export class Journal {
  constructor() {
    /** The newest first. @type {EventRecord[]} */
    this.records = [];
    this.missed = 0;
    this.last = 0;
  }

  /**
   * @param {EventRecord[]} records in whatever order
   * @returns {EventRecord[]} those that are news, the oldest first
   */
  add(records) {
    const known = new Set(this.records.map(({ seq }) => seq));
    const news = records.filter(({ seq }) => !known.has(seq) && known.add(seq));
    if (news.length === 0) return news;
    news.sort((a, b) => a.seq - b.seq);
    const isLater = this.records.length === 0 || news[0].seq > this.records[0].seq;
    this.records.unshift(...[...news].reverse());
    if (!isLater) this.records.sort((a, b) => b.seq - a.seq);
    this.records.length = Math.min(this.records.length, MOST);
    this.last = Math.max(this.last, this.records[0].seq);
    return news;
  }

  /**
   * When the last event happened that answers a question (epoch, ms); `null`: none is known.
   * @param {(event: EventRecord) => boolean} isMeant
   */
  lastTime(isMeant) {
    const found = this.records.find(isMeant);
    return found ? Date.parse(found.time) : null;
  }
}

/** @typedef {{at: number, isAtLeast: boolean}} Beginning */

/** Since when findings hold. */
export class Beginnings {
  constructor() {
    /** @type {Map<string, Beginning>} */
    this.known = new Map();
  }

  /**
   * @param {Finding[]} findings all that hold
   * @param {Journal} journal
   * @param {number} now epoch, ms
   * @returns {Finding[]} those that are news
   */
  update(findings, journal, now) {
    const news = findings.filter(({ id }) => !this.known.has(id));
    this.known = new Map(
      findings.map(({ id, isBegunBy }) => {
        const before = this.known.get(id) ?? { at: now, isAtLeast: true };
        if (!before.isAtLeast) return [id, before];
        const at = journal.lastTime(isBegunBy);
        return [id, at === null ? before : { at, isAtLeast: false }];
      }),
    );
    return news;
  }

  /** @param {string} id @returns {Beginning | null} */
  of(id) {
    return this.known.get(id) ?? null;
  }
}
