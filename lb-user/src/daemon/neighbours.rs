//! Follows where the backends are: for each address, the interface and MAC address of the next hop.
//!
//! Events say what to look at again; what is true is asked for. A look at everything each
//! [`RECHECK`] heals whatever the events missed. A neighbour that stops answering, or whose interface
//! is down, keeps its last known address: whether the backend lives is for the health checks to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_common::abi::NextHop;
use tokio::{
    sync::{mpsc, watch},
    time::{self, MissedTickBehavior},
};
use tracing::{debug, warn};

use crate::io::netlink::{Event, Events, Neighbour, Netlink, NetlinkError, Route};

/// How often everything is looked at without being asked to.
const RECHECK: Duration = Duration::from_secs(5);

/// Changes that may wait for the loop; the follower waits when it is full.
const DEPTH: usize = 256;

/// How long events are collected before they are acted upon: neighbours that came back are waited
/// for, changes of links and routes come in long bursts and make for a look at everything.
const SETTLE_NEIGHBOURS: Duration = Duration::from_millis(10);
const SETTLE_ANYTHING: Duration = Duration::from_millis(200);

/// A backend's next hop, found or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) address: IpAddr,
    pub(super) next_hop: NextHop,
    /// The largest IP packet that goes there, in bytes; 0: not known.
    pub(super) mtu: u16,
    /// Who takes the frames, if it is not the backend itself.
    pub(super) gateway: Option<IpAddr>,
}

/// The follower's state.
pub(super) struct Follower {
    netlink: Netlink,
    events: Events,
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    doubts: mpsc::Receiver<IpAddr>,
    found: mpsc::Sender<Found>,
    /// What was last told.
    known: BTreeMap<IpAddr, (NextHop, u16)>,
    /// The neighbour that each address depends on, for picking out events.
    routes: BTreeMap<IpAddr, Route>,
    /// What was last warned of, so that each trouble is logged once.
    troubled: BTreeMap<IpAddr, String>,
}

/// What to look at again.
enum Look {
    AtAll,
    At(BTreeSet<IpAddr>),
    /// The loop has gone.
    Nowhere,
}

impl Follower {
    /// Opens the sockets; following starts with [`Self::run`].
    ///
    /// # Errors
    ///
    /// If the kernel gives no socket.
    pub(super) fn new(
        wanted: watch::Receiver<BTreeSet<IpAddr>>,
        doubts: mpsc::Receiver<IpAddr>,
    ) -> Result<(Self, mpsc::Receiver<Found>), NetlinkError> {
        let (found, receiver) = mpsc::channel(DEPTH);
        let follower = Self {
            netlink: Netlink::open()?,
            events: Events::open()?,
            wanted,
            doubts,
            found,
            known: BTreeMap::new(),
            routes: BTreeMap::new(),
            troubled: BTreeMap::new(),
        };
        Ok((follower, receiver))
    }

