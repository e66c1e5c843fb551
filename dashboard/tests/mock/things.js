// What the made-up balancer consists of at first.

const NAMES = [
  'mqtt',
  'mqtts',
  'ws',
  'wss',
  'mqtt-plant',
  'mqtts-plant',
  'telemetry',
  'mqtt6',
  'mqtts6',
  'dashboard',
];

const traffic = () => ({
  packets: 0,
  bytes: 0,
  new_connections: 0,
  reply_packets: 0,
  reply_bytes: 0,
  untracked: 0,
  closed: 0,
  resets: 0,
});

export function firstStatus(services, backends, random) {
  return {
    version: '0.1.0',
    pid: 4711,
    uptime_seconds: 266_400,
    config: { path: '/etc/tidegate/tidegate.toml', generation: 3, last_error: null },
    interface: { name: 'eth0', xdp_mode: 'native' },
    vips: ['172.16.40.24/32', '172.16.40.25/32', 'fd00:40::24/128'].map((address, at) => ({
      address,
      interface: 'eth0',
      state: at === 1 ? 'standby' : 'assigned',
      lack: null,
    })),
    vrrp: {
      routers: [router('front', 51, 200, ['172.16.40.24', 'fd00:40::24']), secondRouter()],
      refused: {},
    },
    sync: sync(),
    services: Array.from({ length: services }, (_, at) => service(at, backends, random)),
    verdicts: {
      pass_not_ours: 81_220,
      tx_dsr: 0,
      tx_nat: 0,
      tx_nat_reply: 0,
      tx_tunnel: 0,
      tx_echo: 311,
      drop_malformed: 3,
      drop_ttl_expired: 0,
      drop_no_backend: 0,
      drop_not_mqtt: 18,
      drop_denied: 212,
      drop_fragment: 0,
    },
    flows: { tracked: 0, half_open: 12 },
    counters: { reloads_ok: 2, reloads_failed: 0, apply_errors: 0 },
    events: {},
    dashboard: {
      accounts: 2,
      tokens: 1,
      accounts_error: null,
      sessions: 1,
      connections: 2,
      connections_refused: 0,
      live_streams: 1,
      logins: { ok: 3, failed: 1, throttled: 0, busy: 0 },
      refused: {},
    },
    notifiers: [
      {
        name: 'ops',
        type: 'webhook',
        sent: 14,
        failed: 0,
        held_back: 0,
        waiting: 0,
        running: 0,
        last_error: null,
      },
    ],
  };
}

function service(at, backends, random) {
  const forward = at === 9 ? 'nat' : at === 6 ? 'tunnel' : 'dsr';
  const is6 = NAMES[at % 10].endsWith('6');
  const name = at < 10 ? NAMES[at] : `${NAMES[at % 10]}-${Math.floor(at / 10) + 1}`;
  return {
    name,
    vip: is6 ? 'fd00:40::24' : at % 3 === 1 ? '172.16.40.25' : '172.16.40.24',
    port: [1883, 8883, 8083, 8084, 1884, 8884, 5683, 1883, 8883, 18083][at % 10],
    protocol: at === 6 ? 'udp' : at === 9 ? 'tcp' : 'mqtt',
    balance: at === 2 ? 'least_conn' : 'maglev',
    forward,
    tunnel: forward === 'tunnel' ? 'gue:6080' : null,
    state: 'up',
    ...traffic(),
    dropped: 0,
    sessions: { count: 0, exact: at !== 6 },
    slots: { safe: 65_537, mixed: 0, at_risk: 0, learning_seconds: 0, deferred: false },
    mqtt:
      at === 6 || at === 9
        ? null
        : {
            packets: {
              connect: 81_231,
              publish: 4_711_000,
              subscribe: 91_210,
              pingreq: 812_000,
              disconnect: 7_001,
              puback: 310_221,
            },
            longest_keep_alive_seconds: 1_200,
            keep_alive_max_seconds: 2_400,
            checks_first_packets: at === 2,
          },
    guard: {
      access_entries: at === 0 ? 12 : 0,
      denied: 0,
      source_limited: 0,
      service_limited: 0,
      challenge: 'auto',
      is_challenging: false,
      challenged: 0,
      answered: 0,
    },
    backends: Array.from({ length: backends }, (_, number) => backend(number, is6, at, random)),
  };
}

function backend(number, is6, at, random) {
  const host = 30 + number;
  return {
    name: `broker${number + 1}`,
    address: is6 ? `fd00:40::${host}` : `172.16.40.${host}`,
    port: 1883,
    weight: number === 2 ? 2 : 1,
    effective_weight: 1,
    max_connections: number === 8 ? 50_000 : 0,
    admin: 'enabled',
    leaving: false,
    health: 'up',
    held: false,
    evacuated: false,
    reason: null,
    next_hop: `52:54:00:3a:${(16 + at).toString(16)}:${host.toString(16)}`,
    share: 0.1,
    ...traffic(),
    dropped: 0,
    sessions: { count: Math.round((3_400 / (at + 1)) * (0.8 + 0.4 * random())), exact: at !== 6 },
    probe: { successes: 133_000, failures: 3, last_seconds: 0.0012 },
  };
}

function router(name, vrid, priority, vips) {
  return {
    name,
    group: null,
    interface: 'eth0',
    vrid,
    version: 3,
    vips,
    virtual_mac: null,
    role: 'active',
    leaving: false,
    priority,
    source: '172.16.40.22',
    peer: null,
    held: [],
    faults: [],
    lowered_by: [],
    awaits_sync: false,
    tracked: [{ name: 'gw', target: 'gateway 172.16.40.1', state: 'up', cost: 50 }],
    last_change: { from: 'backup', to: 'active', cause: 'silence', seconds_ago: 11_500 },
    changes: { active: 2, backup: 2 },
    adverts: {
      sent: 11_500,
      received: 240_100,
      contests: 0,
      refused: {},
      remarked: {},
      announcements: 12,
    },
  };
}

function secondRouter() {
  const it = router('side', 52, 100, ['172.16.40.25']);
  it.role = 'backup';
  it.peer = { address: '172.16.40.23', priority: 200 };
  it.last_change = { from: 'initialize', to: 'backup', cause: 'startup', seconds_ago: 266_400 };
  it.adverts.refused = { hops: 3 };
  return it;
}

function sync() {
  return {
    listen: '172.16.40.22:9464',
    peer: '172.16.40.23:9464',
    sending: {
      connected: true,
      in_sync_seconds: 11_200,
      lag_seconds: 0.002,
      entries: 0,
      pending: 0,
      flow_lag: { flows: 21_500, p50_seconds: 0.0016, p99_seconds: 0.0044, max_seconds: 0.0091 },
      unacknowledged: 0,
      events: 9_120_400,
      events_lost: 0,
      messages: 61_300,
      bytes: 812_000_000,
      snapshots: 1,
      error: null,
    },
    receiving: {
      connected: true,
      in_sync_seconds: 11_180,
      taken: 120_400,
      removed: 98_010,
      snapshots: 1,
      refused: {},
      rejected: {},
      error: null,
    },
  };
}
