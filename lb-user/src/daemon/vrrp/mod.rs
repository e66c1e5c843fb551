//! Virtual routers: who among the nodes has the VIPs.
//!
//! ```text
//!                 Plan, Forwarding              Wanted
//!   event loop  -------------------> driver  ------------> applier ---> addresses
//!       ^       ---- Command ------>  Node   <------------    ^
//!       |                             |  ^       Placed       |
//!       +--- Report, notices ---------|  | VrrpSocket      netlink
//!                                     v  |
//!                                    opener
//! ```
//! Driver, applier and opener have a thread and a runtime each, which run before all ordinary ones
//! if that is allowed: whatever keeps the event loop busy delays no advert, and neither does a kernel
//! that takes its time to change an address or to open a socket. What they have to tell goes to the
//! journal by the event loop's runtime: a reader of the log that stopped would stop them. All that
//! passes between driver, applier and event loop is a level; only operators' commands are queued.

mod applier;
mod driver;
mod lines;
mod macs;
mod notices;
mod sockets;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use lb_common::abi::VirtualMac;
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{applier::Applier, driver::Driver, notices::Notices};
use crate::{
    config::model::{Config, Vrrp},
    control::{ReloadError, RouterChangeError, RouterOrder, VipState, VrrpStatus},
    core::vrrp::{
        node::{Forwarding, Leased, Links, Plan, Report},
        role::Role,
    },
    io::{datapath::Leases, discretion::Discretion, host},
    journal::Journal,
};

use self::notices::Notice;

/// Commands that may wait: they are people's.
const COMMANDS: usize = 16;

/// For the addresses of routers that go to be removed.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(3);

/// For a successor to take over at intervals of up to a second, and some more; with longer ones a
/// stop may leave a gap. Service managers wait longer than that.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(5);

/// For a thread to end once it was told to.
const END_DEADLINE: Duration = Duration::from_secs(3);

/// What operators say.
enum Command {
    Order(
        RouterOrder,
        oneshot::Sender<Result<VrrpStatus, RouterChangeError>>,
    ),
    /// Hands the roles over, gives them up, and ends.
    Stop,
    /// Gives them up at once, and ends.
    End,
}

/// A plan with its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Numbered {
    number: u64,
    plan: Plan,
}

/// What the applier is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// The number of the plan that it follows from.
    number: u64,
    plan: Plan,
    /// All addresses of routers, with the lengths of their prefixes, and whether they should be there.
    vips: BTreeMap<IpAddr, (u8, Hold)>,
    /// All virtual MAC addresses of routers, also of those that are no more, and whether they should be
    /// there.
    macs: BTreeMap<VirtualMac, Hold>,
}

/// Whether an address should be there, be it one of IP or of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Here,
    NotHere,
}

/// What the applier has found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Placed {
    /// Whether it has looked at all so far.
    has_looked: bool,
    /// The number of the last plan that was carried out.
    number: u64,
    vips: BTreeMap<IpAddr, VipState>,
    /// How often each was put there.
    comings: BTreeMap<IpAddr, u64>,
    /// Those that could not be put there.
    refused: BTreeSet<IpAddr>,
    links: Links,
    /// Index and MAC address of each interface.
    ends: BTreeMap<String, (u32, [u8; 6])>,
}

/// The daemon's end of the virtual routers.
pub(super) struct Routers {
    plan: watch::Sender<Numbered>,
    forwarding: watch::Sender<Forwarding>,
    report: watch::Sender<Report>,
    threads: Option<Threads>,
    /// The interface that the program is attached to, by its index.
    carrier: u32,
    /// The directory for what has to be put back.
    notes: PathBuf,
    /// Why a thread ended.
    ended: mpsc::Sender<anyhow::Error>,
    /// What an earlier process has left, and the driver's from its start on.
    leases: Option<Leases>,
    leased: Leased,
    /// Addresses that the host has without a router, and that the next plan may have one for.
    alone: BTreeSet<IpAddr>,
    journal: Journal,
}

/// Who has the VIPs, as the routers' own thread says: the event loop hears of it a moment later.
#[derive(Clone)]
pub(super) struct Roles(watch::Receiver<Report>);

/// Driver and applier, while they run.
struct Threads {
    commands: mpsc::Sender<Command>,
    placed: watch::Receiver<Placed>,
    driver: CancellationToken,
    applier: CancellationToken,
    log: JoinHandle<()>,
}

impl Routers {
    /// None so far, for the interface of that index; `notes` is a directory for what has to be put back,
    /// and `ended` is told if a thread of theirs ends.
    pub(super) fn new(
        carrier: u32,
        notes: &Path,
        ended: mpsc::Sender<anyhow::Error>,
        leases: Leases,
        journal: Journal,
    ) -> Self {
        Self {
            leased: leased(&leases),
            leases: Some(leases),
            alone: BTreeSet::new(),
            plan: watch::Sender::new(Numbered::default()),
            forwarding: watch::Sender::new(Forwarding::default()),
            report: watch::Sender::new(Report::default()),
            threads: None,
            carrier,
            notes: notes.to_owned(),
            ended,
            journal,
        }
    }