    /// Follows until the loop has gone.
    ///
    /// # Errors
    ///
    /// If the event socket fails.
    pub(super) async fn run(mut self) -> Result<(), NetlinkError> {
        let mut recheck = time::interval(RECHECK);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Every arm may be cancelled: the event socket takes a datagram whole or not at all.
            let look = tokio::select! {
                _ = recheck.tick() => Look::AtAll,
                changed = self.wanted.changed() => match changed {
                    Ok(()) => Look::AtAll,
                    Err(_closed) => Look::Nowhere,
                },
                Some(address) = self.doubts.recv() => {
                    if let Err(error) = self.doubt(address).await {
                        debug!(backend = %address, %error, "neighbour cannot be confirmed");
                    }
                    // What comes of it is an event.
                    continue;
                }
                event = self.events.next() => self.settle(event?).await?,
            };
            let addresses = match look {
                Look::AtAll => self.wanted.borrow_and_update().clone(),
                Look::At(addresses) => addresses,
                Look::Nowhere => return Ok(()),
            };
            for address in addresses {
                self.look_at(address).await;
            }
            let wanted = self.wanted.borrow().clone();
            self.known.retain(|address, _| wanted.contains(address));
            self.routes.retain(|address, _| wanted.contains(address));
            self.troubled.retain(|address, _| wanted.contains(address));
        }
    }

    /// Collects the events of a burst, and which addresses they concern.
    async fn settle(&mut self, first: Event) -> Result<Look, NetlinkError> {
        let mut look = Look::At(BTreeSet::new());
        let mut event = first;
        let started = time::Instant::now();
        let mut until = started + SETTLE_NEIGHBOURS;
        loop {
            match (event, &mut look) {
                (Event::Anything, _) => {
                    look = Look::AtAll;
                    until = started + SETTLE_ANYTHING;
                }
                (Event::Neighbours(changed), Look::At(addresses)) => {
                    let concerned = self.routes.iter().filter_map(|(address, route)| {
                        changed.contains(&route.neighbour).then_some(*address)
                    });
                    addresses.extend(concerned);
                }
                (Event::Neighbours(_), Look::AtAll | Look::Nowhere) => {}
            }
            match time::timeout_at(until, self.events.next()).await {
                Ok(next) => event = next?,
                Err(_elapsed) => return Ok(look),
            }
        }
    }

    async fn look_at(&mut self, address: IpAddr) {
        match self.find(address).await {
            Ok(found) => {
                self.troubled.remove(&address);
                if let Some((next_hop, mtu)) = found {
                    self.tell(address, next_hop, mtu).await;
                }
            }
            Err(error) => {
                let trouble = error.to_string();
                if self.troubled.get(&address) != Some(&trouble) {
                    warn!(backend = %address, error = %trouble, "next hop cannot be found");
                    self.troubled.insert(address, trouble);
                }
            }
        }
    }

    /// Asks the kernel, and has it look or confirm where it is not sure.
    async fn find(&mut self, address: IpAddr) -> Result<Option<(NextHop, u16)>, NetlinkError> {
        let route = self.netlink.route(address).await?;
        self.routes.insert(address, route);
        let mac = match self.netlink.neighbour(route).await? {
            Neighbour::Fixed(mac) | Neighbour::Fresh(mac) | Neighbour::Confirming(mac) => Some(mac),
            Neighbour::Stale(mac) => {
                self.netlink.resolve(route).await?;
                Some(mac)
            }
            Neighbour::Unknown => {
                self.netlink.resolve(route).await?;
                None
            }
        };
        match mac {
            Some(mac) => Ok(Some(self.netlink.next_hop(route, mac).await?)),
            None => Ok(None),
        }
    }

    /// Has the kernel confirm the way to a backend that does not answer: it may have come back with
    /// another MAC address, and the kernel would believe the old one for up to a minute.
    async fn doubt(&mut self, address: IpAddr) -> Result<(), NetlinkError> {
        let Some(&route) = self.routes.get(&address) else {
            return Ok(());
        };
        match self.netlink.neighbour(route).await? {
            Neighbour::Fresh(mac) | Neighbour::Stale(mac) => self.netlink.doubt(route, mac).await,
            Neighbour::Fixed(_) | Neighbour::Confirming(_) | Neighbour::Unknown => Ok(()),
        }
    }

    async fn tell(&mut self, address: IpAddr, next_hop: NextHop, mtu: u16) {
        if self.known.insert(address, (next_hop, mtu)) == Some((next_hop, mtu)) {
            return;
        }
        debug!(backend = %address, interface = next_hop.interface, "next hop found");
        let neighbour = self.routes.get(&address).map(|route| route.neighbour);
        let gateway = neighbour.filter(|neighbour| *neighbour != address);
        // A closed channel is noticed by the loop in `run` too.
        let _ = self
            .found
            .send(Found {
                address,
                next_hop,
                mtu,
                gateway,
            })
            .await;
    }
}
