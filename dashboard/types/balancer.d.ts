// What the balancer tells of itself, as its pages read it: `lb-user/src/control` has the originals,
// with what each field means. For editors and `tsc --checkJs`; nothing of it is served.

export interface Traffic {
  packets: number;
  bytes: number;
  new_connections: number;
  reply_packets: number;
  reply_bytes: number;
  untracked: number;
  closed: number;
  resets: number;
}

export interface Sessions {
  count: number;
  exact: boolean;
}

export interface Backend extends Traffic {
  name: string;
  address: string;
  port: number;
  weight: number;
  effective_weight: number;
  max_connections: number;
  admin: 'enabled' | 'draining' | 'disabled';
  leaving: boolean;
  health: 'up' | 'down' | 'unknown';
  held: boolean;
  evacuated: boolean;
  reason: string | null;
  next_hop: string | null;
  share: number;
  dropped: number;
  sessions: Sessions;
  probe: { successes: number; failures: number; last_seconds: number | null };
  // If it is draining.
  drained?: boolean;
  left?: number;
  left_exact?: boolean;
  drain_learning_seconds?: number;
}

export interface Slots {
  safe: number;
  mixed: number;
  at_risk: number;
  learning_seconds: number;
  deferred: boolean;
}

export interface Guard {
  access_entries: number;
  denied: number;
  source_limited: number;
  service_limited: number;
  challenge: string;
  is_challenging: boolean;
  challenged: number;
  answered: number;
}

export interface Mqtt {
  packets: Record<string, number>;
  longest_keep_alive_seconds: number | null;
  keep_alive_max_seconds: number | null;
  checks_first_packets: boolean;
}

export interface Service extends Traffic {
  name: string;
  vip: string;
  port: number;
  protocol: string;
  balance: string;
  forward: string;
  tunnel: string | null;
  state: 'up' | 'down';
  dropped: number;
  sessions: Sessions;
  slots: Slots;
  mqtt: Mqtt | null;
  guard: Guard;
  backends: Backend[];
}

export interface Vip {
  address: string;
  interface: string;
  state: 'assigned' | 'absent' | 'standby' | 'withdrawn' | 'left' | 'unmanaged';
  lack: string | null;
}

export interface Router {
  name: string;
  group: string | null;
  interface: string;
  vrid: number;
  version: number;
  vips: string[];
  virtual_mac: string | null;
  role: 'initialize' | 'backup' | 'active';
  leaving: boolean;
  priority: number;
  source: string | null;
  peer: { address: string; priority: number } | null;
  held: string[];
  faults: string[];
  lowered_by: string[];
  awaits_sync: boolean;
  tracked: { name: string; target: string; state: string; cost: number | null }[];
  last_change: { from: string; to: string; cause: string; seconds_ago: number } | null;
  changes: Record<string, number>;
  adverts: {
    sent: number;
    received: number;
    contests: number;
    refused: Record<string, number>;
    remarked: Record<string, number>;
    announcements: number;
  };
}

export interface Sync {
  listen: string;
  peer: string;
  sending: {
    connected: boolean;
    in_sync_seconds: number | null;
    lag_seconds: number;
    entries: number;
    pending: number;
    flow_lag: { flows: number; p50_seconds: number; p99_seconds: number; max_seconds: number };
    unacknowledged: number;
    events: number;
    events_lost: number;
    messages: number;
    bytes: number;
    snapshots: number;
    error: string | null;
  };
  receiving: {
    connected: boolean;
    in_sync_seconds: number | null;
    taken: number;
    removed: number;
    snapshots: number;
    refused: Record<string, number>;
    rejected: Record<string, number>;
    error: string | null;
  };
}

export interface Notifier {
  name: string;
  type: string;
  sent: number;
  failed: number;
  held_back: number;
  waiting: number;
  running: number;
  last_error: string | null;
}

export interface Dashboard {
  accounts: number;
  tokens: number;
  accounts_error: string | null;
  sessions: number;
  connections: number;
  connections_refused: number;
  live_streams: number;
  logins: Record<string, number>;
  refused: Record<string, number>;
}

export interface Status {
  version: string;
  pid: number;
  uptime_seconds: number;
  config: { path: string; generation: number; last_error: string | null };
  interface: { name: string; xdp_mode: string };
  vips: Vip[];
  vrrp: { routers: Router[]; refused: Record<string, Record<string, number>> };
  sync: Sync | null;
  services: Service[];
  verdicts: Record<string, number>;
  flows: { tracked: number; half_open: number };
  counters: { reloads_ok: number; reloads_failed: number; apply_errors: number };
  events: Record<string, number>;
  notifiers: Notifier[];
  dashboard: Dashboard | null;
}

export interface EventRecord {
  seq: number;
  time: string;
  kind: string;
  severity: 'info' | 'notice' | 'warning' | 'error';
  message: string;
  // What it is about, by kind.
  service?: string;
  backend?: string;
  router?: string;
  vip?: string;
  from?: string;
  to?: string;
  direction?: string;
  notifier?: string;
  track?: string;
}

export interface EventsPage {
  events: EventRecord[];
  missed: number;
  last: number;
}
