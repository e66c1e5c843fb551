//! The applier: makes the addresses of the routers match their roles, and tells what the interfaces
//! are like. Level-triggered, and only what is ours is touched.
//!
//! The addresses' lifetime is short: when the daemon is killed nobody sends adverts, and its host
//! must not answer for addresses that a peer has by then.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{self, Instant, MissedTickBehavior},
};

use super::{Hold, Notice, Placed, Wanted, macs::Macs, notices::Notices};
use crate::{
    control::VipState,
    core::event::Moved,
    core::vrrp::node::Link,
    io::netlink::{Event, Events, Interface, Netlink, NetlinkError, Unmarked, VipOrigin},
};

/// How long an address stays when nobody renews it. The kernel counts whole seconds, a peer takes
/// over after little more than three intervals, of a second each by default.
const LIFETIME: Duration = Duration::from_secs(3);

/// How often it is renewed: two renewals may fail.
const RENEWAL: Duration = Duration::from_secs(1);

/// How long events are collected before they are acted upon: changes of routes come in long bursts.
const SETTLE: Duration = Duration::from_millis(20);

/// The applier. See the module.
pub(super) struct Applier {
    netlink: Netlink,
    events: Events,
    wanted: watch::Receiver<Wanted>,
    placed: watch::Sender<Placed>,
    notices: Notices,
    /// The interface that the program is attached to, by its index.
    carrier: u32,
    unmarked: Unmarked,
    /// Where each address is that is or was a router's.
    states: BTreeMap<IpAddr, VipState>,
    comings: BTreeMap<IpAddr, u64>,
    /// Those that could not be put there at the last attempt.
    refused: BTreeSet<IpAddr>,
    /// Those that somebody else put there and has to remove, as was told.
    left: BTreeSet<IpAddr>,
    macs: Macs,
}

/// Why it looks at everything again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    News,
    Renewal,
    /// The driver has ended.
    End,
}

