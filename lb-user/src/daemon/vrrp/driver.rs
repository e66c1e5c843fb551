//! The driver: sockets and clock around a [`Node`], in the order that `core/vrrp` asks for.

use std::{collections::BTreeMap, future::poll_fn, net::IpAddr, time::Instant};

use anyhow::Context as _;
use lb_common::abi::VirtualMac;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};

use super::{
    Command, HAND_OVER_DEADLINE, Hold, Notice, Numbered, Placed, Wanted, lines::Lines,
    notices::Notices, sockets::Client, view,
};
use crate::{
    control::{RouterChange, RouterChangeError, RouterOrder, VipState},
    core::vrrp::node::{Forwarding, Line, Node, Outgoing, Placement, Report},
    io::{
        alarm::Alarm,
        datapath::{DatapathError, Leases, Wishes},
        link_layer::Announcer,
    },
};

/// What joins the driver to the others.
pub(super) struct Ends {
    pub(super) plan: watch::Receiver<Numbered>,
    pub(super) forwarding: watch::Receiver<Forwarding>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) placed: watch::Receiver<Placed>,
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) report: watch::Sender<Report>,
    pub(super) notices: Notices,
    pub(super) leases: Option<Leases>,
}

/// The driver. See the module.
pub(super) struct Driver {
    ends: Ends,
    node: Node,
    /// The number of the plan that the node goes by.
    number: u64,
    lines: Lines,
    announcer: Option<(u32, [u8; 6], Announcer)>,
    /// When the roles are given up, whoever has taken them.
    stop_at: Option<Instant>,
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Driver {
    pub(super) fn new(ends: Ends, sockets: Client) -> Self {
        let mut node = Node::default();
        if let Some(leases) = &ends.leases {
            node.handle_leased(super::leased(leases));
        }
        Self {
            lines: Lines::new(sockets, ends.notices.clone()),
            node,
            number: 0,
            announcer: None,
            stop_at: None,
            ends,
        }
    }

    /// Runs until it is told to stop, or nobody is left who could.
    ///
    /// # Errors
    ///
    /// If there is no clock to go by, or no signal to hear.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let alarm = Alarm::new().context("no timer for adverts")?;
        // The event loop hears it as well, and says so; but it does not run before ordinary threads.
        let mut term = signal(SignalKind::terminate()).context("cannot listen for signals")?;
        // What is known when it starts is news as well.
        self.ends.plan.mark_changed();
        self.ends.forwarding.mark_changed();
        // The applier learns which interfaces to look at.
        self.put_out(Instant::now()).await;
        loop {
            let command = self.wait(&alarm, &mut term).await?;
            let now = Instant::now();
            // Adverts go first, or a loop that was held up would take an Active for dead whose adverts
            // it has not read.
            self.lines.read(&mut self.node, now);
            self.take_in_levels(now);
            let flow = match command.or_at_hand(&mut self.ends.commands) {
                Waited::ForNothing => Flow::Continue,
                Waited::ForTheEnd => {
                    self.node.release_all(now);
                    Flow::Continue
                }
                Waited::For(command) => self.handle(command, now),
                Waited::InVain => Flow::Stop,
            };
            self.node.handle_timeout(now);
            let is_over = self
                .stop_at
                .is_some_and(|at| at <= now || self.has_handed_over());
            if flow == Flow::Stop || is_over {
                self.node.handle_shutdown(now);
                self.put_out(now).await;
                return Ok(());
            }
            self.put_out(now).await;
        }
    }

    /// Whether nobody needs this node any more.
    fn has_handed_over(&self) -> bool {
        !self.node.is_active() && self.node.held().is_empty()
    }

    /// Waits for whatever comes first. Nothing is lost when an arm is dropped: sockets and levels
    /// stay as they are, and channels lose nothing.
    async fn wait(&mut self, alarm: &Alarm, term: &mut Signal) -> anyhow::Result<Waited> {
        let lines = self.lines.deadline(Instant::now());
        let deadlines = [self.node.next_deadline(), self.stop_at, lines];
        let deadline = deadlines.into_iter().flatten().min();
        let has_looked = self.has_looked();
        let ends = &mut self.ends;
        let lines = &self.lines;
        let waited = tokio::select! {
            biased;
            () = poll_fn(|context| lines.poll_readable(context)) => Waited::ForNothing,
            rung = alarm.wait_until(deadline) => {
                rung.context("the timer for adverts fails")?;
                Waited::ForNothing
            }
            Some(()) = term.recv() => Waited::ForTheEnd,
            command = ends.commands.recv() => command.map_or(Waited::InVain, Waited::For),
            Ok(()) = ends.plan.changed(), if has_looked => { ends.plan.mark_changed(); Waited::ForNothing }
            Ok(()) = ends.forwarding.changed(), if has_looked => { ends.forwarding.mark_changed(); Waited::ForNothing }
            Ok(()) = ends.placed.changed() => { ends.placed.mark_changed(); Waited::ForNothing }
        };
        Ok(waited)
    }

