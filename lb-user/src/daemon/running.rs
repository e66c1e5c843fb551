//! The event loop, and what it does at each event.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use console::service::Manager;
use dashboard::Counters;
use lb_common::abi::Forward;
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant, Interval, MissedTickBehavior},
};
use tracing::warn;

use super::{
    addresses,
    engine::{Engine, nat_ports},
    inputs::{Event, Inputs},
    neighbours::Found,
    notify::Notifiers,
    pace::Pace,
    prober::{Answer, Probers},
    sources,
    state::StateDir,
    sync::Syncer,
    trackers::Trackers,
    vips::Vips,
    vrrp::Routers,
};
use crate::{
    config::{
        self,
        model::{Backend, Config, ReloadBlockers},
    },
    control::{
        BackendStatus, Change, ChangeError, Departure, Flows, Lasting, Leaving, Order, ReloadError,
        Reloaded, Request,
    },
    core::{
        balancer::{Admin, BackendKey, SelectError},
        event,
    },
    io::{
        datapath::{AttachedMode, Datapath},
        host,
        probe::{ProbeFailure, Stage},
    },
};

/// How soon a failed change of the maps is tried again, and how often floods are looked for and ramps go
/// on.
const RETRY: Duration = Duration::from_secs(1);

/// How often the interface's addresses are looked at without being asked to, and the VIPs' lifetime
/// is renewed.
const RECHECK: Duration = Duration::from_secs(5);

