//! A status for tests of those who show it.

use dashboard::DashboardStatus;

use super::{
    AdvertsStatus, BackendStatus, ConfigStatus, Counters, FlowLag, FlowTrace, Flows, GuardStatus,
    Health, InterfaceStatus, MqttStatus, NotifierStatus, PathTrace, PeerStatus, ProbeStatus,
    ReceivingStatus, RoleChange, RouterStatus, SendingStatus, ServiceState, ServiceStatus,
    ServiceTrace, Sessions, SlotsStatus, Status, StepTrace, SyncStatus, ThenTrace, Trace,
    TraceOrder, TrackStatus, TrafficStatus, VipState, VipStatus, VrrpStatus,
};
use crate::core::balancer::Admin;

pub(crate) fn backend() -> BackendStatus {
    BackendStatus {
        name: "broker1".to_owned(),
        address: "172.16.40.20".to_owned(),
        port: 1883,
        weight: 1,
        effective_weight: 1.0,
        max_connections: 0,
        admin: Admin::Enabled,
        leaving: false,
        health: Health::Up,
        held: false,
        evacuated: false,
        reason: None,
        next_hop: Some("aa:bb:cc:dd:ee:ff".to_owned()),
        share: 0.5,
        traffic: TrafficStatus {
            packets: 7,
            bytes: 700,
            ..TrafficStatus::default()
        },
        dropped: 0,
        sessions: Sessions::counted(4),
        drain: None,
        probe: ProbeStatus {
            successes: 3,
            failures: 1,
            last_seconds: Some(0.25),
        },
    }
}

/// The answer to any question.
pub(crate) fn trace(order: &TraceOrder) -> Trace {
    let path = PathTrace {
        steps: vec![StepTrace {
            stage: "slot".to_owned(),
            finding: "7 of 65537; safe".to_owned(),
        }],
        backend: Some("broker1".to_owned()),
        candidates: Vec::new(),
        verdict: Some("tx_dsr".to_owned()),
    };
    let flow = FlowTrace {
        port: order.port,
        recorded: false,
        then: (!order.what_if.is_empty()).then(|| ThenTrace {
            fate: "stays".to_owned(),
            path: path.clone(),
        }),
        path,
    };
    Trace {
        client: order.client,
        port: order.port,
        what_if: order.what_if.clone(),
        services: vec![ServiceTrace {
            name: "mqtt".to_owned(),
            vip: [172, 16, 40, 24].into(),
            port: 1883,
            protocol: "mqtt".to_owned(),
            flows: vec![flow.clone()],
            new: flow,
        }],
        truncated: false,
    }
}

pub(crate) fn vrrp() -> VrrpStatus {
    let router = RouterStatus {
        name: "front".to_owned(),
        group: None,
        interface: "eth0".to_owned(),
        vrid: 51,
        version: 3,
        vips: vec![[172, 16, 40, 24].into()],
        virtual_mac: Some("00:00:5e:00:01:33".to_owned()),
        role: "backup".to_owned(),
        leaving: false,
        priority: 100,
        source: Some([172, 16, 40, 22].into()),
        peer: Some(PeerStatus {
            address: [172, 16, 40, 23].into(),
            priority: 200,
        }),
        held: vec!["fault".to_owned()],
        faults: vec!["no_backends".to_owned()],
        lowered_by: Vec::new(),
        awaits_sync: false,
        tracked: vec![TrackStatus {
            name: "gw".to_owned(),
            target: "gateway 172.16.40.1".to_owned(),
            state: "down".to_owned(),
            cost: Some(50),
        }],
        last_change: Some(RoleChange {
            from: "active".to_owned(),
            to: "backup".to_owned(),
            cause: "fault".to_owned(),
            seconds_ago: 61,
        }),
        changes: [("active".to_owned(), 1), ("backup".to_owned(), 2)].into(),
        adverts: AdvertsStatus {
            sent: 7,
            received: 8,
            refused: [("hops".to_owned(), 3)].into(),
            ..AdvertsStatus::default()
        },
    };
    VrrpStatus {
        routers: vec![router],
        refused: [("eth0".to_owned(), [("vrid".to_owned(), 9)].into())].into(),
    }
}

