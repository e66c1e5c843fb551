// What stands round every page: its head, the way to the others, and word of a lost connection.

import { h, setAttribute, setHidden, setText } from './dom.js';
import { clock, duration } from './format.js';
import { icon } from './icons.js';
import { markOf } from './mark.js';
import { themeButton } from './theme.js';

/** What this computer is called by browsers on it, or at the other end of a tunnel. */
const LOCAL = ['localhost', '127.0.0.1', '[::1]'];

/**
 * @typedef {Object} Place
 * @property {string} id the first part of its route
 * @property {string} label
 * @property {string} [short] where there is little room
 * @property {string} href
 */

export class Frame {
  /**
   * @param {Object} options
   * @param {string} options.product
   * @param {Place[]} options.places
   * @param {import('./session.js').Account} options.account
   * @param {() => void} options.onLogout
   * @param {() => void} options.onRetry
   */
  constructor({ product, places, account, onLogout, onRetry }) {
    this.product = product;
    this.links = places.map((place) => ({ id: place.id, link: placeLink(place) }));
    this.name = location.hostname;
    this.host = h('b', {}, this.name);
    this.pulse = h('span', { class: 'pulse' });
    this.main = h('main', { id: 'main', tabindex: -1 });
    this.loss = h('p', {});
    const retry = h('button', { type: 'button', on: { click: onRetry } }, 'Try now');
    // Its words count seconds, so they are no alert: that is read out once.
    this.lost = h('div', { class: 'lost', hidden: true }, icon('lost'), this.loss, retry);
    const leave = h(
      'button',
      { type: 'button', class: 'quiet icon-only', 'aria-label': 'Log out', title: 'Log out' },
      icon('leave'),
    );
    leave.addEventListener('click', onLogout);
    this.element = h(
      'div',
      { class: 'frame' },
      h(
        'a',
        { class: 'skip', href: '#main', on: { click: (event) => this.skip(event) } },
        'Skip to content',
      ),
      h(
        'header',
        { class: 'top' },
        h('a', { class: 'brand', href: '#/' }, mark(), h('span', {}, product), this.host),
        h('nav', { 'aria-label': 'Pages' }, ...this.links.map(({ link }) => link)),
        h(
          'div',
          { class: 'top-end' },
          this.pulse,
          h('span', { class: 'who' }, account.name, h('small', {}, account.role)),
          themeButton(),
          leave,
        ),
      ),
      this.lost,
      this.main,
    );
  }

  /** The address has the route, so this link must not change it. @param {Event} event */
  skip(event) {
    event.preventDefault();
    this.main.focus();
  }

  /**
   * Names the node by an address of its own where the browser's name for it tells nothing: through
   * tunnels all nodes are `localhost`, and the wrong one is soon drained.
   * @param {string} address empty: not known
   */
  setNode(address) {
    if (address !== '' && LOCAL.includes(location.hostname)) this.name = address;
    setText(this.host, this.name);
  }

  /** @param {string} id */
  setPlace(id) {
    for (const { id: own, link } of this.links) {
      setAttribute(link, 'aria-current', own === id && 'page');
    }
  }

  /** @param {import('./live.js').LinkState} state */
  setLink(state) {
    const isLost = state.kind === 'lost';
    setText(
      this.pulse,
      { connecting: 'connecting', live: 'live', lost: 'no connection' }[state.kind],
    );
    setAttribute(this.pulse, 'data-state', state.kind);
    setHidden(this.lost, !isLost);
    this.main.classList.toggle('is-stale', isLost);
    if (!isLost) return;
    const wait = Math.ceil((state.retryAt - Date.now()) / 1000);
    const next = wait > 0 ? `Trying again in ${wait} s.` : 'Trying again.';
    const age = duration((Date.now() - state.since) / 1000);
    // The daemon bounds how many may look at a time.
    const what = state.isRefused ? 'The daemon answers, but sends no news' : 'No connection';
    setText(this.loss, `${what}. What is shown is from ${clock(state.since)}, ${age} ago. ${next}`);
  }

  /**
   * Has the browser's tab tell whether all is well.
   * @param {'good' | 'notice' | 'warning' | 'error' | 'lost'} tone
   * @param {string} words
   */
  setTitle(tone, words) {
    const title = `${words} – ${this.name} – ${this.product}`;
    if (document.title !== title) document.title = title;
    const link = document.querySelector('link[rel="icon"]');
    if (link) setAttribute(link, 'href', markOf(tone));
  }
}

/** @param {Place} place */
function placeLink({ label, short, href }) {
  if (short === undefined) return h('a', { href }, label);
  const both = [h('span', { class: 'wide' }, label), h('span', { class: 'narrow' }, short)];
  return h('a', { href }, ...both);
}

function mark() {
  return h('img', { src: 'assets/common/mark.svg', alt: '', width: 24, height: 24 });
}
