// A daemon's page from login to logout: it keeps the live stream, feeds the model, and shows the view that
// the address names. What is the daemon's own comes from its `main.js`.

import { inWords } from './dialogs.js';
import { h } from './dom.js';
import { Frame } from './frame.js';
import { Live } from './live.js';
import { loginForm } from './login.js';
import { Notices } from './notices.js';
import { parse } from './routes.js';
import { Session } from './session.js';

/**
 * @typedef {Object} Model what a page knows
 * @property {unknown} status `null` until there is one
 * @property {{tone: 'good' | 'notice' | 'warning' | 'error', words: string}} headline
 * @property {string} address of the node, empty if it is not known
 * @property {import('./journal.js').Journal} journal
 * @property {(status: any, at: number) => import('./journal.js').Finding[]} takeStatus what is news
 * @property {(records: any[]) => unknown} takeEvents
 * @property {() => void} handleStream a new stream begins
 * @property {() => void} recall the events of before the page was opened are there
 *
 * @typedef {Object} View
 * @property {Element} element
 * @property {(model: any) => void} update
 *
 * @typedef {Object} Orders
 * @property {(isReached: boolean) => void} setReach whether there is anybody to take orders
 *
 * @typedef {Object} Place
 * @property {string[]} path
 * @property {Record<string, string>} options
 */

/**
 * @template {Orders} O
 * @typedef {Object} Daemon
 * @property {string} product
 * @property {string} about what one logs in to
 * @property {string} firstAccount the command that makes the first account
 * @property {import('./frame.js').Place[]} places
 * @property {() => Model} model
 * @property {(session: Session, notices: Notices) => O} orders
 * @property {(place: Place, orders: O | null) => View} view `null`: who looks may change nothing
 */

/** How often the words of a lost connection count, in milliseconds. */
const COUNT = 1_000;

/** All that begins with a login and ends with the session. @template {Orders} O */
class Page {
  /**
   * @param {Daemon<O>} daemon
   * @param {Session} session
   * @param {Notices} notices
   * @param {(remark: string) => void} onEnd
   */
  constructor(daemon, session, notices, onEnd) {
    const { account } = session;
    if (account === null) throw new Error('nobody is logged in');
    this.daemon = daemon;
    this.session = session;
    this.notices = notices;
    this.onEnd = onEnd;
    this.model = daemon.model();
    this.orders = session.isOperator ? daemon.orders(session, notices) : null;
    this.frame = new Frame({
      product: daemon.product,
      places: daemon.places,
      account,
      onLogout: () => this.logout(),
      onRetry: () => this.live.start(),
    });
    this.live = new Live({
      url: '/v1/live',
      kinds: ['status', 'event'],
      onData: (kind, data) => this.take(kind, data),
      onState: (state) => this.handleLink(state),
      isWelcome: () => this.isWelcome(),
    });
    /** @type {View | null} */
    this.view = null;
    this.isRecalled = false;
    /** @type {import('./live.js').LinkState['kind']} */
    this.linkKind = 'connecting';
    /** The last event before the stream broke off; those that follow are asked for. */
    this.heard = 0;
    this.onRoute = () => this.show(true);
    this.onWake = () => this.update();
    this.clock = setInterval(() => this.frame.setLink(this.live.state), COUNT);
  }

  start() {
    window.addEventListener('hashchange', this.onRoute);
    document.addEventListener('visibilitychange', this.onWake);
    this.session.onEnd = () => this.end('Your session is over. Log in again.');
    this.show(false);
    this.live.start();
  }

  /** @param {string} remark */
  end(remark) {
    // Answers that are still under way must not end what comes after.
    this.session.onEnd = () => {};
    this.live.stop();
    clearInterval(this.clock);
    window.removeEventListener('hashchange', this.onRoute);
    document.removeEventListener('visibilitychange', this.onWake);
    for (const dialog of document.querySelectorAll('dialog')) dialog.close();
    this.onEnd(remark);
  }