pub(crate) fn sync() -> SyncStatus {
    SyncStatus {
        listen: ([172, 16, 40, 22], 9464).into(),
        peer: ([172, 16, 40, 23], 9464).into(),
        sending: SendingStatus {
            connected: true,
            in_sync_seconds: Some(61),
            lag_seconds: 0.5,
            entries: 7,
            pending: 1,
            flow_lag: FlowLag {
                flows: 6,
                p50_seconds: 0.0015,
                p99_seconds: 0.004,
                max_seconds: 0.0082,
            },
            unacknowledged: 1,
            events: 7,
            events_lost: 0,
            messages: 9,
            bytes: 900,
            snapshots: 1,
            error: None,
        },
        receiving: ReceivingStatus {
            taken: 5,
            refused: [("unknown_backend".to_owned(), 2)].into(),
            rejected: [("key".to_owned(), 3)].into(),
            error: Some("the peer has another key, or is no peer".to_owned()),
            ..ReceivingStatus::default()
        },
    }
}

pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 1,
        uptime_seconds: 5,
        config: ConfigStatus {
            path: "/a.toml".to_owned(),
            generation: 1,
            last_error: None,
        },
        interface: InterfaceStatus {
            name: "eth0".to_owned(),
            xdp_mode: "native".to_owned(),
        },
        vips: vec![VipStatus {
            address: "172.16.40.24/32".to_owned(),
            interface: "eth0".to_owned(),
            state: VipState::Assigned,
            lack: None,
        }],
        vrrp: vrrp(),
        sync: Some(sync()),
        services: vec![ServiceStatus {
            name: "mqtt".to_owned(),
            vip: "172.16.40.24".to_owned(),
            port: 1883,
            protocol: "tcp".to_owned(),
            balance: "maglev".to_owned(),
            forward: "dsr".to_owned(),
            tunnel: None,
            state: ServiceState::Up,
            traffic: TrafficStatus {
                packets: 9,
                ..TrafficStatus::default()
            },
            dropped: 2,
            sessions: Sessions::counted(4),
            slots: SlotsStatus::default(),
            mqtt: Some(MqttStatus {
                packets: [("connect".to_owned(), 5), ("pingreq".to_owned(), 6)].into(),
                longest_keep_alive_seconds: Some(60),
                keep_alive_max_seconds: Some(2_400),
                checks_first_packets: false,
            }),
            guard: GuardStatus {
                access_entries: 3,
                denied: 1,
                challenge: "auto".to_owned(),
                ..GuardStatus::default()
            },
            backends: vec![backend()],
        }],
        verdicts: [("tx_dsr".to_owned(), 9)].into(),
        flows: Flows {
            tracked: 4,
            half_open: 1,
        },
        counters: Counters {
            reloads_ok: 1,
            ..Counters::default()
        },
        events: [("role_changed".to_owned(), 2)].into(),
        notifiers: vec![NotifierStatus {
            name: "ops".to_owned(),
            means: "webhook".to_owned(),
            sent: 7,
            failed: 1,
            last_error: Some("the server has answered 404 Not Found".to_owned()),
            ..NotifierStatus::default()
        }],
        dashboard: Some(dashboard()),
    }
}

fn dashboard() -> DashboardStatus {
    DashboardStatus {
        accounts: 2,
        tokens: 1,
        accounts_error: Some("/etc/tidegate/accounts.toml: line 3: not a name".to_owned()),
        sessions: 3,
        connections: 4,
        live_streams: 2,
        logins: [("failed".to_owned(), 6), ("ok".to_owned(), 5)].into(),
        refused: [("csrf".to_owned(), 7)].into(),
        ..DashboardStatus::default()
    }
}
