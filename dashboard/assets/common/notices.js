// Short messages at the page's edge, read out by screen readers.

import { h } from './dom.js';
import { icon } from './icons.js';

/** Long enough for two lines to be read, in milliseconds. */
const STAY = 6_000;

/** More would cover the page. */
const MOST = 3;

/** @typedef {'good' | 'warning' | 'error' | 'notice'} Tone */

export class Notices {
  constructor() {
    this.shown = h('div', { class: 'notices' });
    // What is only heard: a change that the page shows in its place.
    this.polite = h('p', { class: 'unseen', 'aria-live': 'polite' });
    this.urgent = h('p', { class: 'unseen', role: 'alert' });
    this.element = h('div', {}, this.shown, this.polite, this.urgent);
  }

  /**
   * Shows a message, and has it read out.
   * @param {string} text
   * @param {Tone} tone
   */
  show(text, tone) {
    const notice = h('p', { class: `notice tone-${tone}` }, icon(tone), h('span', {}, text));
    this.shown.append(notice);
    while (this.shown.childElementCount > MOST) this.shown.firstElementChild?.remove();
    setTimeout(() => notice.remove(), STAY);
    this.say(text, tone);
  }

  /**
   * Has several read out as one: of two that come together only the last would be.
   * @param {{text: string, tone: Tone}[]} messages
   */
  sayAll(messages) {
    if (messages.length === 0) return;
    const isUrgent = messages.some(({ tone }) => tone === 'error');
    this.say(messages.map(({ text }) => text).join('. '), isUrgent ? 'error' : 'notice');
  }

  /**
   * Has a message read out, at once if it is an error.
   * @param {string} text
   * @param {Tone} tone
   */
  say(text, tone) {
    (tone === 'error' ? this.urgent : this.polite).textContent = text;
  }
}
