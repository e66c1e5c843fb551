//! What a run does, worked out from the command line before the first client starts.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustls::pki_types::ServerName;

use super::{
    args::{CommonArgs, ConnArgs, Kind, PubArgs, SubArgs},
    codec::{Qos, Version},
    payload::Payload,
    template::{Names, expand},
    tls::{self, TlsError},
    wire::{Host, Transport, WebSocket},
};

/// The longest text MQTT can carry.
const TEXT_MAX: usize = 65_535;
/// MQTT's longest packet, less room for the topic and the header.
const PAYLOAD_MAX: usize = 268_435_455 - TEXT_MAX - 16;
/// How often `conn` pings by default.
const CONN_PING: Duration = Duration::from_secs(1);

/// A checked run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) common: CommonArgs,
    pub(super) task: Task,
    pub(super) transport: Transport,
    pub(super) hosts: Vec<Host>,
    pub(super) ping_interval: Option<Duration>,
    /// Standard input names clients that are to connect anew.
    pub(super) moves: bool,
    /// Tells this run from others: part of default client ids and of payloads.
    pub(super) run: u16,
}

/// What the clients do once they are connected.
#[derive(Debug)]
pub(super) enum Task {
    Hold,
    Publish(PublishTask),
    Subscribe(SubscribeTask),
}

#[derive(Debug)]
pub(super) struct PublishTask {
    pub(super) topic: String,
    pub(super) interval: Duration,
    pub(super) payload: Payload,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) limit: Option<u64>,
    pub(super) inflight: u16,
    pub(super) wait_all: bool,
}

#[derive(Debug)]
pub(super) struct SubscribeTask {
    pub(super) topics: Vec<String>,
    pub(super) qos: Qos,
    pub(super) limit: Option<u64>,
    pub(super) idle: Option<Duration>,
}

/// The strings of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) number: u32,
    pub(super) client_id: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

/// Where one client connects from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) source: Option<IpAddr>,
    pub(super) target: SocketAddr,
}

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error("cannot resolve host {host}")]
    Resolve {
        host: String,
        source: std::io::Error,
    },
    #[error("no address of host {host} can be reached from the addresses of --ifaddr")]
    Family { host: String },
    #[error("a topic, client id, user name or password is longer than {TEXT_MAX} bytes")]
    TextTooLong,
    #[error("payload of {size} bytes is more than {PAYLOAD_MAX}")]
    PayloadTooLong { size: usize },
    #[error("topic to publish to contains a wildcard: {topic}")]
    Wildcard { topic: String },
    #[error("client numbers do not fit in 32 bits")]
    Numbers,
    #[error("--{flag} is for --tls")]
    NoTls { flag: &'static str },
    #[error("no certificate can be for {name}: --server-name says what it has to be for")]
    ServerName { name: String },
    #[error("path of a WebSocket must begin with / and be of printable ASCII characters: {path:?}")]
    Path { path: String },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Plan {
    /// Resolves the hosts and checks what the command line alone cannot.
    pub(super) async fn new(kind: Kind, run: u16) -> Result<Self, PlanError> {
        let moves = matches!(&kind, Kind::Conn(args) if args.moves);
        let (common, task) = match kind {
            Kind::Conn(ConnArgs { common, moves: _ }) => (common, Task::Hold),
            Kind::Pub(args) => publish_task(args)?,
            Kind::Sub(SubArgs {
                common,
                topics,
                qos,
                limit,
                idle,
            }) => {
                let qos = Qos::from_bits(qos).unwrap_or(Qos::Two);
                (
                    common,
                    Task::Subscribe(SubscribeTask {
                        topics,
                        qos,
                        limit,
                        idle,
                    }),
                )
            }
        };
        if common.startnumber.checked_add(common.count).is_none() {
            return Err(PlanError::Numbers);
        }
        let transport = transport(&common)?;
        let mut hosts = Vec::new();
        for host in &common.hosts {
            hosts.push(find(host, &common).await?);
        }
        let ping_interval = ping_interval(&common, &task);
        let plan = Self {
            common,
            task,
            transport,
            hosts,
            ping_interval,
            moves,
            run,
        };
        plan.check_texts()?;
        Ok(plan)
    }

    pub(super) fn identity(&self, number: u32) -> Identity {
        let client_id = match &self.common.client_id {
            Some(template) => expand(
                template,
                Names {
                    number,
                    ..Names::default()
                },
            ),
            // At most 23 characters, the limit of MQTT 3.1.
            None => {
                let prefix = self.common.prefix.as_deref().unwrap_or_default();
                format!("{prefix}{}-{:04x}-{number}", self.kind(), self.run)
            }
        };
        let names = Names {
            number,
            client_id: &client_id,
            username: "",
        };
        let username = self
            .common
            .username
            .as_deref()
            .map(|text| expand(text, names));
        let names = Names {
            username: username.as_deref().unwrap_or_default(),
            ..names
        };
        let password = self
            .common
            .password
            .as_deref()
            .map(|text| expand(text, names));
        Identity {
            number,
            client_id,
            username,
            password,
        }
    }

    /// The server of client `number`: clients take turns.
    pub(super) fn host(&self, number: u32) -> &Host {
        &self.hosts[self.turn(number) % self.hosts.len()]
    }

    fn turn(&self, number: u32) -> usize {
        (number - self.common.startnumber) as usize
    }

    /// The ways client `number` may connect to its server, best first. Clients take turns over the
    /// source addresses for each host.
    pub(super) fn routes(&self, number: u32) -> impl Iterator<Item = Route> + '_ {
        let turn = self.turn(number) / self.hosts.len();
        self.host(number)
            .addresses
            .iter()
            .filter_map(move |&target| {
                if self.common.ifaddr.is_empty() {
                    return Some(Route {
                        source: None,
                        target,
                    });
                }
                let alike = |source: &&IpAddr| source.is_ipv4() == target.is_ipv4();
                let count = self.common.ifaddr.iter().filter(alike).count();
                let nth = turn.checked_rem(count)?;
                let source = self.common.ifaddr.iter().filter(alike).nth(nth).copied();
                Some(Route { source, target })
            })
    }

    pub(super) fn version(&self) -> Version {
        self.common.version
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.task {
            Task::Hold => "conn",
            Task::Publish(_) => "pub",
            Task::Subscribe(_) => "sub",
        }
    }

    fn check_texts(&self) -> Result<(), PlanError> {
        let last = self.identity(self.common.startnumber + self.common.count);
        let names = last.names();
        let topics: Vec<String> = match &self.task {
            Task::Hold => Vec::new(),
            Task::Publish(task) => vec![expand(&task.topic, names)],
            Task::Subscribe(task) => task.topics.iter().map(|t| expand(t, names)).collect(),
        };
        let texts = [
            Some(&last.client_id),
            last.username.as_ref(),
            last.password.as_ref(),
        ];
        if texts
            .into_iter()
            .flatten()
            .chain(&topics)
            .any(|text| text.len() > TEXT_MAX)
        {
            return Err(PlanError::TextTooLong);
        }
        Ok(())
    }
}

