// Whether the types of the pages, and the mock, have the fields that the daemon tells: read from its
// sources, as nothing else would notice a field that is renamed there.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

import { World } from './mock/world.js';

const CONTROL = new URL('../../lb-user/src/control/', import.meta.url);
// A name that several have is the last one's.
const FILES = [
  '../../../dashboard/src/counters.rs',
  'insight.rs',
  'notify.rs',
  'status.rs',
  'sync.rs',
  'vrrp.rs',
];

/** The daemon's name for each interface. */
const NAMES = {
  Status: 'Status',
  Traffic: 'TrafficStatus',
  Sessions: 'Sessions',
  Backend: 'BackendStatus',
  Slots: 'SlotsStatus',
  Guard: 'GuardStatus',
  Mqtt: 'MqttStatus',
  Service: 'ServiceStatus',
  Vip: 'VipStatus',
  Router: 'RouterStatus',
  Sync: 'SyncStatus',
  Notifier: 'NotifierStatus',
  Dashboard: 'DashboardStatus',
};

/** The fields of each struct, those of flattened ones among them. */
async function structs() {
  const texts = await Promise.all(FILES.map((name) => readFile(new URL(name, CONTROL), 'utf8')));
  const all = new Map();
  for (const [, name, body] of texts.join('\n').matchAll(/pub struct (\w+) \{\n(.*?)\n\}/gs)) {
    const pattern = /((?: {4}#\[[^\n]*\]\n)*) {4}pub (\w+): ([^\n]+),/g;
    const fields = [...body.matchAll(pattern)].map(([, attributes, field, type]) => ({
      name: /rename = "(\w+)"/.exec(attributes)?.[1] ?? field,
      flat: attributes.includes('serde(flatten)') ? /(\w+)>?$/.exec(type)[1] : null,
    }));
    all.set(name, fields);
  }
  const expand = (name) =>
    all.get(name).flatMap((it) => (it.flat === null ? [it.name] : expand(it.flat)));
  return new Map([...all.keys()].map((name) => [name, expand(name).sort()]));
}

/** The fields of each interface, those of what it extends among them. */
async function interfaces() {
  const text = await readFile(new URL('../types/balancer.d.ts', import.meta.url), 'utf8');
  const all = new Map();
  for (const [, name, parent, body] of text.matchAll(
    /export interface (\w+)(?: extends (\w+))? \{\n(.*?)\n\}/gs,
  )) {
    const own = [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, field]) => field);
    all.set(name, [...own, ...(parent ? all.get(parent) : [])].sort());
  }
  return all;
}

test('types have the fields that the daemon tells', async () => {
  const [told, known] = [await structs(), await interfaces()];
  for (const [name, struct] of Object.entries(NAMES)) {
    assert.deepEqual(known.get(name), told.get(struct), `${name}, ${struct}`);
  }
});

test('the mock tells what the daemon does', async () => {
  const told = await structs();
  const world = new World({ services: 1, backends: 2, scenario: 'calm' });
  world.order('mqtt', 'broker1', 'drain', 0, true);
  const { status } = world;
  const [service] = status.services;
  const drain = told.get('DrainStatus');
  const parts = {
    Status: status,
    ConfigStatus: status.config,
    InterfaceStatus: status.interface,
    Flows: status.flows,
    Counters: status.counters,
    VipStatus: status.vips[0],
    VrrpStatus: status.vrrp,
    RouterStatus: status.vrrp.routers[0],
    TrackStatus: status.vrrp.routers[0].tracked[0],
    RoleChange: status.vrrp.routers[0].last_change,
    PeerStatus: status.vrrp.routers[1].peer,
    AdvertsStatus: status.vrrp.routers[0].adverts,
    SyncStatus: status.sync,
    SendingStatus: status.sync.sending,
    FlowLag: status.sync.sending.flow_lag,
    ReceivingStatus: status.sync.receiving,
    ServiceStatus: service,
    Sessions: service.sessions,
    SlotsStatus: service.slots,
    MqttStatus: service.mqtt,
    GuardStatus: service.guard,
    BackendStatus: service.backends[0],
    ProbeStatus: service.backends[0].probe,
    NotifierStatus: status.notifiers[0],
    DashboardStatus: status.dashboard,
  };
  for (const [name, part] of Object.entries(parts)) {
    assert.deepEqual(Object.keys(part).sort(), told.get(name), name);
  }
  const rested = Object.keys(service.backends[1]).sort();
  const expected = told.get('BackendStatus').filter((field) => !drain.includes(field));
  assert.deepEqual(rested, expected, 'one that does not drain');
});