impl Applier {
    /// Opens the sockets in the namespace of the calling thread; `notes` is a directory for what has to be
    /// put back.
    ///
    /// # Errors
    ///
    /// If the kernel gives none.
    pub(super) fn new(
        carrier: u32,
        notes: PathBuf,
        wanted: watch::Receiver<Wanted>,
        placed: watch::Sender<Placed>,
        notices: Notices,
    ) -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink: Netlink::open()?,
            events: Events::open()?,
            wanted,
            placed,
            notices,
            carrier,
            unmarked: Unmarked::default(),
            states: BTreeMap::new(),
            comings: BTreeMap::new(),
            refused: BTreeSet::new(),
            left: BTreeSet::new(),
            macs: Macs::new(carrier, notes),
        })
    }

    /// Runs until the driver has ended, and removes everything then.
    ///
    /// # Errors
    ///
    /// If the event socket fails.
    pub(super) async fn run(mut self) -> Result<(), NetlinkError> {
        let mut renewal = time::interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look_at: Option<Instant> = None;
        loop {
            // Every arm may be cancelled: the event socket takes a datagram whole or not at all.
            let reason = tokio::select! {
                biased;
                changed = self.wanted.changed() => match changed {
                    Ok(()) => Reason::News,
                    Err(_ended) => Reason::End,
                },
                _ = renewal.tick() => Reason::Renewal,
                () = time::sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                    look_at = None;
                    Reason::News
                }
                event = self.events.next() => {
                    if concerns_us(&event?) {
                        look_at.get_or_insert_with(|| Instant::now() + SETTLE);
                    }
                    continue;
                }
            };
            let wanted = self.wanted.borrow_and_update().clone();
            if !wanted.plan.carrier.is_empty() {
                for trouble in self.macs.apply(&self.netlink, &wanted, reason).await {
                    self.complain(&wanted.plan.carrier, &trouble);
                }
                if reason == Reason::News {
                    self.hurry(&wanted).await;
                }
                self.apply(wanted, reason).await;
            }
            if reason == Reason::End {
                return Ok(());
            }
        }
    }

    /// Puts addresses there that should be and were not when it last looked, and tells so before all
    /// else: a take-over waits for nothing but this. What does not succeed [`Self::apply`] finds.
    async fn hurry(&mut self, wanted: &Wanted) {
        let mut added = Vec::new();
        for (vip, (prefix, hold)) in &wanted.vips {
            let is_new = self.states.get(vip) == Some(&VipState::Standby);
            if *hold == Hold::Here && is_new {
                let (carrier, prefix) = (self.carrier, *prefix);
                let asked = self.netlink.add_vip(carrier, *vip, prefix, LIFETIME);
                added.extend(asked.await.is_ok_and(|is_ours| is_ours).then_some(*vip));
            }
        }
        if added.is_empty() {
            return;
        }
        for vip in &added {
            self.states.insert(*vip, VipState::Assigned);
            *self.comings.entry(*vip).or_default() += 1;
        }
        self.placed.send_modify(|placed| {
            placed.vips.clone_from(&self.states);
            placed.comings.clone_from(&self.comings);
        });
        for vip in added {
            let noted = self.netlink.note_vip(self.carrier, vip, &mut self.unmarked);
            if let Err(error) = noted.await {
                self.complain(&wanted.plan.carrier, &error);
            }
            self.tell(&wanted.plan.carrier, vip, Some(Moved::Assigned));
        }
    }

    /// Looks at everything and does what is to be done.
    async fn apply(&mut self, wanted: Wanted, reason: Reason) {
        let mut placed = Placed {
            has_looked: true,
            number: wanted.number,
            ..Placed::default()
        };
        let mut is_whole = true;
        for name in wanted.plan.interfaces().collect::<BTreeSet<_>>() {
            match self.netlink.interface(name).await {
                // One that has come back under the name has no program: to the routers it is none.
                Ok(interface) if name == wanted.plan.carrier && interface.index != self.carrier => {
                }
                Ok(interface) => {
                    if name == wanted.plan.carrier {
                        is_whole &= self.place(&interface, &wanted, reason).await;
                    }
                    describe(&interface, &mut placed);
                }
                Err(NetlinkError::NoSuchInterface { .. }) => {}
                Err(error) => {
                    is_whole &= name != wanted.plan.carrier;
                    self.complain(name, &error);
                    // A kernel that does not answer has not taken the link down.
                    recall(name, &self.placed.borrow(), &mut placed);
                }
            }
        }
        if !placed.links.contains_key(&wanted.plan.carrier) {
            self.states.clear();
            self.refused.clear();
        }
        placed.vips.clone_from(&self.states);
        placed.comings.clone_from(&self.comings);
        placed.refused.clone_from(&self.refused);
        self.placed.send_if_modified(|known| {
            if !is_whole {
                placed.number = known.number;
            }
            let is_new = *known != placed;
            *known = placed;
            is_new
        });
    }

    /// Adds, renews and removes. Returns whether all is gone that should be: what cannot be added is
    /// nothing to wait for.
    async fn place(&mut self, interface: &Interface, wanted: &Wanted, reason: Reason) -> bool {
        let gone = self
            .states
            .keys()
            .filter(|vip| !wanted.vips.contains_key(vip));
        let gone = gone.map(|vip| (*vip, 0, Hold::NotHere));
        let known = wanted.vips.iter();
        let known = known.map(|(vip, (prefix, hold))| (*vip, *prefix, *hold));
        let is_kept = |hold| hold == Hold::Here && reason != Reason::End;
        let (here, not_here): (Vec<_>, Vec<_>) = known
            .chain(gone)
            .partition(|(_vip, _prefix, hold)| is_kept(*hold));
        let is_there = |interface: &Interface, vip| {
            let mut addresses = interface.addresses.iter();
            addresses.any(|(there, _)| *there == vip)
        };
        let (mut is_whole, mut is_changed) = (true, false);
        for (vip, _prefix, _hold) in not_here {
            let was_there = is_there(interface, vip);
            is_changed |= was_there;
            self.refused.remove(&vip);
            if let Err(error) = self.have_not(interface, vip, was_there).await {
                is_whole = false;
                self.states.insert(vip, VipState::Absent);
                self.complain(&interface.name, &error);
            }
        }
        // The kernel takes along the other IPv4 addresses of the same network, unless it was told to
        // promote one of them.
        let looked_again = match is_changed && !here.is_empty() {
            true => self.netlink.interface(&interface.name).await.ok(),
            false => None,
        };
        let interface = looked_again.as_ref().unwrap_or(interface);
        for (vip, prefix, _hold) in here {
            let is_there = is_there(interface, vip);
            self.refused.remove(&vip);
            let done = self.have(interface, vip, prefix, is_there, reason).await;
            if let Err(error) = done {
                // One whose renewal fails is there for as long as it lasts.
                if !is_there {
                    self.refused.insert(vip);
                }
                self.states.insert(vip, VipState::Absent);
                self.complain(&interface.name, &error);
            }
        }
        // One that could not be removed is left for the next look.
        self.states
            .retain(|vip, state| wanted.vips.contains_key(vip) || *state == VipState::Absent);
        self.comings.retain(|vip, _| wanted.vips.contains_key(vip));
        is_whole
    }

    async fn have(
        &mut self,
        interface: &Interface,
        vip: IpAddr,
        prefix: u8,
        is_there: bool,
        reason: Reason,
    ) -> Result<(), NetlinkError> {
        let is_known = self.states.get(&vip) == Some(&VipState::Assigned);
        self.left.remove(&vip);
        if is_known && is_there && reason != Reason::Renewal {
            return Ok(());
        }
        let unmarked = &mut self.unmarked;
        let asked = self
            .netlink
            .ensure_vip(interface.index, vip, prefix, LIFETIME, unmarked);
        let what = match asked.await? {
            _ if is_known && is_there => None,
            VipOrigin::Ours if is_known => Some(Moved::Restored),
            VipOrigin::Ours => Some(Moved::Assigned),
            VipOrigin::Foreign => Some(Moved::Found),
        };
        *self.comings.entry(vip).or_default() += u64::from(what.is_some());
        self.states.insert(vip, VipState::Assigned);
        self.tell(&interface.name, vip, what);
        Ok(())
    }

    async fn have_not(
        &mut self,
        interface: &Interface,
        vip: IpAddr,
        is_there: bool,
    ) -> Result<(), NetlinkError> {
        self.states.insert(vip, VipState::Standby);
        if !is_there {
            self.left.remove(&vip);
            return Ok(());
        }
        let unmarked = &mut self.unmarked;
        self.netlink
            .remove_vip(interface.index, vip, unmarked)
            .await?;
        let is_left = self.netlink.interface(&interface.name).await?;
        let is_left = is_left.addresses.iter().any(|(there, _)| *there == vip);
        let what = match is_left {
            false => Some(Moved::Removed),
            true => self.left.insert(vip).then_some(Moved::Left),
        };
        self.tell(&interface.name, vip, what);
        Ok(())
    }

    fn tell(&self, interface: &str, vip: IpAddr, what: Option<Moved>) {
        let interface = interface.to_owned();
        if let Some(what) = what {
            self.notices.tell(Notice::Vip {
                vip,
                interface,
                what,
            });
        }
    }

    fn complain(&self, interface: &str, error: &impl ToString) {
        self.notices.tell(Notice::Trouble {
            about: interface.to_owned(),
            error: error.to_string(),
        });
    }
}

