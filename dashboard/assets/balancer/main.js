// Where the page begins: logs in, keeps the live stream, and shows the view that the address names.

import { h } from '../common/dom.js';
import { inWords } from '../common/dialogs.js';
import { Frame } from '../common/frame.js';
import { Live } from '../common/live.js';
import { loginForm } from '../common/login.js';
import { Notices } from '../common/notices.js';
import { format, parse } from '../common/routes.js';
import { Session } from '../common/session.js';
import { Actions } from './actions.js';
import { BackendView } from './backend.js';
import { EventsView } from './events.js';
import { Model } from './model.js';
import { NodeView } from './node.js';
import { Overview } from './overview.js';
import { ServiceView } from './service.js';
import { VrrpView } from './vrrp.js';

/**
 * @typedef {Object} View
 * @property {Element} element
 * @property {string} title
 * @property {(model: Model) => void} update
 *
 * @typedef {Object} Context what views need beside the model
 * @property {Actions | null} actions `null` for who may only look
 * @property {string[]} path
 * @property {Record<string, string>} options
 */

const PRODUCT = 'Tidegate';
const PLACES = [
  { id: '', label: 'Overview', href: format([]) },
  { id: 'services', label: 'Services', href: format(['services']) },
  { id: 'vrrp', label: 'VRRP and sync', short: 'VRRP', href: format(['vrrp']) },
  { id: 'node', label: 'Node', href: format(['node']) },
  { id: 'events', label: 'Events', href: format(['events']) },
];

/** How often the words of a lost connection count, in milliseconds. */
const COUNT = 1_000;

/** All that begins with a login and ends with the session. */
class Page {
  /**
   * @param {Session} session
   * @param {Notices} notices
   * @param {(remark: string) => void} onEnd
   */
  constructor(session, notices, onEnd) {
    const { account } = session;
    if (account === null) throw new Error('nobody is logged in');
    this.session = session;
    this.notices = notices;
    this.onEnd = onEnd;
    this.model = new Model();
    this.actions = session.isOperator ? new Actions(session, notices, () => this.model) : null;
    this.frame = new Frame({
      product: PRODUCT,
      places: PLACES,
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
    /** @type {import('../common/live.js').LinkState['kind']} */
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

  /** @param {import('../common/live.js').LinkState} state */
  handleLink(state) {
    const isNews = state.kind === 'lost' && this.view !== null && state.kind !== this.linkKind;
    if (state.kind !== 'live' && this.linkKind === 'live') this.model.handleStream();
    this.linkKind = state.kind;
    this.frame.setLink(state);
    this.actions?.setReach(state.kind === 'live');
    if (!isNews) return;
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
    for (const { text, tone } of this.model.takeStatus(data, Date.now())) {
      if (!isFirst) this.notices.say(text, tone);
    }
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
    const { path, options } = parse(location.hash);
    this.view = viewOf({ actions: this.actions, path, options });
    this.frame.setPlace(path[0] ?? '');
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
    const { tone, words } = this.model.headline;
    if (this.live.state.kind !== 'lost') this.frame.setTitle(tone, words);
  }
}

/**
 * @param {Context} context
 * @returns {View}
 */
function viewOf(context) {
  const [place, , backend] = context.path;
  switch (place) {
    case 'services':
      return backend === undefined ? new ServiceView(context) : new BackendView(context);
    case 'vrrp':
      return new VrrpView(context);
    case 'node':
      return new NodeView();
    case 'events':
      return new EventsView(context);
    default:
      return new Overview();
  }
}

const session = new Session();
const notices = new Notices();
const root = h('div', { class: 'root' });
document.body.append(root, notices.element);

function open() {
  const page = new Page(session, notices, askWho);
  root.replaceChildren(page.frame.element);
  page.start();
}

/** @param {string} remark */
function askWho(remark) {
  document.title = `Log in – ${location.hostname} – ${PRODUCT}`;
  const form = loginForm({
    session,
    product: PRODUCT,
    about: `Balancer ${location.host}`,
    firstAccount: 'tidegate account add NAME --role operator',
    remark,
    onLogin: open,
  });
  root.replaceChildren(h('main', { class: 'door' }, form));
  form.querySelector('input')?.focus();
}

try {
  if (await session.resume()) open();
  else askWho('');
} catch (error) {
  askWho(inWords(error));
}
