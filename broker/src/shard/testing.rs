//! What tests of shards need.

use std::{
    sync::{Arc, RwLock, atomic::AtomicUsize},
    time::Instant,
};

use super::Shared;
use crate::{
    access::Access,
    config::Config,
    lanes::Lanes,
    load::Load,
    metrics::{Histogram, Metrics},
    retained::{Bounds, Retained},
    routes::Routes,
    session::Stock,
};

impl Shared {
    /// What a node with these settings and so many shards would have.
    pub(crate) fn for_tests(settings: &str, shards: u16) -> Arc<Self> {
        let text = format!(
            "node = \"n\"\n[access]\nanonymous = true\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n{settings}"
        );
        let config = Config::parse(&text).unwrap();
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
            lanes: Arc::new(Lanes::start(shards).unwrap()),
            cluster: None,
            connect_times: Histogram::default(),
            load: Arc::new(Load::new(config.overload(), shards, Instant::now())),
            store: None,
        })
    }
}
