//! What the event loop has others do by what can be forwarded: the VIPs on the interface, those that
//! are announced by being there, and the virtual routers.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Context as _;
use tokio::time::Instant;

use super::{
    running::Running,
    sources,
    sync::Syncer,
    vips::{InterfaceGone, Newcomers},
};
use crate::{
    config::model::Vip,
    core::{
        event,
        presence::{Lack, Standing},
        vrrp::node::Forwarding,
    },
    io::netlink::NetlinkError,
};

impl Running {
    /// Takes the VIPs, and lets routers take theirs, once packets to them are balanced.
    pub(super) async fn take_over(&mut self) -> anyhow::Result<()> {
        let config = self.engine.balancer.config();
        let stale = self
            .vips
            .remove_unwanted(config, |it| self.routers.inherit(it, config))
            .await;
        stale.context("addresses left by an earlier run cannot be removed")?;
        self.vips.withhold(self.lacks());
        self.vips
            .ensure(config, Newcomers::Assign)
            .await
            .context("a VIP cannot be assigned")?;
        self.pace.is_behind = true;
        self.lead_routers()?;
        self.pace.has_taken_over = true;
        Ok(())
    }

    /// Has the engine know which addresses are not here.
    pub(super) fn note_absent(&mut self) {
        let config = self.engine.balancer.config();
        let absent = if self.pace.has_taken_over {
            let mut absent = self.routers.absent();
            absent.extend(self.vips.withdrawn(config));
            absent
        } else if self.pace.has_predecessor {
            // Clients may have been served, but for those that the predecessor stood by for.
            self.engine.stood_by()
        } else {
            config.vips().iter().map(Vip::address).collect()
        };
        self.engine.handle_absent(absent);
        if self.pace.has_taken_over
            && let Some(syncer) = &self.syncer
        {
            syncer.follow(&self.routers);
        }
    }

    /// Has VIPs and routers follow what can be forwarded.
    pub(super) async fn lead(&mut self) -> anyhow::Result<()> {
        self.pace.observe(self.engine.is_settled(), Instant::now());
        if self.vips.withhold(self.lacks()) {
            // What fails is tried again at the next look.
            drop(self.ensure_vips().await);
        }
        self.lead_routers()
    }

    /// Tells the routers what can be forwarded, and has them be those of the configuration in force
    /// when the maps are.
    fn lead_routers(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.pace.observe(self.engine.is_settled(), now);
        self.trackers.see(self.engine.shares());
        self.routers.tell(Forwarding {
            is_ready: self.pace.is_ready(now),
            is_behind: self.syncer.as_ref().is_some_and(Syncer::is_behind),
            backing: self.engine.backing(),
            tracked: self.trackers.states(),
        });
        if self.pace.is_behind && self.engine.is_settled() {
            let config = self.engine.balancer.config();
            self.routers
                .follow(config)
                .context("virtual routers cannot be started")?;
            // Not before: the routers that were there would miss what they depend on.
            self.trackers.follow(config);
            self.pace.is_behind = false;
        }
        Ok(())
    }

    /// What keeps addresses off the interface that are there only while their packets are served.
    fn lacks(&self) -> BTreeMap<IpAddr, Lack> {
        let mut vips = self
            .engine
            .balancer
            .config()
            .own_vips()
            .filter(|vip| vip.is_withdrawn_unserved())
            .map(Vip::address)
            .peekable();
        if vips.peek().is_none() {
            return BTreeMap::new();
        }
        let (backing, now) = (self.engine.backing(), Instant::now());
        let lacks = vips.filter_map(|vip| {
            // One change that the kernel refuses is no reason to go, but one not to come.
            let is_ready = if self.vips.has(vip) {
                self.pace.is_ready(now)
            } else {
                self.engine.is_settled()
            };
            let standing = Standing {
                is_ready,
                backing: backing.get(&vip).copied(),
                is_fresh: self.engine.is_fresh(vip),
            };
            standing.lack().map(|lack| (vip, lack))
        });
        lacks.collect()
    }

    /// Assigns what is missing, as far as the maps are ready for it, and takes off what is not to be
    /// there; what fails is tried again at the next look.
    pub(super) async fn ensure_vips(&mut self) -> Result<(), NetlinkError> {
        let newcomers = if self.engine.is_settled() {
            Newcomers::Assign
        } else {
            Newcomers::Hold
        };
        self.vips.withhold(self.lacks());
        let config = self.engine.balancer.config();
        let outcome = self.vips.ensure(config, newcomers).await;
        if let Err(error) = &outcome {
            let error = error.to_string();
            self.engine.journal.tell(event::Event::VipRefused { error });
        }
        outcome
    }

    pub(super) async fn recheck(&mut self) -> Result<(), InterfaceGone> {
        let looked = self.vips.refresh().await;
        if looked.is_err() {
            self.routers.abandon();
        }
        looked?;
        let (index, mac) = self.vips.carrier();
        self.engine.handle_interface(index, mac);
        self.engine.handle_addresses(self.vips.own_addresses());
        sources::find(&mut self.engine, &self.vips).await;
        self.note_absent();
        self.engine.reconcile();
        drop(self.ensure_vips().await);
        Ok(())
    }
}
