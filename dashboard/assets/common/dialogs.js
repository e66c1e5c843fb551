// A dialog that says what will happen, and lets it happen or not.

import { h, setText } from './dom.js';
import { RequestError } from './session.js';

/**
 * @typedef {Object} Question
 * @property {string} title
 * @property {import('./dom.js').Child[]} body what will happen, and fields
 * @property {string} action what the button says
 * @property {boolean} [isHarmful] whether somebody loses something by it
 * @property {() => Promise<unknown>} run does it; what it throws is shown, and the dialog stays
 */

let number = 0;

/**
 * Asks. The safe answer has the focus where harm can be done; Escape is one as well.
 * @param {Question} question
 * @returns {Promise<boolean>} whether it was done
 */
export function ask({ title, body, action, isHarmful = false, run }) {
  number += 1;
  const ids = { title: `dialog-title-${number}`, body: `dialog-body-${number}` };
  const error = h('p', { class: 'dialog-error', role: 'alert', hidden: true });
  const cancel = h('button', { type: 'button', class: 'quiet', autofocus: isHarmful }, 'Cancel');
  const tone = isHarmful ? 'harmful' : 'primary';
  const go = h('button', { type: 'submit', class: tone }, action);
  const form = h(
    'form',
    {},
    h('h2', { id: ids.title }, title),
    h('div', { class: 'dialog-body', id: ids.body }, ...body),
    error,
    h('div', { class: 'dialog-actions' }, cancel, go),
  );
  const labels = { 'aria-labelledby': ids.title, 'aria-describedby': ids.body };
  const dialog = h('dialog', labels, form);

  return new Promise((resolve) => {
    let isDone = false;
    cancel.addEventListener('click', () => dialog.close());
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      go.disabled = true;
      error.hidden = true;
      try {
        await run();
        isDone = true;
        dialog.close();
      } catch (failure) {
        setText(error, inWords(failure));
        error.hidden = false;
        go.disabled = false;
      }
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(isDone);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** @param {unknown} failure */
export function inWords(failure) {
  if (!(failure instanceof Error)) return String(failure);
  const hint = failure instanceof RequestError ? failure.hint : '';
  return hint === '' ? sentence(failure.message) : `${sentence(failure.message)} ${sentence(hint)}`;
}

/** @param {string} text */
export function sentence(text) {
  const upper = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(upper) ? upper : `${upper}.`;
}