    /// Whether anything is known of the interfaces.
    fn has_looked(&self) -> bool {
        self.ends.placed.borrow().has_looked
    }

    fn take_in_levels(&mut self, now: Instant) {
        if has_changed(&self.ends.placed) {
            let placed = self.ends.placed.borrow_and_update().clone();
            self.node.handle_links(placed.links, now);
            let present = placed.vips.iter();
            let present = present.filter(|(_, state)| **state == VipState::Assigned);
            let comings = present.map(|(vip, _)| (*vip, placed.comings.get(vip).copied()));
            let done =
                comings.map(|(vip, times)| (vip, Placement::Done(times.unwrap_or_default())));
            let refused = placed.refused.iter().map(|vip| (*vip, Placement::Refused));
            self.node.handle_placed(done.chain(refused).collect(), now);
        }
        // Routers that knew nothing of the interfaces yet would complain of that.
        if !self.has_looked() {
            return;
        }
        if has_changed(&self.ends.forwarding) {
            let forwarding = self.ends.forwarding.borrow_and_update().clone();
            self.node.handle_forwarding(forwarding, now);
        }
        if has_changed(&self.ends.plan) {
            let Numbered { number, plan } = self.ends.plan.borrow_and_update().clone();
            self.number = number;
            self.node.handle_plan(plan, now);
        }
    }

    fn handle(&mut self, command: Command, now: Instant) -> Flow {
        match command {
            Command::Order(RouterOrder { name, change }, answer) => {
                let done = match change {
                    RouterChange::Release => self.node.release(&name, now),
                    RouterChange::Resume => self.node.resume(&name, now),
                };
                let outcome = done
                    .map(|()| view::status(&self.node.report(now)))
                    .map_err(|unknown| RouterChangeError::Unknown { name: unknown.name });
                // Who has asked may have gone.
                drop(answer.send(outcome));
            }
            Command::Stop => {
                self.node.release_all(now);
                self.stop_at = Some(now + HAND_OVER_DEADLINE);
            }
            Command::End => return Flow::Stop,
        }
        Flow::Continue
    }

    /// Has everything go where it belongs.
    async fn put_out(&mut self, now: Instant) {
        self.open_lines(now).await;
        self.node.settle(now);
        // A peer may have the addresses as soon as it reads that they are given up, and switches send
        // frames here as soon as they see one from a virtual MAC address.
        let macs = self.node.macs();
        self.lease(|map, leases| {
            let used = map.use_macs(&macs);
            used.and(map.end(leases))
        });
        while let Some(outgoing) = self.node.poll_outgoing() {
            match outgoing.mac {
                Some(mac) => self.send_from(mac, &outgoing),
                None => self.lines.send(&outgoing),
            }
        }
        self.want_addresses();
        self.lease(Leases::follow);
        self.announce();
        while let Some(event) = self.node.poll_event() {
            self.ends.notices.tell(Notice::Router(event));
        }
        self.ends.report.send_replace(self.node.report(now));
    }

    async fn open_lines(&mut self, now: Instant) {
        let wanted = self.node.lines();
        let ends = self.ends.placed.borrow().ends.clone();
        let index_of = |line: &Line| ends.get(&line.interface).map(|(index, _)| *index);
        let closed = self.lines.sync(&wanted, index_of, now).await;
        self.node.handle_closed(closed, now);
    }