    /// Has the routers be those of `config`: what stays as it was is not disturbed.
    ///
    /// # Errors
    ///
    /// If threads are needed, and cannot be started.
    pub(super) fn follow(&mut self, config: &Config) -> anyhow::Result<()> {
        let mut plan = Plan::of(config);
        plan.inherited = std::mem::take(&mut self.alone);
        let has_macs = |leases: &Leases| leases.macs().next().is_some();
        let is_nothing_left = !self.leases.as_ref().is_some_and(has_macs);
        if self.threads.is_none() && plan.routers.is_empty() && is_nothing_left {
            Discretion::undo(config.interface(), &self.notes);
            if let Some(leases) = &mut self.leases {
                // Those of a process that had some would keep this host from answering.
                leases.follow(&BTreeMap::new())?;
            }
            self.set_plan(plan);
            return Ok(());
        }
        self.set_plan(plan);
        if self.threads.is_none() {
            self.start()?;
        }
        Ok(())
    }

    /// Takes in which addresses the host has without a router: a router that gets them by the next plan
    /// goes on holding them. One that only should be there is another host's to answer for.
    pub(super) fn inherit_from(&mut self, alone: impl Iterator<Item = IpAddr>) {
        self.alone = alone.collect();
    }

    /// Takes the addresses off the routers that are none of a router's in `config`, and stops those
    /// that have no other; waits until they are gone: addresses go before their services do.
    ///
    /// # Errors
    ///
    /// If it stays.
    pub(super) async fn retire(&mut self, config: &Config) -> Result<(), ReloadError> {
        let Some(threads) = &self.threads else {
            return Ok(());
        };
        let next = Plan::of(config);
        let stays: BTreeMap<IpAddr, u8> = next.held_by_routers().collect();
        let before = self.plan.borrow().plan.clone();
        let mut plan = before.clone();
        // One that loses an address keeps its role, and what an operator said of it.
        let kept = |router: &Vrrp| router.retaining(|vip| stays.contains_key(vip));
        plan.routers = before.routers.iter().filter_map(kept).collect();
        if plan == before {
            return Ok(());
        }
        let mut placed = threads.placed.clone();
        let number = self.set_plan(plan);
        let done = placed.wait_for(|placed| placed.number >= number);
        match time::timeout(REMOVAL_DEADLINE, done).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReloadError::Routers),
        }
    }

    /// Says what the balancer can do.
    pub(super) fn tell(&self, forwarding: Forwarding) {
        self.forwarding.send_if_modified(|known| {
            let is_new = *known != forwarding;
            *known = forwarding;
            is_new
        });
    }

    /// Has an operator's order carried out.
    pub(super) fn order(
        &self,
        order: RouterOrder,
        answer: oneshot::Sender<Result<VrrpStatus, RouterChangeError>>,
    ) {
        let Some(threads) = &self.threads else {
            let unknown = RouterChangeError::Unknown { name: order.name };
            return drop(answer.send(Err(unknown)));
        };
        if let Err(error) = threads.commands.try_send(Command::Order(order, answer))
            && let Command::Order(_, answer) = error.into_inner()
        {
            drop(answer.send(Err(RouterChangeError::Busy)));
        }
    }

    /// How the routers are.
    pub(super) fn status(&self) -> VrrpStatus {
        self.threads
            .as_ref()
            .map(|_threads| view::status(&self.report.borrow()))
            .unwrap_or_default()
    }

    /// Where an address of a router is; `None` for those of no router.
    pub(super) fn vip_state(&self, vip: IpAddr) -> Option<VipState> {
        let threads = self.threads.as_ref()?;
        let is_ours = self.is_ours(vip);
        is_ours.then(|| {
            let placed = threads.placed.borrow();
            placed.vips.get(&vip).copied().unwrap_or(VipState::Absent)
        })
    }

    /// The addresses of routers that are not Active.
    pub(super) fn absent(&self) -> BTreeSet<IpAddr> {
        let plan = self.plan.borrow();
        let mut absent: BTreeSet<IpAddr> =
            plan.plan.held_by_routers().map(|(vip, _)| vip).collect();
        for vip in actives(&self.report.borrow()) {
            absent.remove(vip);
        }
        absent
    }

    /// What they are at any moment.
    pub(super) fn roles(&self) -> Roles {
        Roles(self.report.subscribe())
    }

    /// The addresses of all routers.
    pub(super) fn vips(&self) -> BTreeSet<IpAddr> {
        let plan = self.plan.borrow();
        plan.plan.held_by_routers().map(|(vip, _)| vip).collect()
    }

    /// Whether an address was left by an earlier process that was Active, for a router of `config` that
    /// goes on with the role if it is not too late by then.
    pub(super) fn inherit(&self, vip: IpAddr, config: &Config) -> bool {
        self.leased.has(vip, config.vrrps())
    }

    /// Whether an address is a router's, and nobody else's to add or remove.
    pub(super) fn is_ours(&self, vip: IpAddr) -> bool {
        let plan = self.plan.borrow();
        plan.plan.held_by_routers().any(|(ours, _)| ours == vip)
    }

    /// Has all roles given up at once, as nothing is forwarded any more: [`Self::stop`] then waits
    /// for no successor.
    pub(super) fn abandon(&self) {
        if let Some(threads) = &self.threads
            && threads.commands.try_send(Command::End).is_err()
        {
            warn!("virtual routers are busy, and will wait for their successors");
        }
    }

    /// Hands all roles over, if there is anybody to take them, and ends.
    pub(super) async fn stop(&mut self) {
        let Some(threads) = self.threads.take() else {
            return;
        };
        let handed_over = async {
            if threads.commands.send(Command::Stop).await.is_ok() {
                threads.driver.cancelled().await;
            }
        };
        let patience = HAND_OVER_DEADLINE + END_DEADLINE;
        if time::timeout(patience, handed_over).await.is_err() {
            warn!("virtual routers did not end in time");
        }
        if time::timeout(END_DEADLINE, threads.applier.cancelled())
            .await
            .is_err()
        {
            warn!("addresses of virtual routers could not be removed in time");
        }
        drop(time::timeout(END_DEADLINE, threads.log).await);
    }

    fn set_plan(&self, plan: Plan) -> u64 {
        let mut number = 0;
        self.plan.send_modify(|numbered| {
            numbered.plan = plan;
            numbered.number += 1;
            number = numbered.number;
        });
        number
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let (commands, orders) = mpsc::channel(COMMANDS);
        let (notices, told) = Notices::new();
        let (wanted_sender, wanted) = watch::channel(Wanted::default());
        let (placed_sender, placed) = watch::channel(Placed::default());
        let (driver_end, applier_end) = (CancellationToken::new(), CancellationToken::new());
        let (sockets, opener) = sockets::channel();
        let ends = driver::Ends {
            plan: self.plan.subscribe(),
            forwarding: self.forwarding.subscribe(),
            commands: orders,
            placed: placed.clone(),
            wanted: wanted_sender,
            report: self.report.clone(),
            notices: notices.clone(),
            leases: self.leases.take(),
        };
        let driver = Driver::new(ends, sockets);
        self.spawn(
            "vrrp-sockets",
            CancellationToken::new(),
            notices.clone(),
            async {
                opener.run().await;
                Ok(())
            },
        )?;
        self.spawn("vrrp", driver_end.clone(), notices.clone(), driver.run())?;
        let (carrier, for_applier) = (self.carrier, notices.clone());
        let notes = self.notes.clone();
        self.spawn("vrrp-addresses", applier_end.clone(), notices, async move {
            Applier::new(carrier, notes, wanted, placed_sender, for_applier)?
                .run()
                .await?;
            Ok(())
        })?;
        self.threads = Some(Threads {
            commands,
            placed,
            driver: driver_end,
            applier: applier_end,
            log: tokio::spawn(notices::tell(told, self.journal.clone())),
        });
        Ok(())
    }

    /// Runs something on a thread of its own. `end` is cancelled with it.
    fn spawn(
        &self,
        name: &'static str,
        end: CancellationToken,
        notices: Notices,
        body: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> anyhow::Result<()> {
        let ended = self.ended.clone();
        let run = move || {
            let refusal = host::run_first().err().map(|error| error.to_string());
            notices.tell(Notice::Started { name, refusal });
            let outcome = catch_unwind(AssertUnwindSafe(|| run_alone(body)));
            let cause = match outcome {
                Ok(Ok(())) => anyhow!("thread {name} ended"),
                Ok(Err(error)) => error.context(format!("thread {name} failed")),
                Err(_panic) => anyhow!("thread {name} panicked"),
            };
            // Nobody is told who has stopped it.
            drop(ended.try_send(cause));
            end.cancel();
        };
        let builder = thread::Builder::new().name(name.to_owned());
        builder.spawn(run).context("cannot start a thread")?;
        Ok(())
    }
}

impl Roles {
    /// Whether an address is that of a router that is Active here.
    pub(super) fn is_active(&self, vip: IpAddr) -> bool {
        actives(&self.0.borrow()).any(|active| *active == vip)
    }

    /// Waits until something about the routers has changed.
    ///
    /// # Errors
    ///
    /// If there are none any more.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }
}

/// The addresses of the routers that are Active.
fn actives(report: &Report) -> impl Iterator<Item = &IpAddr> {
    let actives = report.routers.iter();
    let actives = actives.filter(|router| router.role == Role::Active);
    actives.flat_map(|router| router.vrrp.vips())
}

/// What an earlier process has said of addresses that it had.
pub(super) fn leased(leases: &Leases) -> Leased {
    let running = leases.running();
    running.map(|it| (it.vip, it.vrid, it.until)).collect()
}

/// Runs something to its end on a runtime of this thread.
fn run_alone(body: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut builder = runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    runtime.context("cannot start a runtime")?.block_on(body)
}
