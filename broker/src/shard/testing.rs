//! What tests of shards need.

use std::{
    collections::BTreeSet,
    rc::Rc,
    sync::{Arc, RwLock, atomic::AtomicUsize, mpsc},
    time::Instant,
};

use super::{Inheritance, Shard, Shared};
use crate::{
    access::{Access, Identity},
    cluster::{Cluster, PEERS},
    codec::packet::{Connect, Version},
    config::Config,
    evacuation::Evacuation,
    events::Events,
    lanes::Lanes,
    link::Link,
    load::Load,
    message::Qos,
    metrics::{Histogram, Metrics},
    peer::Peer,
    retained::{Bounds, Retained},
    routes::Routes,
    session::{Stock, Subscription},
    store::{Parcel, Store},
    topic::SharedFilter,
};

/// The settings of a node that is one of several.
pub(super) const CLUSTER: &str =
    "[cluster]\nname = \"c\"\nlisten = \"127.0.0.1:0\"\nkey_file = \"key\"";

/// The group that tests' members are in.
pub(super) const GROUP: SharedFilter<'static> = SharedFilter {
    group: "g",
    filter: "t",
};

impl Shared {
    /// What a node with these settings and so many shards would have.
    pub(crate) fn for_tests(settings: &str, shards: u16) -> Arc<Self> {
        let text = format!(
            "node = \"n\"\n[access]\nanonymous = true\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n{settings}"
        );
        let config = Config::parse(&text).unwrap();
        let cluster = config.cluster();
        let cluster = cluster.map(|config| Arc::new(Cluster::new("n", config, shards).0));
        let ends = shards + cluster.as_ref().map_or(0, |_cluster| PEERS);
        Arc::new(Self {
            limits: RwLock::new(config.limits()),
            session_limits: config.session(),
            access: Access::start(config.access()).unwrap(),
            shards,
            routes: Routes::default(),
            kept_routes: Routes::default(),
            shares: Arc::default(),
            retained: RwLock::new(Retained::new(config.limits().into())),
            stock: Stock::new(config.limits().node_queue_bytes),
            sessions: AtomicUsize::new(0),
            node: "n".into(),
            metrics: Metrics::new(Vec::new()),
            sys_interval: None,
            sys: RwLock::new(Retained::new(Bounds::NONE)),
            lanes: Arc::new(Lanes::start(ends).unwrap()),
            cluster,
            connect_times: Histogram::default(),
            load: Arc::new(Load::new(config.overload(), shards, Instant::now())),
            store: None,
            evacuation: Evacuation::default(),
            events: Events::default(),
        })
    }
}

impl Shard {
    /// Gives the shard an account with an empty store; what it sends there is not written.
    pub(super) fn keep_for_tests(&mut self) -> mpsc::Receiver<Parcel> {
        let (parcels, arriving) = mpsc::channel();
        let inheritance = Inheritance {
            store: Arc::new(Store::for_tests(self.shared.shards)),
            parcels,
            sessions: Vec::new(),
            taken: BTreeSet::new(),
        };
        self.inherit(inheritance, Instant::now());
        arriving
    }

    /// Connects a member of [`GROUP`] whose session ends with its connection.
    pub(super) fn join_for_tests(&mut self, client_id: &str, qos: Qos) -> Rc<Link> {
        self.join_as(client_id, true, qos)
    }

    /// As [`Shard::join_for_tests`], with a session that outlives its connection.
    pub(super) fn join_kept_for_tests(&mut self, client_id: &str, qos: Qos) -> Rc<Link> {
        self.join_as(client_id, false, qos)
    }

    fn join_as(&mut self, client_id: &str, clean_start: bool, qos: Qos) -> Rc<Link> {
        let connect = Connect {
            clean_start,
            ..Connect::for_tests(Version::V311, client_id)
        };
        let counters = Arc::clone(self.counters());
        let link = Link::new(Peer::for_tests(), &connect, self.limits(), counters);
        let key = self
            .connect(connect, Identity::ANONYMOUS, None, &link, Instant::now())
            .unwrap();
        let subscription = Subscription {
            qos,
            no_local: false,
            retain_as_published: false,
            id: None,
        };
        let entry = self.sessions.get_mut(key).unwrap();
        entry.session.subscribe("$share/g/t", subscription);
        self.join_group(key, GROUP, subscription);
        drop(link.take_output());
        link
    }
}