    fn want_addresses(&self) {
        let held = self.node.held();
        let Numbered { mut number, plan } = self.ends.plan.borrow().clone();
        let has_looked = self.has_looked();
        if !has_looked {
            // No router goes by this plan yet.
            number = 0;
        }
        let vips: BTreeMap<_, _> = plan
            .held_by_routers()
            // What an earlier process has left stays until it is known who goes on.
            .filter(|_| has_looked)
            .map(|(vip, prefix)| {
                let is_held = held.contains(&vip);
                let hold = if is_held { Hold::Here } else { Hold::NotHere };
                (vip, (prefix, hold))
            })
            .collect();
        let macs = self.ends.leases.iter().flat_map(Leases::macs);
        let macs = macs.filter(|_| has_looked).map(|(mac, is_here)| {
            let hold = if is_here { Hold::Here } else { Hold::NotHere };
            (mac, hold)
        });
        let macs = macs.collect();
        let wanted = Wanted {
            number,
            plan,
            vips,
            macs,
        };
        self.ends.wanted.send_if_modified(|known| {
            let is_new = *known != wanted;
            *known = wanted;
            is_new
        });
    }

    /// Has the program know for how long the addresses are here. What an earlier process has said holds
    /// until it is known who goes on, and those of a router that is no more are not here until they are off
    /// the interface: after a stop the next process finds out.
    fn lease(&mut self, write: impl FnOnce(&mut Leases, &Wishes) -> Result<(), DatapathError>) {
        if !self.has_looked() {
            return;
        }
        let placed = self.ends.placed.borrow();
        if placed.number >= self.number {
            let is_left = |vip: &IpAddr| placed.vips.contains_key(vip);
            self.node.handle_removed(is_left);
        }
        drop(placed);
        let leases = self.node.leases();
        let written = self.ends.leases.as_mut().map(|map| write(map, &leases));
        if let Some(Err(error)) = written {
            self.ends.notices.tell(Notice::Trouble {
                about: self.ends.plan.borrow().plan.carrier.clone(),
                error: format!("{:#}", anyhow::Error::from(error)),
            });
        }
    }

    /// Tells the link where the addresses are.
    fn announce(&mut self) {
        while let Some(address) = self.node.poll_announcement() {
            if let Err(error) = self.announce_one(address) {
                self.ends.notices.tell(Notice::Trouble {
                    about: self.ends.plan.borrow().plan.carrier.clone(),
                    error: format!("{error:#}"),
                });
            }
        }
    }

    fn announce_one(&mut self, address: IpAddr) -> anyhow::Result<()> {
        let mac = self.node.macs().of(&address);
        if let Some(announcer) = self.announcer()? {
            announcer.announce(address, mac)?;
        }
        Ok(())
    }

    /// Sends an advert from a virtual MAC address; such a router speaks on the carrier.
    fn send_from(&mut self, mac: VirtualMac, outgoing: &Outgoing) {
        let Outgoing {
            line, to, message, ..
        } = outgoing;
        let sent = self.announcer().and_then(|announcer| match announcer {
            Some(announcer) => Ok(announcer.advertise(mac, line.source, *to, message)?),
            None => Ok(()),
        });
        if let Err(error) = sent {
            self.ends.notices.tell(Notice::Trouble {
                about: line.interface.clone(),
                error: format!("cannot send an advert from {mac}: {error:#}"),
            });
        }
    }

    /// What sends whole frames; `None` while the carrier is not there.
    fn announcer(&mut self) -> anyhow::Result<Option<&Announcer>> {
        let carrier = self.ends.plan.borrow().plan.carrier.clone();
        let end = self.ends.placed.borrow().ends.get(&carrier).copied();
        let Some((index, mac)) = end else {
            return Ok(None);
        };
        let is_current =
            |(old, old_mac, _): &&(u32, [u8; 6], Announcer)| (*old, *old_mac) == (index, mac);
        if self.announcer.as_ref().filter(is_current).is_none() {
            let announcer = Announcer::open(&carrier, index, mac)?;
            self.announcer = Some((index, mac, announcer));
        }
        Ok(self.announcer.as_ref().map(|(_, _, announcer)| announcer))
    }
}

/// What the driver has waited for.
enum Waited {
    /// Something that it finds by itself.
    ForNothing,
    /// The process is to end: successors can be asked for at once.
    ForTheEnd,
    For(Command),
    /// Nobody is left who could say anything.
    InVain,
}

impl Waited {
    /// Sockets come first, and a flood of adverts would have commands wait for ever.
    fn or_at_hand(self, commands: &mut mpsc::Receiver<Command>) -> Self {
        match self {
            Self::ForNothing => commands.try_recv().map_or(Self::ForNothing, Self::For),
            Self::ForTheEnd | Self::For(_) | Self::InVain => self,
        }
    }
}

/// Whether there is news; of who is gone there is none.
fn has_changed<T>(level: &watch::Receiver<T>) -> bool {
    level.has_changed().unwrap_or(false)
}