/// Whether interfaces or their addresses may have changed: neighbours come and go all the time.
const fn concerns_us(event: &Event) -> bool {
    match event {
        Event::Neighbours(_) => false,
        Event::Anything => true,
    }
}

/// Takes over what was known of an interface before.
fn recall(name: &str, known: &Placed, placed: &mut Placed) {
    if let (Some(link), Some(end)) = (known.links.get(name), known.ends.get(name)) {
        placed.links.insert(name.to_owned(), link.clone());
        placed.ends.insert(name.to_owned(), *end);
    }
}

fn describe(interface: &Interface, placed: &mut Placed) {
    let Interface {
        index,
        name,
        mac,
        is_up,
        addresses,
    } = interface;
    placed.ends.insert(name.clone(), (*index, *mac));
    let addresses = addresses.iter().map(|(address, _)| *address);
    let link = Link {
        is_up: *is_up,
        addresses: addresses.collect(),
    };
    placed.links.insert(name.clone(), link);
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Event, concerns_us};

    #[test]
    fn neighbours_that_come_and_go_are_no_reason_to_look_at_interfaces() {
        let neighbour = IpAddr::from([172, 16, 40, 20]);
        assert!(!concerns_us(&Event::Neighbours(vec![neighbour])));
        assert!(concerns_us(&Event::Anything));
    }
}
