//! A node on a loopback port, with clients of every version.

mod access;
mod acl;
mod aliases;
mod bench;
mod bytes;
mod certificates;
mod client;
mod cluster;
mod confirmations;
mod evacuate;
mod events;
mod exactly;
mod flows;
mod front;
mod groups;
mod interop;
mod kept;
mod limits;
mod listings;
mod membership;
mod mosquitto;
mod mourning;
mod operate;
mod oracle;
mod ownership;
mod parted;
mod persist;
mod persist_crash;
mod persist_estates;
mod persist_trouble;
mod probes;
mod reasons;
mod refusals;
mod replicas;
mod returns;
mod roaming;
mod secrets;
mod shared;
mod spec;
mod storm;
mod sys;
mod table;
mod tokens;
mod websocket;
mod wide;

use std::{net::SocketAddr, time::Duration};

use self::client::Client;
use super::Node;
use crate::{
    cluster::Order, codec::packet::Version, config::Config, metrics::Metric, routes::ShardId,
};

/// A node on a loopback port; `settings` may begin with more of its listener.
fn config(settings: &str) -> Config {
    config_of("test", settings)
}

fn config_of(node: &str, settings: &str) -> Config {
    let access = if settings.contains("[access]") {
        ""
    } else {
        "access.anonymous = true\n"
    };
    // Where many tests run at once a thread may well be late.
    let overload = if settings.contains("[overload]") {
        ""
    } else {
        "[overload]\nlag = \"1h\"\n"
    };
    let text = format!(
        "node = {node:?}\n{access}[metrics]\nlisten = \"127.0.0.1:0\"\n{overload}\
         [[listener]]\naddress = \"127.0.0.1:0\"\n{settings}"
    );
    Config::parse(&text).unwrap()
}

#[tokio::test]
#[should_panic(expected = "Accepted is 2, more than 1")]
async fn count_that_is_too_large_is_not_waited_for() {
    let broker = Broker::start().await;
    let _clients = [
        broker.join(Version::V5, "a").await,
        broker.join(Version::V5, "b").await,
    ];
    broker.wait_for(Metric::Accepted, 1).await;
}

#[tokio::test]
async fn thread_that_does_not_end_is_not_waited_for_for_ever() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let stuck = std::thread::spawn(move || {
        let _ = released.recv();
    });
    let joined = super::join(vec![stuck], Duration::from_millis(10)).await;
    assert_eq!(joined, None);
    drop(release);
    let panicked = std::thread::spawn(|| panic!("on purpose"));
    let ended = std::thread::spawn(|| {});
    let joined = super::join(vec![panicked, ended], Duration::from_secs(20)).await;
    assert_eq!(joined, Some(1));
}

const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

struct Broker {
    node: Node,
    address: SocketAddr,
}

impl Broker {
    async fn start() -> Self {
        Self::start_with("").await
    }

    async fn start_with(settings: &str) -> Self {
        Self::of(Node::start(&config(settings)).await.unwrap())
    }

    /// As a node of this name.
    async fn start_named(name: &str, settings: &str) -> Self {
        Self::of(Node::start(&config_of(name, settings)).await.unwrap())
    }

    /// Has the cluster's thread do nothing, until the result is dropped.
    async fn hang_cluster(&self) -> std::sync::mpsc::Sender<()> {
        let (release, until) = std::sync::mpsc::channel();
        let cluster = self.node.status().cluster().unwrap();
        assert!(cluster.order(|done| Order::Hang(done, until)).await);
        release
    }

    /// With so many shards, whatever the machine has.
    async fn start_sharded(shards: u16, settings: &str) -> Self {
        let node = Node::start_with(&config(settings), shards).await;
        Self::of(node.unwrap())
    }

    fn of(node: Node) -> Self {
        let address = node.addresses()[0];
        Self { node, address }
    }

    /// A client id that belongs to a shard.
    fn id_on(&self, shard: u16, name: &str) -> String {
        let shared = &self.node.status().shared;
        let mut ids = (0..).map(|number| format!("{name} {number}"));
        ids.find(|id| shared.shard_of(id) == ShardId(shard))
            .unwrap()
    }

    async fn join(&self, version: Version, id: &str) -> Client {
        Client::join(self.address, version, id).await
    }

    fn count(&self, metric: Metric) -> u64 {
        self.node.status().metrics().get(metric)
    }

    /// Waits for a count that changes on another thread. One that can only grow and is too large
    /// fails at once.
    async fn wait_for(&self, metric: Metric, value: u64) {
        let reached = async {
            loop {
                let count = self.count(metric);
                if count == value {
                    break;
                }
                let may_come = count < value || !metric.only_grows();
                assert!(may_come, "{metric:?} is {count}, more than {value}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(
            reached.is_ok(),
            "{metric:?} is {}, not {value}",
            self.count(metric)
        );
    }

    async fn wait_until(&self, is_so: impl Fn(&Node) -> bool) {
        let becomes_so = async {
            while !is_so(&self.node) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let became_so = tokio::time::timeout(Duration::from_secs(20), becomes_so).await;
        assert!(became_so.is_ok(), "waited in vain");
    }

    /// A client id whose shard is that of another one.
    fn beside(&self, other: &str) -> String {
        let shared = &self.node.status().shared;
        let names = (0..).map(|number| format!("beside-{number}"));
        let mut beside = names.filter(|name| shared.shard_of(name) == shared.shard_of(other));
        beside.next().unwrap()
    }

    async fn stop(self) {
        assert_eq!(self.count(Metric::LaneGaps), 0);
        self.node.stop().await;
    }
}