  async logout() {
    let remark = '';
    try {
      await this.session.logout();
    } catch (error) {
      remark = `The daemon could not be told: ${inWords(error)}`;
    }
    this.end(remark);
  }

  async isWelcome() {
    const isIn = await this.session.resume();
    if (!isIn) this.session.onEnd();
    return isIn;
  }

  /** @param {import('./live.js').LinkState} state */
  handleLink(state) {
    const before = this.linkKind;
    this.linkKind = state.kind;
    this.frame.setLink(state);
    this.orders?.setReach(state.kind === 'live');
    if (before === 'live' && state.kind !== 'live') this.model.handleStream();
    if (before === 'lost' && state.kind === 'live') this.notices.say('Connected again', 'good');
    if (before === 'lost' || state.kind !== 'lost') return;
    this.notices.say('No connection: what is shown is from before', 'error');
    this.frame.setTitle('lost', 'No connection');
    this.heard = this.model.journal.last;
    this.isRecalled = false;
  }

  /**
   * @param {string} kind
   * @param {any} data
   */
  take(kind, data) {
    if (kind === 'event') {
      this.model.takeEvents([data]);
      return;
    }
    const isFirst = this.model.status === null;
    const news = this.model.takeStatus(data, Date.now());
    if (!isFirst) this.notices.sayAll(news);
    if (!this.isRecalled) this.recall();
    this.update();
  }

  /**
   * Asks what happened while nobody listened: before the page was opened, or while it was cut off. It is
   * looked at without, too.
   */
  async recall() {
    this.isRecalled = true;
    try {
      const page = await this.session.call('GET', `/v1/events?wait=0&since=${this.heard}`);
      const isFirst = this.heard === 0;
      if (isFirst) this.model.journal.missed = page.missed;
      this.model.takeEvents(page.events);
      if (isFirst) this.model.recall();
      this.update();
    } catch {
      this.isRecalled = false;
    }
  }

  /** @param {boolean} isMove whether somebody has gone from one view to another */
  show(isMove) {
    const place = parse(location.hash);
    this.view = this.daemon.view(place, this.orders);
    this.frame.setPlace(place.path[0] ?? '');
    this.frame.main.replaceChildren(this.view.element);
    this.update();
    if (!isMove) return;
    window.scrollTo(0, 0);
    // So that a screen reader begins with the new view, and not where the link was.
    const heading = this.frame.main.querySelector('h1');
    heading?.focus({ preventScroll: true });
  }

  /** A hidden page remembers, and draws nothing. */
  update() {
    if (document.hidden || this.view === null || this.model.status === null) return;
    this.view.update(this.model);
    this.frame.setNode(this.model.address);
    const { tone, words } = this.model.headline;
    if (this.live.state.kind !== 'lost') this.frame.setTitle(tone, words);
  }
}

/**
 * Shows the page of a daemon, or first the form to log in.
 * @template {Orders} O
 * @param {Daemon<O>} daemon
 */
export async function run(daemon) {
  const session = new Session();
  const notices = new Notices();
  const root = h('div', { class: 'root' });
  document.body.append(root, notices.element);

  const open = () => {
    const page = new Page(daemon, session, notices, askWho);
    root.replaceChildren(page.frame.element);
    page.start();
  };

  const askWho = (/** @type {string} */ remark) => {
    const { product, about, firstAccount } = daemon;
    document.title = `Log in – ${location.hostname} – ${product}`;
    const where = `${about} ${location.host}`;
    const options = { session, product, about: where, firstAccount, remark, onLogin: open };
    const form = loginForm(options);
    root.replaceChildren(h('main', { class: 'door' }, form));
    form.querySelector('input')?.focus();
  };

  try {
    if (await session.resume()) open();
    else askWho('');
  } catch (error) {
    askWho(inWords(error));
  }
}
