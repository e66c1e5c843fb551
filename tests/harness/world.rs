//! The loaded program with its maps filled, in a network namespace where nothing else happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{BackendId, Ip, NextHop, SLOT_COUNT, ServiceId, ServiceKey, Traffic},
    flow::{HashKeys, slot},
    verdict::Verdict,
};
use lb_user::{
    config::model,
    core::{
        flows::{Expiry, Sight},
        image::{MapImage, ServiceImage, Table},
        plan::{self, Desired, Moment},
        settle::{self, Findings},
        slots::State,
        sync::source::Walk,
    },
    io::datapath::{self, Datapath, DatapathConfig, FlowCounts, Limits, Round, Sweeper, XdpMode},
};

use crate::{
    packet::Packet,
    prog_run::{self, Answer, LOOPBACK},
};

/// The seed of the flow hash.
pub const SEED: [u8; 16] = *b"a seed for tests";

/// Flows of either kind that there is room for: the kernel makes room for all at once.
const FLOWS: u32 = 16_384;
/// Packets in fragments that there is room for.
const FRAGMENTS: u32 = 1_024;

/// Prefixes that there is room for, which takes no memory before they are there.
const ACCESS_ENTRIES: u32 = 200_000;

/// The loaded program, as the daemon would hold it, attached to nothing.
pub struct World {
    datapath: Datapath,
    sweeper: Option<Sweeper>,
    desired: Desired,
    image: MapImage,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The one verdict that was counted.
    pub verdict: Verdict,
    pub answer: Answer,
}

impl World {
    /// Loads the program and fills its maps.
    ///
    /// # Errors
    /// Without root, or when the kernel refuses the program.
    pub fn new(desired: Desired) -> Result<Self> {
        let limits = Self::limits(&desired)?;
        Self::with_limits(desired, limits)
    }

    fn limits(desired: &Desired) -> Result<Limits> {
        let backends: usize = desired.services.iter().map(|s| s.backends.len()).sum();
        Ok(Limits {
            services: u16::try_from(desired.services.len())?,
            backends: u16::try_from(backends)?,
            flows: FLOWS,
            half_open: FLOWS,
            access_entries: ACCESS_ENTRIES,
            fragments: FRAGMENTS,
            sources: FLOWS,
        })
    }

    /// The same with other capacities.
    ///
    /// # Errors
    /// As [`World::new`].
    pub fn with_limits(desired: Desired, limits: Limits) -> Result<Self> {
        Self::load(desired, limits, 0)
    }

    /// As [`World::new`], with a program that reports new flows in a ring of so many bytes.
    ///
    /// # Errors
    /// As [`World::new`].
    pub fn reporting(desired: Desired, events: u32) -> Result<Self> {
        let limits = Self::limits(&desired)?;
        Self::load(desired, limits, events)
    }

