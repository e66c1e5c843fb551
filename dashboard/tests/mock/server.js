// A stand-in for a daemon with a dashboard: serves the pages as they are, and keeps to the contract of
// login, live stream and orders. For tests of the pages, and for who works on them:
//
//   node dashboard/tests/mock/main.js [--port 8404] [--scenario calm|trouble] [--services 10] [--backends 10]

import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';

import { World } from './world.js';

const ASSETS = new URL('../../assets/', import.meta.url);

export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const TYPES = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' };

/** Two accounts, whose passwords are only good for this. */
const ACCOUNTS = { olga: ['tide-in-tide-out', 'operator'], vera: ['only-looking', 'viewer'] };

const REFUSED = { error: 'the name or the password is wrong', hint: '' };
const NOT_IN = { error: 'nobody is logged in', hint: 'log in' };

export class Mock {
  constructor(options = {}) {
    this.world = new World(options);
    this.sessions = new Map();
    this.streams = new Set();
    this.failures = 0;
    /** Whether it hangs up on everybody, as a daemon that is gone. */
    this.isGone = false;
    this.server = createServer((request, response) => {
      this.handle(request, response).catch((error) => {
        response.destroy();
        console.error(error);
      });
    });
    this.world.listeners.add((event) => this.send('event', event));
  }

  /** @returns {Promise<string>} its URL */
  async listen(port = 0) {
    await new Promise((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    this.run(1000);
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  /** Has a second go by each so many milliseconds. */
  run(millis) {
    clearInterval(this.clock);
    this.clock = setInterval(() => {
      this.world.tick();
      this.send('status', this.world.status);
    }, millis);
  }

  close() {
    clearInterval(this.clock);
    this.server.close();
    this.server.closeAllConnections();
  }

  /** Breaks all connections, and makes no more until told otherwise. */
  vanish(isGone) {
    this.isGone = isGone;
    if (!isGone) return;
    for (const stream of this.streams) stream.destroy();
    this.streams.clear();
  }

  send(kind, data) {
    const text = `event: ${kind}\ndata: ${JSON.stringify(data)}\n\n`;
    for (const stream of this.streams) stream.write(text);
  }

  async handle(request, response) {
    if (this.isGone) return request.socket.destroy();
    const url = new URL(request.url, 'http://localhost');
    const { pathname } = url;
    response.setHeader('Content-Security-Policy', POLICY);
    response.setHeader('X-Content-Type-Options', 'nosniff');
    response.setHeader('Referrer-Policy', 'no-referrer');
    if (pathname === '/') return this.asset(response, 'balancer/index.html');
    if (pathname.startsWith('/assets/')) return this.asset(response, pathname.slice(8));
    const body = await read(request);
    if (pathname === '/session') return this.session(request, response, body);
    const session = this.sessions.get(cookie(request));
    if (!session) return answer(response, 401, NOT_IN);
    if (pathname === '/v1/live') return this.live(request, response);
    if (pathname === '/v1/status') return answer(response, 200, this.world.status);
    if (pathname === '/v1/events') {
      const since = Number(url.searchParams.get('since') ?? 0);
      const events = this.world.events.filter(({ seq }) => seq > since);
      return answer(response, 200, { events, missed: 0, last: this.world.seq });
    }
    if (request.method !== 'POST')
      return answer(response, 404, { error: 'there is no such route', hint: '' });
    if (request.headers['x-csrf-token'] !== session.csrf) {
      return answer(response, 403, {
        error: 'the header X-CSRF-Token is not the one of this session',
        hint: 'load the page again',
      });
    }
    if (session.role !== 'operator')
      return answer(response, 403, {
        error: 'viewers change nothing',
        hint: 'log in as an operator',
      });
    return this.change(response, url, body);
  }

  async asset(response, name) {
    if (!/^[a-z]+\/[a-z_0-9-]+\.[a-z]+$/.test(name))
      return answer(response, 404, { error: 'there is no such asset', hint: '' });
    try {
      const content = await readFile(new URL(name, ASSETS));
      const type = TYPES[name.split('.').at(-1)];
      response.writeHead(200, {
        'Content-Type': `${type}; charset=utf-8`,
        'Cache-Control': 'no-cache',
      });
      response.end(content);
    } catch {
      answer(response, 404, { error: 'there is no such asset', hint: '' });
    }
  }

  session(request, response, body) {
    const id = cookie(request);
    const session = this.sessions.get(id);
    if (request.method === 'GET')
      return session ? answer(response, 200, session) : answer(response, 401, NOT_IN);
    if (request.method === 'DELETE') {
      if (!session || request.headers['x-csrf-token'] !== session.csrf)
        return answer(response, 403, NOT_IN);
      this.sessions.delete(id);
      return answer(response, 204);
    }
    if (this.failures >= 5) {
      this.failures = 0;
      response.setHeader('Retry-After', '4');
      return answer(response, 429, { error: 'too many attempts', hint: 'wait a little' });
    }
    const { name, password } = JSON.parse(body);
    const [right, role] = ACCOUNTS[name] ?? [];
    if (right === undefined || right !== password) {
      this.failures += 1;
      return answer(response, 401, REFUSED);
    }
    const made = randomBytes(32).toString('hex');
    const account = { name, role, csrf: randomBytes(16).toString('hex'), expires_seconds: 43_200 };
    this.sessions.set(made, account);
    response.setHeader('Set-Cookie', `tidegate=${made}; HttpOnly; SameSite=Strict; Path=/`);
    return answer(response, 200, account);
  }

  live(request, response) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    response.write(`event: status\ndata: ${JSON.stringify(this.world.status)}\n\n`);
    this.streams.add(response);
    request.on('close', () => this.streams.delete(response));
  }

  change(response, url, body) {
    const [, , noun, ...names] = url.pathname.split('/').map(decodeURIComponent);
    let changed = null;
    if (noun === 'backends' && names.length === 3) {
      const [service, name, verb] = names;
      const weight = verb === 'weight' ? JSON.parse(body).weight : 0;
      if (!(weight >= 0 && weight <= 256))
        return answer(response, 400, {
          error: `weight ${weight} is beyond 256`,
          hint: 'at most 256',
        });
      changed = this.world.order(
        service,
        name,
        verb,
        weight,
        url.searchParams.get('temporary') !== 'true',
      );
    } else if (noun === 'vrrp' && names.length === 2) {
      changed = this.world.route(names[0], names[1]);
    }
    if (changed === null)
      return answer(response, 404, { error: 'there is nothing of that name', hint: '' });
    return answer(response, 200, changed);
  }
}

function answer(response, status, body) {
  response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

function cookie(request) {
  return /(?:^|; )tidegate=([0-9a-f]+)/.exec(request.headers.cookie ?? '')?.[1];
}

async function read(request) {
  let text = '';
  for await (const part of request) text += part;
  return text;
}
