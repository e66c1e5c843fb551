//! The fail-over of the demonstration: the host that has the VIP loses its cable once for all to see,
//! and gets it back in time, whoever has pulled it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::live::RESTART;
use crate::load::Load;
use crate::network::Network;

/// How long everything is shown at rest before.
const REST: Duration = Duration::from_secs(10);

/// lb1, which has the VIP while it can, and lb2.
const FIRST: usize = 0;
const SECOND: usize = 1;

/// What has been seen of the two hosts.
pub(super) struct Standby {
    clients: u64,
    has_shown: bool,
    holder: usize,
    /// Since when that one has the VIP, or was last helped to get it back.
    since: Instant,
    /// Clients that had lost their connection before.
    lost_before: usize,
    /// So many packets later every client has been heard from by way of the new holder.
    enough: Option<u64>,
}

impl Standby {
    pub(super) fn new(clients: u32) -> Self {
        Self {
            clients: clients.into(),
            has_shown: false,
            holder: FIRST,
            since: Instant::now(),
            lost_before: 0,
            enough: None,
        }
    }

    /// Looks, says what is new, and does what is due. At rest all clients are there, and lb2 knows them.
    pub(super) fn watch(
        &mut self,
        network: &Network,
        clients: &Load,
        is_at_rest: bool,
        say: &impl Fn(&str),
    ) -> Result<()> {
        let lost = clients.losses().len();
        if self.enough.is_none() {
            self.lost_before = lost;
        }
        let is_second = network.role(SECOND).is_ok_and(|role| role == "active");
        let holder = if is_second { SECOND } else { FIRST };
        let name = network.balancer_host(holder).name();
        if holder != self.holder {
            (self.holder, self.since) = (holder, Instant::now());
            self.enough = Some(network.packets(holder)? + 4 * self.clients);
            say(&format!("{name} has taken the VIP over."));
        }
        let enough = self.enough;
        if enough.is_some_and(|enough| network.packets(holder).is_ok_and(|it| it >= enough)) {
            self.enough = None;
            let (all, lost) = (self.clients, lost - self.lost_before.min(lost));
            say(&format!(
                "Every client has been heard from by way of {name}: of {all} sessions {lost} were lost."
            ));
        }
        self.act(network, is_at_rest, say)
    }

    /// Pulls the cable the first time, and puts it back each time.
    fn act(&mut self, network: &Network, is_at_rest: bool, say: &impl Fn(&str)) -> Result<()> {
        let (switch, first) = (network.topology().switch(), network.balancer_host(FIRST));
        if !self.has_shown && is_at_rest && self.since.elapsed() >= REST {
            self.has_shown = true;
            say("Now lb1, which has the VIP, loses its cable.");
            switch.unplug(first)?;
        } else if self.holder == SECOND && self.since.elapsed() >= RESTART {
            self.since = Instant::now();
            say("lb1 gets its cable back. It takes over again when it knows lb2's sessions.");
            switch.plug(first)?;
        }
        Ok(())
    }
}