/// The longest wait for the first answers of backends before the VIPs are assigned: who takes
/// longer than that to answer is not healthy.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// The daemon while it runs.
pub(super) struct Running {
    pub(super) engine: Engine<Datapath>,
    pub(super) vips: Vips,
    pub(super) notifiers: Notifiers,
    pub(super) dashboard: Option<Arc<Counters>>,
    pub(super) trackers: Trackers,
    pub(super) routers: Routers,
    pub(super) syncer: Option<Syncer>,
    pub(super) pace: Pace,
    pub(super) state: StateDir,
    pub(super) probers: Probers,
    pub(super) wanted: watch::Sender<BTreeSet<IpAddr>>,
    pub(super) doubts: mpsc::Sender<IpAddr>,
    pub(super) flows: watch::Receiver<Flows>,
    pub(super) path: PathBuf,
    pub(super) mode: AttachedMode,
    pub(super) started: Instant,
    pub(super) generation: u64,
    pub(super) last_error: Option<String>,
    /// What becomes of traffic in the end.
    pub(super) departure: Departure,
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Running {
    /// Handles events until told to stop.
    ///
    /// # Errors
    ///
    /// If the VIPs cannot be assigned at the start, or a task ends that must not.
    pub(super) async fn serve(
        &mut self,
        inputs: &mut Inputs,
        manager: &Manager,
    ) -> anyhow::Result<()> {
        if self.look_around(inputs).await? == Flow::Stop {
            return Ok(());
        }
        self.take_over().await?;
        inputs.requests.ready.send_replace(true);
        self.engine.journal.tell(event::Event::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        manager.ready();
        let (mut retry, mut recheck) = (ticker(RETRY), ticker(RECHECK));
        let mut pulse = ticker(manager.pulse().unwrap_or(RECHECK));
        loop {
            tokio::select! {
                event = inputs.next() => {
                    if self.handle(event, inputs).await? == Flow::Stop {
                        break;
                    }
                }
                _ = retry.tick() => {
                    self.probers.check()?;
                    self.engine.look_for_attacks(self.started.elapsed());
                    self.engine.advance_ramps(self.started.elapsed());
                    self.engine.look_for_full();
                    self.engine.note_drained();
                    if self.engine.dismiss_drained() {
                        self.follow_config();
                    }
                }
                _ = recheck.tick() => self.recheck().await?,
                // From here and nowhere else: a loop that hangs is to be missed.
                _ = pulse.tick() => manager.alive(),
            }
            self.note_absent();
            self.engine.reconcile();
            self.lead().await?;
        }
        inputs.requests.ready.send_replace(false);
        Ok(())
    }

    /// Waits until the backends have been asked once, so that the first packets find them.
    async fn look_around(&mut self, inputs: &mut Inputs) -> anyhow::Result<Flow> {
        let mut deadline = Instant::now();
        if !self.pace.has_predecessor {
            deadline += FIRST_LOOK;
        }
        while !self.engine.has_looked_around() {
            let Ok(event) = time::timeout_at(deadline, inputs.next()).await else {
                break;
            };
            if self.handle(event, inputs).await? == Flow::Stop {
                return Ok(Flow::Stop);
            }
            self.engine.reconcile();
        }
        sources::warn_of_trouble(&self.engine);
        for service in self.engine.services_down() {
            let service = service.to_owned();
            self.engine
                .journal
                .tell(event::Event::ServiceDown { service });
        }
        Ok(Flow::Continue)
    }

    async fn handle(&mut self, event: Event, inputs: &mut Inputs) -> anyhow::Result<Flow> {
        self.note_absent();
        match event {
            Event::Request(Request::Stop(departure, answer)) => {
                self.departure = departure;
                let forwards = departure == Departure::Keep && self.engine.maps.is_pinned();
                let pid = std::process::id();
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(Leaving { pid, forwards });
                return Ok(Flow::Stop);
            }
            Event::Request(request) => self.handle_request(request).await,
            Event::Answer(answer) => {
                self.handle_answer(answer);
                // A burst is one change of the maps.
                while let Ok(answer) = inputs.answers.try_recv() {
                    self.handle_answer(answer);
                }
            }
            Event::Found(found) => {
                self.handle_found(found);
                while let Ok(found) = inputs.found.try_recv() {
                    self.handle_found(found);
                }
            }
            Event::Swept(findings) => self.engine.handle_findings(*findings),
            Event::Told(told) => {
                self.engine.handle_told(told);
                while let Ok(told) = inputs.told.try_recv() {
                    self.engine.handle_told(told);
                }
            }
            // Routers are told after each event.
            Event::Tracked => {}
            Event::Hangup => drop(self.reload().await),
            Event::Stop => return Ok(Flow::Stop),
            Event::Ended(error) => return Err(error),
        }
        Ok(Flow::Continue)
    }

    fn handle_found(&mut self, found: Found) {
        let Found {
            address,
            next_hop,
            mtu,
            gateway,
        } = found;
        if let Some(gateway) = gateway {
            for service in self.engine.services_of(address, Forward::Dsr) {
                warn!(service, backend = %address, %gateway,
                    "backend is behind a gateway, where dsr cannot reach it");
            }
        }
        if next_hop.interface != self.vips.interface_index() {
            for service in self.engine.services_of(address, Forward::Nat) {
                warn!(service, backend = %address,
                    "backend is behind another interface, where nat gets no replies: it is left out");
            }
        }
        if next_hop.interface == self.vips.interface_index() {
            // Found just now, so it is the interface's own.
            self.engine
                .handle_interface(next_hop.interface, next_hop.source_mac);
        }
        let known = self.engine.narrow_tunnels();
        self.engine.handle_next_hop(address, next_hop, mtu);
        for narrow in self.engine.narrow_tunnels().difference(&known) {
            narrow.warn();
        }
    }

    fn handle_answer(&mut self, answer: Answer) {
        if !self.probers.is_current(&answer) {
            return;
        }
        if let Err(ProbeFailure::TimedOut {
            stage: Stage::Connect,
            ..
        }) = &answer.result
        {
            let _ = self.doubts.try_send(answer.target.ip());
        }
        self.engine
            .handle_probe(&answer.backend, answer.question, answer.result);
    }

    /// Whoever asked may have gone meanwhile, which changes nothing.
    async fn handle_request(&mut self, request: Request) {
        match request {
            Request::Status(answer) => drop(answer.send(self.status())),
            Request::Reload(answer) => drop(answer.send(self.reload().await)),
            Request::Change(order, answer) => drop(answer.send(self.change(&order))),
            Request::Trace(order, answer) => {
                let interface = self.vips.interface_index();
                drop(answer.send(self.engine.trace(&order, interface)));
            }
            Request::Router(order, answer) => self.routers.order(order, answer),
            Request::Notify(name, answer) => self.notifiers.test(name.as_deref(), answer),
            // The caller has seen to it.
            Request::Stop(..) => {}
        }
    }

    async fn reload(&mut self) -> Result<Reloaded, ReloadError> {
        let outcome = self.try_reload().await;
        match &outcome {
            Ok(Reloaded { generation }) => {
                self.engine.counters.reloads_ok += 1;
                self.last_error = None;
                self.engine.journal.tell(event::Event::Reloaded {
                    generation: *generation,
                });
            }
            Err(failure) => {
                self.engine.counters.reloads_failed += 1;
                let error = failure.to_string();
                self.last_error = Some(error.clone());
                self.engine
                    .journal
                    .tell(event::Event::ReloadFailed { error });
            }
        }
        outcome
    }

    async fn try_reload(&mut self) -> Result<Reloaded, ReloadError> {
        let new = config::load(&self.path).map_err(ReloadError::Config)?;
        let blockers = self.engine.balancer.config().reload_blockers(&new);
        if !blockers.is_empty() {
            return Err(ReloadError::NeedsRestart(ReloadBlockers(blockers)));
        }
        let successor = self.engine.successor(new);
        let new = successor.map_err(ReloadError::NoRoom)?;
        if let Some(ports) = nat_ports(&new) {
            host::check_ports(ports).map_err(ReloadError::Ports)?;
        }
        // Addresses go before their services do, and come after them.
        if let Err(error) = self.clear(&new).await {
            self.pace.is_behind = true;
            drop(self.ensure_vips().await);
            return Err(error);
        }
        self.engine.handle_config(new);
        sources::find(&mut self.engine, &self.vips).await;
        sources::warn_of_trouble(&self.engine);
        self.note_absent();
        let applied = self.engine.try_reconcile();
        self.follow_config();
        self.pace.is_behind = true;
        self.generation += 1;
        let assigned = self.ensure_vips().await;
        applied.map_err(ReloadError::Maps)?;
        assigned.map_err(ReloadError::Vips)?;
        Ok(Reloaded {
            generation: self.generation,
        })
    }

    /// Removes the addresses that `new` does not have, or does not have held. One that gets a router
    /// stays, and is the router's to keep or to remove.
    async fn clear(&mut self, new: &Config) -> Result<(), ReloadError> {
        if !self.pace.is_behind {
            let config = self.engine.balancer.config();
            self.routers.inherit_from(self.vips.held(config));
        }
        self.routers.retire(new).await?;
        let is_known = self.vips.marks_are_kept();
        let is_inherited =
            |it| is_known && new.vrrps().iter().any(|vrrp| vrrp.vips().contains(&it));
        let removed = self
            .vips
            .remove_unwanted(new, |it| self.routers.is_ours(it) || is_inherited(it))
            .await;
        removed.map_err(ReloadError::Addresses)
    }

    /// Has everybody else go by the configuration in force.
    fn follow_config(&mut self) {
        let config = self.engine.balancer.config();
        if let Err(error) = self.state.follow(config) {
            warn!(%error, "states of backends that went cannot be taken off the file");
        }
        self.probers.follow(config);
        self.notifiers.follow(config);
        self.wanted.send_replace(addresses(config));
    }

    fn change(&mut self, order: &Order) -> Result<BackendStatus, ChangeError> {
        if let Change::Weight(weight) = order.change
            && weight > Backend::MAX_WEIGHT
        {
            return Err(ChangeError::Weight {
                weight,
                max: Backend::MAX_WEIGHT,
            });
        }
        let key = self.engine.balancer.select(&order.backend)?;
        let is_leaving = self.engine.balancer.is_leaving(&key);
        match order.change {
            Change::Admin(Admin::Enabled) | Change::Weight(_) if is_leaving => {
                return Err(ChangeError::Leaving { backend: key });
            }
            // It does already, and if it returns to the file it is to be used.
            Change::Admin(Admin::Draining) if is_leaving => return self.tell_of(&key, order),
            Change::Admin(_) | Change::Weight(_) => {}
        }
        self.engine.handle_change(&key, order.change);
        self.note_absent();
        let applied = self.engine.try_reconcile();
        self.engine.journal.tell(event::Event::BackendOrdered {
            service: key.service().to_owned(),
            backend: key.backend().to_owned(),
            change: order.change.to_string(),
            lasting: order.lasting == Lasting::Kept,
        });
        let kept = self
            .state
            .keep(self.engine.balancer.admin(), &key, order.lasting);
        kept.map_err(ChangeError::NotKept)?;
        applied.map_err(ChangeError::Maps)?;
        self.tell_of(&key, order)
    }

    fn tell_of(&self, key: &BackendKey, order: &Order) -> Result<BackendStatus, ChangeError> {
        let unknown = SelectError::Unknown {
            name: order.backend.clone(),
            known: Vec::new(),
        };
        self.engine
            .backend_status(key)
            .ok_or(ChangeError::Select(unknown))
    }
}

fn ticker(period: Duration) -> Interval {
    let mut ticker = time::interval(period);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}