    fn load(mut desired: Desired, limits: Limits, events: u32) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "these tests load a BPF program, which needs root: run `cargo xtask test`"
        );
        desired.limits = model::Limits {
            services: limits.services.into(),
            backends: limits.backends.into(),
            flows: limits.flows,
            half_open: limits.half_open,
            access_entries: limits.access_entries,
            fragments: limits.fragments,
            sources: limits.sources,
        };
        let mut datapath = Datapath::open(&DatapathConfig {
            interface: "lo".to_owned(),
            mode: XdpMode::Auto,
            seed: SEED,
            limits,
            events,
        })?;
        let sweeper = datapath.take_sweeper();
        let mut world = Self {
            datapath,
            sweeper,
            desired,
            image: MapImage::empty(),
        };
        world.converge()?;
        Ok(world)
    }

    /// Changes what is desired, and the maps with it.
    ///
    /// # Errors
    /// When the kernel refuses an update.
    pub fn change(&mut self, change: impl FnOnce(&mut Desired)) -> Result<()> {
        change(&mut self.desired);
        self.converge()
    }

    /// Image, diff, apply: until nothing is left to do.
    fn converge(&mut self) -> Result<()> {
        loop {
            let moment = Moment::at(datapath::now());
            let next = plan::next(&self.image, &self.desired, moment);
            if next == self.image {
                return Ok(());
            }
            self.datapath.apply(&plan::diff(&self.image, &next))?;
            self.image = next;
        }
    }

    /// Does what the daemon does after a walk.
    ///
    /// # Errors
    /// When the kernel refuses an update.
    pub fn settle(&mut self, findings: &Findings) -> Result<()> {
        let next = settle::settle(&self.image, findings, Moment::at(datapath::now()));
        self.datapath.apply(&plan::diff(&self.image, &next))?;
        self.image = next;
        Ok(())
    }

    /// Gives all slots of each service an owner and a state.
    ///
    /// # Errors
    /// When the kernel refuses an update.
    pub fn hold(&mut self, by: impl Fn(&ServiceImage) -> (BackendId, State)) -> Result<()> {
        let mut next = self.image.clone();
        for service in next.services.values_mut() {
            let (owner, state) = by(service);
            service.generation ^= 1;
            service.table = Arc::new(Table {
                slots: vec![owner; SLOT_COUNT as usize],
                holds: (0..SLOT_COUNT).map(|slot| (slot, state)).collect(),
                ..Table::clone(&service.table)
            });
        }
        self.datapath.apply(&plan::diff(&self.image, &next))?;
        self.image = next;
        Ok(())
    }

    /// What the maps hold.
    #[must_use]
    pub fn image(&self) -> &MapImage {
        &self.image
    }

    /// The program and its maps.
    #[must_use]
    pub fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// The same, to write to what no image holds.
    pub fn datapath_mut(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Walks over the flow tables once, and forgets flows that were silent for `idle`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self, idle: Duration) -> Result<FlowCounts> {
        Ok(self.walk(idle)?.counts)
    }

    /// As [`Self::sweep`], with all that was found.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn walk(&mut self, idle: Duration) -> Result<Round> {
        let sight = self.sight(idle);
        let sweeper = self.sweeper.as_mut().context("the sweeper was taken")?;
        Ok(sweeper.round(&sight)?)
    }

    fn sight(&self, idle: Duration) -> Sight {
        Sight {
            image: Arc::new(self.image.clone()),
            expiry: Expiry {
                idle,
                shortest: idle,
                longest: idle,
            },
        }
    }

    /// Walks over the flow tables as well, and takes down what a peer is told of the services with
    /// one of these VIPs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn walk_for(&mut self, idle: Duration, vips: &BTreeSet<IpAddr>) -> Result<Walk> {
        let sight = self.sight(idle);
        let mut walk = Walk::new(&sight.image, vips);
        let sweeper = self.sweeper.as_mut().context("the sweeper was taken")?;
        sweeper.round_noting(&sight, Some(&mut walk))?;
        Ok(walk)
    }

    /// Corrects the counts of flows by what a walk has found, as the daemon does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn correct(&mut self, findings: &Findings) -> Result<()> {
        for (&(id, epoch), census) in &findings.loads {
            self.datapath.correct_load(id, epoch, census)?;
        }
        Ok(())
    }

    /// Runs the program on a frame that comes in by loopback.
    ///
    /// # Errors
    /// When the kernel refuses, or not exactly one verdict was counted.
    pub fn run(&self, frame: &[u8]) -> Result<Outcome> {
        self.run_on(LOOPBACK, frame)
    }

    /// Runs the program on a packet.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn send(&self, packet: &Packet) -> Result<Outcome> {
        self.run(&packet.build())
    }

    /// Runs the program on a frame that comes in by an interface.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn run_on(&self, interface: u32, frame: &[u8]) -> Result<Outcome> {
        let before = self.datapath.verdicts()?;
        let answer = prog_run::run(self.datapath.program_fd()?, frame, interface)?;
        let counted = difference(&before, &self.datapath.verdicts()?);
        let [(verdict, 1)] = counted[..] else {
            anyhow::bail!("one frame was counted as {counted:?}");
        };
        ensure!(
            answer.action == verdict.action(),
            "{verdict:?} was counted and {:?} answered",
            answer.action
        );
        Ok(Outcome { verdict, answer })
    }

    /// The service at a VIP, port and protocol.
    ///
    /// # Errors
    /// When there is none.
    pub fn service(&self, vip: IpAddr, port: u16, protocol: u8) -> Result<&ServiceImage> {
        let key = ServiceKey::new(Ip::from(vip), port, protocol);
        let service = self.image.services.get(&key);
        service.with_context(|| format!("there is no service {vip} {port} {protocol}"))
    }

    /// The backend that the packet's slot belongs to.
    ///
    /// # Errors
    /// When there is no such service or it has no backends.
    pub fn owner(&self, packet: &Packet) -> Result<BackendId> {
        let service = self.service(
            packet.destination,
            packet.destination_port,
            packet.protocol(),
        )?;
        let slot = slot(HashKeys::from_seed(SEED).hash_by(service.balance, &packet.flow()));
        let owner = service.table.slots.get(slot as usize).copied();
        owner.context("the service has no backends")
    }

    /// Where the frames of a backend go.
    ///
    /// # Errors
    /// When there is no such backend or it has no next hop.
    pub fn next_hop(&self, id: BackendId) -> Result<NextHop> {
        let backend = self.image.backends.get(&id).context("no such backend")?;
        backend.next_hop.context("the backend has no next hop")
    }

    /// A backend's own address and port.
    ///
    /// # Errors
    /// When there is no such backend.
    pub fn address(&self, id: BackendId) -> Result<(IpAddr, u16)> {
        let backend = self.image.backends.get(&id).context("no such backend")?;
        Ok((backend.address.into(), backend.port))
    }

    /// The id of the backend whose next hop has a MAC address.
    #[must_use]
    pub fn backend_by_mac(&self, mac: &[u8]) -> Option<BackendId> {
        let mut backends = self.image.backends.iter();
        backends
            .find(|(_, backend)| backend.next_hop.is_some_and(|hop| hop.mac == mac))
            .map(|(id, _)| *id)
    }

    /// The backends of a service.
    #[must_use]
    pub fn backends_of(&self, service: ServiceId) -> Vec<BackendId> {
        let backends = self.image.backends.iter();
        backends
            .filter(|(_, backend)| backend.service == service)
            .map(|(id, _)| *id)
            .collect()
    }

    /// What a backend was counted for.
    ///
    /// # Errors
    /// When the kernel does not give its counters.
    pub fn traffic(&self, id: BackendId) -> Result<Traffic> {
        Ok(self.datapath.backend_traffic(id)?)
    }
}

fn difference(
    before: &BTreeMap<Verdict, u64>,
    after: &BTreeMap<Verdict, u64>,
) -> Vec<(Verdict, u64)> {
    let grown = after.iter().map(|(verdict, count)| {
        let earlier = before.get(verdict).copied().unwrap_or(0);
        (*verdict, count - earlier)
    });
    grown.filter(|(_, count)| *count > 0).collect()
}
