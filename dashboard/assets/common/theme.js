// Light or dark: as the system has it, until somebody chooses.

import { h, setAttribute } from './dom.js';
import { icon } from './icons.js';

const KEY = 'tidegate-theme';
const SYSTEM = window.matchMedia('(prefers-color-scheme: dark)');

/** What is shown. @returns {'light' | 'dark'} */
function shown() {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === 'light' || chosen === 'dark') return chosen;
  return SYSTEM.matches ? 'dark' : 'light';
}

/** A button that changes to the other one. Choosing what the system has follows it again. */
export function themeButton() {
  const button = h('button', { class: 'quiet icon-only', type: 'button' });
  const describe = () => {
    const other = shown() === 'dark' ? 'light' : 'dark';
    setAttribute(button, 'aria-label', `Change to ${other} colours`);
    setAttribute(button, 'title', `Change to ${other} colours`);
    button.replaceChildren(icon(other === 'dark' ? 'moon' : 'sun'));
  };
  button.addEventListener('click', () => {
    choose(shown() === 'dark' ? 'light' : 'dark');
    describe();
  });
  SYSTEM.addEventListener('change', describe);
  describe();
  return button;
}

/** @param {'light' | 'dark'} theme */
function choose(theme) {
  const isSystems = (theme === 'dark') === SYSTEM.matches;
  if (isSystems) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (isSystems) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // It holds for as long as the page is open.
  }
}
