// Who is logged in, and every request but the live stream.

/**
 * @typedef {Object} Account
 * @property {string} name
 * @property {'viewer' | 'operator'} role
 * @property {string} csrf
 * @property {number} expires_seconds
 */

/** A request that came to nothing, in the daemon's words where it has said any. */
export class RequestError extends Error {
  /**
   * @param {number} status 0 if nobody has answered
   * @param {string} message
   * @param {string} [hint]
   * @param {number} [retryAfter] seconds
   */
  constructor(status, message, hint = '', retryAfter = 0) {
    super(message);
    this.status = status;
    this.hint = hint;
    this.retryAfter = retryAfter;
  }
}

export class Session {
  /** @param {typeof fetch} [ask] */
  constructor(ask = (...request) => fetch(...request)) {
    this.ask = ask;
    /** @type {Account | null} */
    this.account = null;
    /** Told when the daemon does not know the session any more. */
    this.onEnd = () => {};
  }

  get isOperator() {
    return this.account?.role === 'operator';
  }

  /**
   * Finds a session that the browser has a cookie of.
   * @returns {Promise<boolean>} whether there is one
   * @throws {RequestError} if nobody can tell
   */
  async resume() {
    try {
      this.account = await this.send('GET', '/session');
    } catch (error) {
      if (!(error instanceof RequestError) || error.status !== 401) throw error;
      this.account = null;
    }
    return this.account !== null;
  }

  /**
   * @param {string} name
   * @param {string} password
   */
  async login(name, password) {
    this.account = await this.send('POST', '/session', { name, password });
  }

  /** Whatever comes of it, this page forgets who it was. */
  async logout() {
    try {
      await this.send('DELETE', '/session');
    } finally {
      this.account = null;
    }
  }

  /**
   * Asks the daemon for something, or to do something.
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   */
  async call(method, path, body) {
    try {
      return await this.send(method, path, body);
    } catch (error) {
      if (error instanceof RequestError && error.status === 401) {
        this.account = null;
        this.onEnd();
      }
      throw error;
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   */
  async send(method, path, body) {
    /** @type {Record<string, string>} */
    const headers = { Accept: 'application/json' };
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    if (method !== 'GET' && this.account) headers['X-CSRF-Token'] = this.account.csrf;
    const text = body === undefined ? undefined : JSON.stringify(body);
    const request = { method, headers, body: text, credentials: 'same-origin', cache: 'no-store' };
    let answer;
    try {
      answer = await this.ask(path, /** @type {RequestInit} */ (request));
    } catch {
      throw new RequestError(
        0,
        'nobody has answered',
        'is the daemon running, and the way to it up?',
      );
    }
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    throw await refusal(answer);
  }
}

/** @param {Response} answer */
async function refusal(answer) {
  const retryAfter = Number(answer.headers.get('Retry-After')) || 0;
  let said = { error: `the answer was ${answer.status}`, hint: '' };
  try {
    said = { ...said, ...(await answer.json()) };
  } catch {
    // A proxy's page, or nothing.
  }
  return new RequestError(answer.status, said.error, said.hint, retryAfter);
}
