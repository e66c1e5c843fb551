// The form that comes before everything else.

import { h, setText } from './dom.js';
import { inWords } from './dialogs.js';
import { RequestError } from './session.js';

/**
 * @param {Object} options
 * @param {import('./session.js').Session} options.session
 * @param {string} options.product
 * @param {string} options.about what one logs in to
 * @param {string} options.firstAccount the command that makes the first account
 * @param {string} [options.remark] why one has to, if one was in before
 * @param {() => void} options.onLogin
 */
export function loginForm({ session, product, about, firstAccount, remark = '', onLogin }) {
  const name = field('name', 'username', 'text');
  const password = field('password', 'current-password', 'password');
  const message = h('p', { class: 'login-message', role: 'alert' }, remark);
  const go = h('button', { type: 'submit', class: 'primary' }, 'Log in');
  const form = h(
    'form',
    { class: 'login', 'aria-labelledby': 'login-title' },
    h('img', { src: 'assets/common/mark.svg', alt: '', width: 48, height: 48 }),
    h('h1', { id: 'login-title', tabindex: -1 }, product),
    h('p', { class: 'login-about' }, about),
    h('label', {}, 'Name', name),
    h('label', {}, 'Password', password),
    message,
    go,
    h(
      'details',
      {},
      h('summary', {}, 'No account yet?'),
      h('p', {}, 'There is none until somebody makes it on the host itself, as root:'),
      h('pre', {}, h('code', {}, firstAccount)),
    ),
  );

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    go.disabled = true;
    setText(message, '');
    let pause = 0;
    try {
      await session.login(name.value, password.value);
      onLogin();
    } catch (failure) {
      setText(message, inWords(failure));
      if (failure instanceof RequestError) pause = failure.retryAfter;
      password.value = '';
      password.focus();
    }
    hold(go, pause);
  });
  return form;
}

/**
 * A field that a browser's store of passwords knows.
 * @param {string} id
 * @param {string} kind
 * @param {string} type
 */
function field(id, kind, type) {
  const plain = { autocapitalize: 'none', spellcheck: 'false' };
  return h('input', { id, name: id, type, required: true, autocomplete: kind, ...plain });
}

/**
 * Keeps a button out of use for as long as the daemon would refuse, and says how long that is.
 * @param {HTMLButtonElement} button
 * @param {number} seconds
 */
function hold(button, seconds) {
  button.disabled = seconds > 0;
  setText(button, seconds > 0 ? `Wait ${Math.ceil(seconds)} s` : 'Log in');
  if (seconds > 0) setTimeout(() => hold(button, seconds - 1), 1_000);
}
