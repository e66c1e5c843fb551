// Drives a headless Chromium by its DevTools protocol, over two pipes: no port is open, and nothing is
// needed beside node and the browser.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A browser that has not answered by then will not, in milliseconds. */
const PATIENCE = 30_000;

const SWITCHES = [
  '--headless=new',
  '--remote-debugging-pipe',
  '--disable-gpu',
  '--hide-scrollbars',
  '--mute-audio',
  '--no-first-run',
  '--no-default-browser-check',
  '--disable-extensions',
  '--disable-sync',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-dev-shm-usage',
  '--force-color-profile=srgb',
];

export class Chromium {
  /**
   * @param {import('node:child_process').ChildProcess} child
   * @param {string} profile
   */
  constructor(child, profile) {
    this.child = child;
    this.profile = profile;
    this.number = 0;
    this.waiting = new Map();
    this.listeners = new Set();
    this.input = child.stdio[3];
    let rest = '';
    child.stdio[4].setEncoding('utf8').on('data', (text) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop();
      for (const message of messages) this.handle(JSON.parse(message));
    });
  }

  /**
   * @param {string} program
   * @param {string[]} [more] switches
   */
  static async launch(program, more = []) {
    const profile = await mkdtemp(join(tmpdir(), 'tidegate-chromium-'));
    // Root has no user namespaces to put a sandbox in; the page is ours.
    const sandbox = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
    const switches = [
      ...SWITCHES,
      ...more,
      ...sandbox,
      `--user-data-dir=${profile}`,
      'about:blank',
    ];
    const child = spawn(program, switches, {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    });
    await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject));
    return new Chromium(child, profile);
  }

  handle(message) {
    const { id, result, error, method, params, sessionId } = message;
    const waiting = this.waiting.get(id);
    if (waiting) {
      this.waiting.delete(id);
      if (error) waiting.reject(new Error(`${waiting.method}: ${error.message}`));
      else waiting.resolve(result);
      return;
    }
    for (const listener of this.listeners) listener({ method, params, sessionId });
  }

  send(method, params = {}, sessionId = undefined) {
    this.number += 1;
    const id = this.number;
    this.input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method}: no answer`)), PATIENCE);
      const settle = (end) => (value) => {
        clearTimeout(timer);
        end(value);
      };
      this.waiting.set(id, { method, resolve: settle(resolve), reject: settle(reject) });
    });
  }

  /** A page of its own: no cookie and no storage is shared with another. */
  async page({ width = 1280, height = 800, isDark = false, isTouch = false } = {}) {
    const { browserContextId } = await this.send('Target.createBrowserContext');
    const { targetId } = await this.send('Target.createTarget', {
      url: 'about:blank',
      browserContextId,
    });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId, browserContextId);
    await page.prepare({ width, height, isDark, isTouch });
    return page;
  }

  async close() {
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.send('Browser.close').catch(() => {});
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 5_000).unref())]);
    if (this.child.exitCode === null) this.child.kill('SIGKILL');
    await rm(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

export class Page {
  constructor(browser, sessionId, contextId) {
    this.browser = browser;
    this.sessionId = sessionId;
    this.contextId = contextId;
    /** What the console, the policy and uncaught errors have said. @type {string[]} */
    this.complaints = [];
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  async prepare({ width, height, isDark, isTouch }) {
    this.browser.listeners.add(({ method, params, sessionId }) => {
      if (sessionId === this.sessionId) this.listen(method, params);
    });
    for (const domain of ['Page', 'Runtime', 'Log', 'Performance'])
      await this.send(`${domain}.enable`);
    await this.send('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: isTouch,
    });
    await this.setScheme(isDark ? 'dark' : 'light');
  }

  /** @param {'dark' | 'light'} value */
  setScheme(value) {
    return this.send('Emulation.setEmulatedMedia', {
      features: [{ name: 'prefers-color-scheme', value }],
    });
  }

  listen(method, params) {
    if (method === 'Runtime.exceptionThrown') {
      const { text, exception } = params.exceptionDetails;
      this.complaints.push(`exception: ${text} ${exception?.description ?? ''}`);
    } else if (
      method === 'Runtime.consoleAPICalled' &&
      ['error', 'warning', 'assert'].includes(params.type)
    ) {
      this.complaints.push(
        `console: ${params.args.map(({ value, description }) => value ?? description).join(' ')}`,
      );
    } else if (method === 'Log.entryAdded' && ['error', 'warning'].includes(params.entry.level)) {
      this.complaints.push(
        `${params.entry.source}: ${params.entry.text} ${params.entry.url ?? ''}`,
      );
    }
  }

  /** With all that it remembers. */
  close() {
    return this.browser.send('Target.disposeBrowserContext', { browserContextId: this.contextId });
  }

  async open(url) {
    await this.send('Page.navigate', { url });
  }

  /** The value of an expression; promises are waited for. */
  async value(expression) {
    const asked = { expression, awaitPromise: true, returnByValue: true, userGesture: true };
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', asked);
    if (exceptionDetails)
      throw new Error(
        `${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`,
      );
    return result.value;
  }

  /** Waits until an expression is true. */
  async until(expression, what = expression, patience = 10_000) {
    const deadline = Date.now() + patience;
    for (;;) {
      // A navigation takes the context away from under a question.
      const value = await this.value(expression).catch(() => undefined);
      if (value) return value;
      if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Presses what has that selector and, if given, that text. */
  async click(selector, text = '') {
    const found = `[...document.querySelectorAll(${JSON.stringify(selector)})]
      .find((it) => it.checkVisibility() && it.textContent.includes(${JSON.stringify(text)}))`;
    await this.until(`!!${found}`, `there is a ${selector} ${text}`);
    const { x, y } = await this.value(`(() => {
      const it = ${found};
      it.scrollIntoView({ block: 'center', behavior: 'instant' });
      const box = it.getBoundingClientRect();
      return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
    })()`);
    const at = { x, y, button: 'left', clickCount: 1 };
    await this.send('Input.dispatchMouseEvent', { type: 'mouseMoved', x, y });
    await this.send('Input.dispatchMouseEvent', { type: 'mousePressed', ...at });
    await this.send('Input.dispatchMouseEvent', { type: 'mouseReleased', ...at });
  }

  /** Types into a field, in place of what is there. */
  async type(selector, text) {
    await this.until(
      `!!document.querySelector(${JSON.stringify(selector)})`,
      `there is a ${selector}`,
    );
    await this.value(`(() => {
      const field = document.querySelector(${JSON.stringify(selector)});
      field.focus();
      field.select?.();
    })()`);
    await this.send('Input.insertText', { text });
  }

  /** @param {'Tab' | 'Escape' | 'Enter'} key */
  async key(key) {
    const it = { key, code: key, windowsVirtualKeyCode: { Tab: 9, Escape: 27, Enter: 13 }[key] };
    await this.send('Input.dispatchKeyEvent', { type: 'rawKeyDown', ...it });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...it });
  }

  /** @returns {Promise<Buffer>} a PNG */
  async picture(options = {}) {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png', ...options });
    return Buffer.from(data, 'base64');
  }

  /** Seconds that went into scripts, styles and layout so far. */
  async work() {
    const { metrics } = await this.send('Performance.getMetrics');
    const of = (name) => metrics.find((metric) => metric.name === name)?.value ?? 0;
    return of('ScriptDuration') + of('RecalcStyleDuration') + of('LayoutDuration');
  }
}
