// What an operator can do: each button asks first, and says what will happen.

import { h, setAttribute, setHidden } from '../common/dom.js';
import { ask } from '../common/dialogs.js';
import * as sentences from './consequences.js';

/**
 * @typedef {import('../../types/balancer.d.ts').Service} Service
 * @typedef {import('../../types/balancer.d.ts').Backend} Backend
 * @typedef {import('../../types/balancer.d.ts').Router} Router
 * @typedef {{service: Service, backend: Backend, model: import('./model.js').Model}} Item
 */

const HEAVIEST = 256;

export class Actions {
  /**
   * @param {import('../common/session.js').Session} session
   * @param {import('../common/notices.js').Notices} notices
   */
  constructor(session, notices) {
    this.session = session;
    this.notices = notices;
    this.isReached = true;
  }

  /** Without a connection nothing can be ordered. @param {boolean} isReached */
  setReach(isReached) {
    if (this.isReached === isReached) return;
    this.isReached = isReached;
    for (const button of document.querySelectorAll('.orders button')) {
      setAttribute(button, 'disabled', !isReached);
    }
  }

  /** Buttons for a backend. */
  forRow() {
    /** @type {Item | null} */
    let item = null;
    const button = (/** @type {string} */ label, /** @type {(item: Item) => unknown} */ run) =>
      h(
        'button',
        { type: 'button', class: 'small', on: { click: () => item && run(item) } },
        label,
      );
    const drain = button('Drain', (it) => this.drain(it));
    const enable = button('Enable', (it) => this.enable(it));
    const weight = button('Weight', (it) => this.weigh(it));
    const disable = button('Disable', (it) => this.disable(it));
    const element = h('span', { class: 'orders' }, drain, enable, weight, disable);
    const update = (/** @type {Item} */ next) => {
      item = next;
      const { admin, leaving, evacuated, name } = next.backend;
      // Who drains because its check asks for it may be told to, for when the check does not any more.
      setHidden(drain, leaving || (admin !== 'enabled' && !evacuated));
      setHidden(enable, leaving || admin === 'enabled');
      setHidden(weight, leaving);
      setHidden(disable, admin === 'disabled');
      for (const it of [drain, enable, weight, disable]) {
        setAttribute(it, 'aria-label', `${it.textContent} ${name}`);
        setAttribute(it, 'disabled', !this.isReached);
      }
    };
    return { element, update };
  }

  /** Buttons for a virtual router. */
  forRouter() {
    /** @type {Router | null} */
    let router = null;
    const button = (/** @type {string} */ label, /** @type {(router: Router) => unknown} */ run) =>
      h(
        'button',
        { type: 'button', class: 'small', on: { click: () => router && run(router) } },
        label,
      );
    const release = button('Release', (it) => this.release(it));
    const resume = button('Resume', (it) => this.resume(it));
    const element = h('span', { class: 'orders' }, release, resume);
    const update = (/** @type {Router} */ next) => {
      router = next;
      const isReleased = next.held.includes('operator');
      setHidden(release, isReleased);
      setHidden(resume, !isReleased && !next.faults.includes('no_vip'));
      for (const it of [release, resume]) {
        setAttribute(it, 'aria-label', `${it.textContent} ${next.name}`);
        setAttribute(it, 'disabled', !this.isReached);
      }
    };
    return { element, update };
  }

  /** @param {Item} item */
  drain(item) {
    const { body, isHarmful } = sentences.drain(item.service, item.backend);
    return this.order(item, { verb: 'drain', action: 'Drain', body, isHarmful, done: 'drains' });
  }

  /** @param {Item} item */
  enable(item) {
    const body = sentences.enable(item.backend);
    return this.order(item, { verb: 'enable', action: 'Enable', body, done: 'is enabled' });
  }

  /** @param {Item} item */
  disable(item) {
    const body = sentences.disable(item.service, item.backend);
    return this.order(item, {
      verb: 'disable',
      action: 'Disable',
      body,
      isHarmful: true,
      done: 'is disabled',
    });
  }

  /** @param {Item} item */
  weigh(item) {
    const bounds = { type: 'number', min: 0, max: HEAVIEST, step: 1, required: true };
    const field = h('input', { ...bounds, value: item.backend.weight, autofocus: true });
    const told = h('output', {});
    const tell = () => {
      told.value = field.validity.valid
        ? sentences.share(item.service, item.backend, field.valueAsNumber)
        : '';
    };
    field.addEventListener('input', tell);
    tell();
    const body = sentences.weight();
    const more = [h('label', {}, `Weight, 0 to ${HEAVIEST}`, field), h('p', {}, told)];
    const value = () => ({ weight: field.valueAsNumber });
    return this.order(item, {
      verb: 'weight',
      action: 'Set weight',
      body,
      more,
      value,
      done: 'has another weight',
    });
  }

  /**
   * @param {Item} item
   * @param {Object} order
   * @param {string} order.verb
   * @param {string} order.action
   * @param {string[]} order.body
   * @param {string} order.done
   * @param {boolean} [order.isHarmful]
   * @param {Element[]} [order.more]
   * @param {() => unknown} [order.value]
   */
  async order(
    { service, backend, model },
    { verb, action, body, done, isHarmful, more = [], value },
  ) {
    const temporary = h('input', { type: 'checkbox' });
    const lasting = h(
      'label',
      { class: 'check' },
      temporary,
      'Forget this when the daemon restarts',
    );
    const name = `${service.name}/${backend.name}`;
    const peer = sentences.isPaired(model.status) && h('p', { class: 'aside' }, sentences.PEER);
    const names = [service.name, backend.name].map(encodeURIComponent).join('/');
    const path = `/v1/backends/${names}/${verb}`;
    const isDone = await ask({
      title: `${action}: ${name}`,
      body: [...body.map((text) => h('p', {}, text)), ...more, peer, lasting],
      action,
      isHarmful,
      run: () =>
        this.session.call(
          'POST',
          `${path}${temporary.checked ? '?temporary=true' : ''}`,
          value?.(),
        ),
    });
    if (isDone) this.notices.show(`${name} ${done}`, 'good');
  }

  /** @param {Router} router */
  release(router) {
    return this.move(
      router,
      'release',
      'Release',
      sentences.release(router),
      'hands its role over',
    );
  }

  /** @param {Router} router */
  resume(router) {
    return this.move(router, 'resume', 'Resume', sentences.resume(router), 'takes part again');
  }

  /**
   * @param {Router} router
   * @param {string} verb
   * @param {string} action
   * @param {string[]} body
   * @param {string} done
   */
  async move({ name }, verb, action, body, done) {
    const isDone = await ask({
      title: `${action}: ${name}`,
      body: body.map((text) => h('p', {}, text)),
      action,
      isHarmful: verb === 'release',
      run: () => this.session.call('POST', `/v1/vrrp/${encodeURIComponent(name)}/${verb}`),
    });
    if (isDone) this.notices.show(`Router ${name} ${done}`, 'good');
  }
}
