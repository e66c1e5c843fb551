// A made-up balancer that moves: ten services with ten backends each, clients that come and go, one
// backend that fails, and whatever a page orders.

import { firstStatus } from './things.js';

/** A small generator with a seed, so that screenshots look alike. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

export class World {
  /** @param {{services?: number, backends?: number, scenario?: 'calm' | 'trouble'}} [options] */
  constructor({ services = 10, backends = 10, scenario = 'trouble' } = {}) {
    this.random = generator(7);
    this.scenario = scenario;
    this.seq = 0;
    this.events = [];
    this.listeners = new Set();
    this.seconds = 0;
    this.orders = new Map();
    this.status = firstStatus(services, backends, this.random);
    this.past();
    for (let second = 0; second < 30; second += 1) this.tick();
  }

  /** What happened before the page was opened. */
  past() {
    const ago = (seconds) => new Date(Date.now() - seconds * 1000).toISOString();
    this.tell(
      'started',
      'notice',
      'tidegate 0.1.0 has started',
      { version: '0.1.0' },
      ago(266_400),
    );
    this.tell(
      'role_changed',
      'notice',
      'virtual router front is Active, was Backup: the Active was not heard any more (priority 200)',
      { router: 'front', from: 'backup', to: 'active', cause: 'silence', priority: 200 },
      ago(11_500),
    );
    this.tell(
      'sync_up',
      'notice',
      'the peer 172.16.40.23 is in sync with this node, 70321 records',
      { direction: 'sending', peer: '172.16.40.23', records: 70_321 },
      ago(11_200),
    );
    this.tell(
      'reloaded',
      'notice',
      'the configuration was reloaded, generation 3',
      { generation: 3 },
      ago(5_000),
    );
    const flap = { service: 'mqtt', backend: 'broker4' };
    this.tell(
      'backend_health',
      'warning',
      'backend mqtt/broker4 is down, was up: timed out after 1s in CONNACK',
      { ...flap, from: 'up', to: 'down', reason: 'timed out after 1s in CONNACK' },
      ago(420),
    );
    this.tell(
      'backend_health',
      'notice',
      'backend mqtt/broker4 is up, was down',
      { ...flap, from: 'down', to: 'up', reason: null },
      ago(370),
    );
    if (this.scenario === 'trouble') this.fail();
  }

  fail() {
    const backend = this.find('mqtt', 'broker7');
    if (!backend) return;
    const reason = 'connection refused';
    Object.assign(backend, { health: 'down', reason, sessions: { count: 0, exact: true } });
    this.tell(
      'backend_health',
      'warning',
      `backend mqtt/broker7 is down, was up: ${reason}`,
      { service: 'mqtt', backend: 'broker7', from: 'up', to: 'down', reason },
      new Date(Date.now() - 134_000).toISOString(),
    );
  }

  find(service, name) {
    const found = this.status.services.find((it) => it.name === service);
    return found?.backends.find((it) => it.name === name);
  }

  tell(kind, severity, message, fields, time = new Date().toISOString()) {
    this.seq += 1;
    const event = { seq: this.seq, time, kind, severity, message, ...fields };
    this.events.push(event);
    this.status.events[kind] = (this.status.events[kind] ?? 0) + 1;
    for (const listener of this.listeners) listener(event);
  }

  /** A second goes by. */
  tick() {
    this.seconds += 1;
    const { status } = this;
    status.uptime_seconds += 1;
    let tracked = 0;
    status.services.forEach((it, at) => {
      const wave = 1 + 0.35 * Math.sin(this.seconds / (40 + 7 * at)) + 0.1 * (this.random() - 0.5);
      share(it.backends);
      for (const backend of it.backends) this.move(it, backend, wave * (900 / (at + 1)));
      it.sessions.count = it.backends.reduce((sum, { sessions }) => sum + sessions.count, 0);
      it.state = it.backends.some(({ share: part }) => part > 0) ? 'up' : 'down';
      tracked += it.sessions.count;
      if (it.mqtt) {
        it.mqtt.packets.publish += Math.round(it.sessions.count / 9);
        it.mqtt.packets.pingreq += Math.round(it.sessions.count / 60);
      }
    });
    const denied = this.random() < 0.3 ? Math.round(this.random() * 4) : 0;
    status.verdicts.drop_denied += denied;
    status.services[0].dropped += denied;
    status.verdicts.pass_not_ours += Math.round(40 + 20 * this.random());
    Object.assign(status.flows, { tracked, half_open: Math.round(10 + 8 * this.random()) });
    for (const it of status.vrrp.routers) {
      if (it.last_change) it.last_change.seconds_ago += 1;
      if (it.role === 'active') it.adverts.sent += 1;
      else it.adverts.received += 1;
    }
    for (const way of [status.sync.sending, status.sync.receiving]) way.in_sync_seconds += 1;
    Object.assign(status.sync.sending, {
      entries: tracked,
      pending: Math.round(6 * this.random()),
    });
    status.sync.sending.lag_seconds = 0.001 + 0.004 * this.random();
  }

  move(service, backend, rate) {
    const isUp = backend.health === 'up' && backend.admin !== 'disabled';
    const fresh = isUp ? Math.round(rate * backend.share * (0.8 + 0.4 * this.random())) : 0;
    const aim = rate * 40 * backend.share;
    const isDraining = backend.admin === 'draining';
    const gone = isDraining
      ? Math.ceil(backend.sessions.count * 0.06 + 2)
      : Math.round((fresh * backend.sessions.count) / (aim || 1));
    backend.sessions.count = isUp ? Math.max(0, backend.sessions.count + fresh - gone) : 0;
    const packets = isUp
      ? Math.round(backend.sessions.count * (0.55 + 0.1 * this.random()) + fresh * 6)
      : 0;
    for (const it of [backend, service]) {
      it.packets += packets;
      it.bytes += packets * 142;
      it.new_connections += fresh;
      it.closed += gone;
      it.resets += this.random() < 0.05 ? 1 : 0;
      if (service.forward === 'nat') {
        it.reply_packets += packets;
        it.reply_bytes += packets * 97;
      }
    }
    this.status.verdicts[`tx_${service.forward}`] += packets;
    if (service.forward === 'nat') this.status.verdicts.tx_nat_reply += packets;
    if (this.seconds % 2 === 0 && backend.health === 'up') {
      backend.probe.successes += 1;
      backend.probe.last_seconds = 0.0006 + 0.002 * this.random();
    } else if (this.seconds % 2 === 0) backend.probe.failures += 1;
    if (isDraining) this.drain(service.name, backend);
  }

  drain(service, backend) {
    backend.left = backend.sessions.count;
    backend.drain_learning_seconds = Math.max(0, backend.drain_learning_seconds - 3);
    backend.left_exact = backend.drain_learning_seconds === 0;
    if (backend.left > 0 || backend.drained || !backend.left_exact) return;
    backend.drained = true;
    this.tell(
      'backend_drained',
      'notice',
      `backend ${service}/${backend.name} is drained: no session is left`,
      { service, backend: backend.name },
    );
  }

  /** @returns {object | null} the backend as it is then */
  order(service, name, verb, weight, isLasting) {
    const backend = this.find(service, name);
    if (!backend) return null;
    const change =
      { drain: 'draining', enable: 'enabled', disable: 'disabled' }[verb] ?? `weight ${weight}`;
    if (verb === 'weight') backend.weight = weight;
    else backend.admin = change;
    for (const field of ['drained', 'left', 'left_exact', 'drain_learning_seconds'])
      delete backend[field];
    if (verb === 'drain') {
      Object.assign(backend, {
        drained: false,
        left: backend.sessions.count,
        left_exact: false,
        drain_learning_seconds: 24,
      });
    }
    this.tell(
      'backend_ordered',
      'info',
      `an operator has changed backend ${service}/${name}: ${change}`,
      { service, backend: name, change, lasting: isLasting },
    );
    share(this.status.services.find((it) => it.name === service).backends);
    return backend;
  }

  /** @returns {object | null} */
  route(name, verb) {
    const found = this.status.vrrp.routers.find((it) => it.name === name);
    if (!found) return null;
    const isReleased = verb === 'release';
    const from = found.role;
    found.held = isReleased ? ['operator'] : [];
    found.role = isReleased ? 'backup' : 'active';
    found.peer = isReleased ? { address: '172.16.40.23', priority: 100 } : null;
    if (from !== found.role) {
      found.last_change = { from, to: found.role, cause: 'operator', seconds_ago: 0 };
      const [to, was] = isReleased ? ['Backup', 'Active'] : ['Active', 'Backup'];
      this.tell(
        'role_changed',
        'notice',
        `virtual router ${name} is ${to}, was ${was}: an operator asked for it (priority ${found.priority})`,
        { router: name, from, to: found.role, cause: 'operator', priority: found.priority },
      );
    }
    for (const vip of this.status.vips) {
      if (found.vips.includes(vip.address.split('/')[0]))
        vip.state = isReleased ? 'standby' : 'assigned';
    }
    return this.status.vrrp;
  }
}

function share(backends) {
  for (const it of backends)
    it.effective_weight = it.admin === 'enabled' && it.health === 'up' ? it.weight : 0;
  const total = backends.reduce((sum, it) => sum + it.effective_weight, 0);
  for (const it of backends) it.share = total > 0 ? it.effective_weight / total : 0;
}
