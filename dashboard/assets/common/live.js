// The live stream, and what to do when it breaks off.
//
//   connecting --first status--> live --error, or silence--> lost --after a pause--> connecting
//                                                              |
//                                                   the session is over: stop
//
// A browser's EventSource comes back by itself, but it cannot say that the session has ended, nor
// notice a connection on which nothing arrives. So each one is used once, and closed at the first
// sign of trouble.

/** A status comes each second; after so many milliseconds without one, nobody is there. */
const SILENCE = 6_000;

/** The pauses between attempts, in seconds; the last one holds for all that follow. */
const PAUSES = [1, 2, 4, 8, 15, 30];

/**
 * How long to wait before the next attempt, in milliseconds. They vary by a fifth, so that the pages
 * of a whole team do not come back at once.
 * @param {number} attempt from 0
 * @param {number} random 0 to 1
 */
export function pause(attempt, random) {
  const seconds = PAUSES[Math.min(attempt, PAUSES.length - 1)];
  return Math.round(seconds * 1000 * (0.8 + 0.4 * random));
}

/**
 * @typedef {Object} LinkState
 * @property {'connecting' | 'live' | 'lost'} kind
 * @property {number} since when the last status came, or the first attempt was made (epoch, ms)
 * @property {number} retryAt when the next attempt is made, if `lost`
 * @property {boolean} isRefused whether somebody answers all the same, but gives no stream
 *
 * @typedef {Object} Means what a stream needs of the world; tests have their own
 * @property {(url: string) => EventSource} open
 * @property {() => number} now
 * @property {(callback: () => void, millis: number) => any} after
 * @property {(timer: any) => void} cancel
 * @property {() => number} random
 */

/** @type {Means} */
const BROWSER = {
  open: (url) => new EventSource(url),
  now: () => Date.now(),
  after: (callback, millis) => setTimeout(callback, millis),
  cancel: (timer) => clearTimeout(timer),
  random: () => Math.random(),
};

export class Live {
  /**
   * @param {Object} options
   * @param {string} options.url
   * @param {string[]} options.kinds which events are told
   * @param {(kind: string, data: any) => void} options.onData
   * @param {(state: LinkState) => void} options.onState
   * @param {() => Promise<boolean>} options.isWelcome whether the session still holds
   * @param {Means} [options.means]
   */
  constructor({ url, kinds, onData, onState, isWelcome, means = BROWSER }) {
    this.url = url;
    this.kinds = kinds;
    this.onData = onData;
    this.onState = onState;
    this.isWelcome = isWelcome;
    this.means = means;
    /** @type {EventSource | null} */
    this.source = null;
    this.timer = null;
    this.attempt = 0;
    /** Changes with each start and stop. */
    this.round = 0;
    /** @type {LinkState} */
    this.state = { kind: 'connecting', since: means.now(), retryAt: 0, isRefused: false };
    /** Whether the daemon has answered since the stream broke off. */
    this.isReached = false;
  }

  /** Connects, at once. */
  start() {
    this.close();
    this.tell(this.state.kind === 'lost' ? 'lost' : 'connecting');
    const source = this.means.open(this.url);
    this.source = source;
    for (const kind of this.kinds) {
      source.addEventListener(kind, (event) => this.handleMessage(source, kind, event.data));
    }
    source.addEventListener('error', () => this.handleLoss(source));
    this.watch(source);
  }

  stop() {
    this.close();
  }

  /**
   * @param {EventSource} source
   * @param {string} kind
   * @param {string} text
   */
  handleMessage(source, kind, text) {
    if (source !== this.source) return;
    this.attempt = 0;
    this.isReached = false;
    this.watch(source);
    this.tell('live');
    this.onData(kind, JSON.parse(text));
  }

  /** @param {EventSource} source */
  async handleLoss(source) {
    if (source !== this.source) return;
    this.close();
    const millis = pause(this.attempt, this.means.random());
    this.attempt += 1;
    this.tell('lost', this.means.now() + millis);
    this.timer = this.means.after(() => this.retry(), millis);
  }

  /** Whoever is not welcome any more is told so by `isWelcome`, and need not try. */
  async retry() {
    this.close();
    const { round } = this;
    try {
      if (!(await this.isWelcome())) return;
      this.isReached = true;
    } catch {
      // The stream will find out when somebody answers.
      this.isReached = false;
    }
    // Somebody may have started or stopped it meanwhile.
    if (this.round === round) this.start();
  }

  /** Waits for the next message. @param {EventSource} source */
  watch(source) {
    this.means.cancel(this.timer);
    this.timer = this.means.after(() => this.handleLoss(source), SILENCE);
  }

  /**
   * @param {LinkState['kind']} kind
   * @param {number} [retryAt]
   */
  tell(kind, retryAt = 0) {
    const now = this.means.now();
    const since = kind === 'live' || kind === 'connecting' ? now : this.state.since;
    const isRefused = kind === 'lost' && this.isReached;
    this.state = { kind, since, retryAt, isRefused };
    this.onState(this.state);
  }

  close() {
    this.round += 1;
    this.means.cancel(this.timer);
    this.timer = null;
    this.source?.close();
    this.source = null;
  }
}