impl Identity {
    pub(super) fn names(&self) -> Names<'_> {
        Names {
            number: self.number,
            client_id: &self.client_id,
            username: self.username.as_deref().unwrap_or_default(),
        }
    }
}

fn publish_task(args: PubArgs) -> Result<(CommonArgs, Task), PlanError> {
    let PubArgs {
        common,
        message_interval,
        topic,
        size,
        message,
        qos,
        retain,
        limit,
        inflight,
        wait_all,
    } = args;
    let payload = match message {
        Some(text) => Payload::Fixed(text.into_bytes().into()),
        None => Payload::Stamped { size },
    };
    let size = payload.len();
    if size > PAYLOAD_MAX {
        return Err(PlanError::PayloadTooLong { size });
    }
    if topic.contains(['+', '#']) {
        return Err(PlanError::Wildcard { topic });
    }
    let task = PublishTask {
        topic,
        interval: message_interval,
        payload,
        qos: Qos::from_bits(qos).unwrap_or(Qos::Two),
        retain,
        limit,
        inflight,
        wait_all,
    };
    Ok((common, Task::Publish(task)))
}

fn ping_interval(common: &CommonArgs, task: &Task) -> Option<Duration> {
    let half = Duration::from_secs(u64::from(common.keepalive)) / 2;
    let half = (!half.is_zero()).then_some(half);
    let default = match task {
        Task::Hold => Some(half.map_or(CONN_PING, |half| half.min(CONN_PING))),
        Task::Publish(_) | Task::Subscribe(_) => half,
    };
    common
        .ping_interval
        .or(default)
        .filter(|interval| !interval.is_zero())
}

/// What the clients put between themselves and a server.
fn transport(common: &CommonArgs) -> Result<Transport, PlanError> {
    let args = &common.transport;
    let only_with_tls = [
        ("ca-file", args.ca_file.is_some()),
        ("insecure", args.insecure),
        ("cert-file", args.cert_file.is_some()),
        ("server-name", args.server_name.is_some()),
    ];
    if let Some((flag, _)) = only_with_tls
        .into_iter()
        .find(|(_, given)| *given && !args.tls)
    {
        return Err(PlanError::NoTls { flag });
    }
    let path = &args.ws_path;
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(PlanError::Path { path: path.clone() });
    }
    let websocket = args.ws.then(|| WebSocket {
        path: path.clone(),
        subprotocol: match common.version {
            Version::V31 => "mqttv3.1",
            Version::V311 | Version::V5 => "mqtt",
        },
    });
    Ok(Transport {
        tls: args.tls.then(|| tls::connector(args)).transpose()?,
        websocket,
    })
}

/// A host with its addresses, and with its name in certificates if these matter.
async fn find(host: &str, common: &CommonArgs) -> Result<Host, PlanError> {
    let port = common.port();
    let args = &common.transport;
    let name = || {
        let name = args.server_name.as_deref().unwrap_or(bare(host)).to_owned();
        ServerName::try_from(name.clone()).map_err(|_| PlanError::ServerName { name })
    };
    let name = args.tls.then(name).transpose()?;
    let addresses = resolve(host, port, &common.ifaddr).await?;
    let bracketed = bare(host).contains(':');
    let authority = if bracketed {
        format!("[{}]:{port}", bare(host))
    } else {
        format!("{host}:{port}")
    };
    Ok(Host {
        authority,
        name,
        addresses,
    })
}

/// An IPv6 address without its brackets; anything else as it is.
fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// The addresses of a host that one of the source addresses can reach.
async fn resolve(host: &str, port: u16, from: &[IpAddr]) -> Result<Vec<SocketAddr>, PlanError> {
    let found = tokio::net::lookup_host((bare(host), port))
        .await
        .map_err(|source| PlanError::Resolve {
            host: host.to_owned(),
            source,
        })?;
    let reachable: Vec<SocketAddr> = found
        .filter(|to| from.is_empty() || from.iter().any(|from| from.is_ipv4() == to.is_ipv4()))
        .collect();
    if reachable.is_empty() {
        return Err(PlanError::Family {
            host: host.to_owned(),
        });
    }
    Ok(reachable)
}

#[cfg(test)]
pub(super) mod tests;
