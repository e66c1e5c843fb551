//! The TOML file as it is written: no rules, no defaults beyond "absent".
//!
//! Values that a rule can refuse are [`Spanned`], so that the refusal can name their line.

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) node: Spanned<String>,
    #[serde(default)]
    pub(super) listener: Vec<Listener>,
    pub(super) access: Option<Access>,
    pub(super) vip: Option<Vip>,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) cluster: Option<Cluster>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) overload: Overload,
    #[serde(default)]
    pub(super) session: Session,
    #[serde(default)]
    pub(super) persistence: Persistence,
    #[serde(default)]
    pub(super) sys: Sys,
    #[serde(default)]
    pub(super) control: Control,
    #[serde(default)]
    pub(super) stop: Stop,
    pub(super) metrics: Option<Metrics>,
    pub(super) health: Option<Health>,
    #[serde(default)]
    pub(super) log: Log,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) address: Spanned<String>,
    pub(super) protocol: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) origins: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) proxy_protocol: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) tls: Option<ListenerTls>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerTls {
    pub(super) certificate: Spanned<String>,
    pub(super) key: Spanned<String>,
    pub(super) client_ca: Option<Spanned<String>>,
    pub(super) client_certificates: Option<Spanned<String>>,
    pub(super) client_crl: Option<Spanned<String>>,
    pub(super) identity: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Access {
    pub(super) anonymous: Option<Spanned<bool>>,
    pub(super) hash_threads: Option<Spanned<i64>>,
    pub(super) client_id: Option<Spanned<String>>,
    pub(super) acl: Option<Acl>,
    #[serde(default)]
    pub(super) authenticator: Vec<Authenticator>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Acl {
    pub(super) path: Spanned<String>,
    pub(super) default: Option<Spanned<String>>,
}

/// The keys of all types.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authenticator {
    #[serde(rename = "type")]
    pub(super) kind: Spanned<String>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) secret_file: Option<Spanned<String>>,
    pub(super) public_key_file: Option<Spanned<String>>,
    pub(super) jwks_file: Option<Spanned<String>>,
    pub(super) jwks_url: Option<Spanned<String>>,
    pub(super) refresh: Option<Spanned<String>>,
    pub(super) algorithms: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) issuer: Option<Spanned<String>>,
    pub(super) audience: Option<Spanned<String>>,
    pub(super) leeway: Option<Spanned<String>>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) user_claim: Option<Spanned<String>>,
    pub(super) acl_claim: Option<Spanned<String>>,
    pub(super) same_user_name: Option<Spanned<bool>>,
    pub(super) disconnect_expired: Option<Spanned<bool>>,
    pub(super) url: Option<Spanned<String>>,
    pub(super) allow_plain: Option<Spanned<bool>>,
    pub(super) ca_file: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) waiting: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vip {
    pub(super) addresses: Spanned<Vec<Spanned<String>>>,
    pub(super) interface: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tunnel {
    pub(super) interface: Spanned<String>,
    pub(super) from: Spanned<Vec<Spanned<String>>>,
    pub(super) port: Option<Spanned<i64>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) mss: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) name: Spanned<String>,
    pub(super) listen: Spanned<String>,
    pub(super) seeds: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) key_file: Spanned<String>,
    pub(super) acknowledge: Option<Spanned<String>>,
    pub(super) lease: Option<Spanned<String>>,
    pub(super) shared_subscriptions: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) packet_bytes: Option<Spanned<i64>>,
    pub(super) connect_bytes: Option<Spanned<i64>>,
    pub(super) connect_timeout: Option<Spanned<String>>,
    pub(super) connecting: Option<Spanned<i64>>,
    pub(super) connect_rate: Option<Spanned<i64>>,
    pub(super) connect_burst: Option<Spanned<i64>>,
    pub(super) publish_rate: Option<Spanned<i64>>,
    pub(super) publish_bytes_rate: Option<Spanned<i64>>,
    pub(super) inflight: Option<Spanned<i64>>,
    pub(super) queue_messages: Option<Spanned<i64>>,
    pub(super) queue_bytes: Option<Spanned<i64>>,
    pub(super) node_queue_bytes: Option<Spanned<i64>>,
    pub(super) sessions: Option<Spanned<i64>>,
    pub(super) subscriptions: Option<Spanned<i64>>,
    pub(super) subscription_bytes: Option<Spanned<i64>>,
    pub(super) retained: Option<Spanned<i64>>,
    pub(super) retained_bytes: Option<Spanned<i64>>,
    pub(super) topic_aliases: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Overload {
    pub(super) lag: Option<Spanned<String>>,
    pub(super) memory_mib: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    pub(super) max_keep_alive: Option<Spanned<String>>,
    pub(super) max_expiry: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Persistence {
    pub(super) directory: Option<Spanned<String>>,
    pub(super) sync: Option<Spanned<String>>,
    pub(super) max_bytes: Option<Spanned<i64>>,
    pub(super) min_free_bytes: Option<Spanned<i64>>,
    pub(super) patience: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sys {
    pub(super) interval: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    pub(super) socket: Option<Spanned<String>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) group: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stop {
    pub(super) grace: Option<Spanned<String>>,
    pub(super) rate: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    pub(super) listen: Spanned<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Option<Spanned<String>>,
    pub(super) format: Option<Spanned<String>>,
}
