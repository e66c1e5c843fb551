//! The daemon: from a configuration to balanced packets, and back to a host as it was found.
//!
//! ```text
//!   API, metrics --Request-->  +---------------------+ --MapOp--> maps
//!   probers -----Answer----->  | event loop:         |
//!   neighbours --Found------>  | Balancer + Datapath | --> VIPs on the interface
//!   signals ---------------->  +---------------------+ --> plans of probers and neighbours
//!                                                      --> virtual routers, see `vrrp`
//! ```
//! One task, the loop in `running`, owns all decisions and the maps; the others only do I/O and
//! talk to it over bounded channels. One of them ending is the end of the daemon.
//!
//! Start: limits, state directory, sockets, program and maps filled, attached, first look at the
//! backends, VIPs, virtual routers, ready. If an earlier daemon has left its program, see `adopt.rs`: the
//! maps are filled already, and it is replaced. Stop: API, virtual routers, probes; VIPs and program
//! stay, or go in this order. Each step has its deadline.

mod adopt;
mod attacks;
mod engine;
mod inputs;
mod lead;
mod ledger;
mod maps;
mod neighbours;
mod notify;
mod pace;
pub(crate) mod prober;
mod running;
mod sources;
mod state;
mod status;
mod sweep;
mod sync;
#[cfg(test)]
mod tests;
mod trace;
mod trackers;
mod vips;
mod vrrp;

pub use adopt::{Left, take_off, take_off_orphans};

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use console::service::Manager;
use lb_common::abi::OwnMac;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    engine::{Engine, Told, nat_ports},
    inputs::{Inputs, Signals},
    neighbours::Follower,
    notify::Notifiers,
    pace::Pace,
    prober::Probers,
    running::Running,
    state::StateDir,
    sweep::Reports,
    sync::{Syncer, Tap},
    trackers::Trackers,
    vips::Vips,
    vrrp::Routers,
};
use crate::{
    api,
    config::model::{self, Config},
    control::{self, Departure},
    core::{
        event::Event,
        image::{MapOp, Setting},
    },
    io::{
        datapath::{
            Attached, AttachedMode, Datapath, DatapathConfig, EVENTS, FlowEvents, Leases, Limits,
            Recorder, Sweeper, XdpMode,
        },
        host,
        netlink::Netlink,
    },
    journal::Journal,
};

/// For the servers to finish the answers that they are at.
const TASKS_DEADLINE: Duration = Duration::from_secs(2);

/// Doubts that may wait for the follower; more are dropped: the next failed probe has them again.
const DOUBTS: usize = 64;

/// The tasks that must not end before the daemon does, by name.
type Tasks = JoinSet<(&'static str, anyhow::Result<()>)>;

/// Runs until told to stop.
///
/// # Errors
///
/// If something needed at the start is not to be had, or a task ends that must not.
pub async fn run(path: PathBuf, config: Config) -> anyhow::Result<()> {
    let signals = Signals::listen().context("cannot listen for signals")?;
    let manager = Manager::find().unwrap_or_else(|error| {
        warn!(%error, "the service manager cannot be told that the daemon works");
        Manager::nobody()
    });
    host::raise_limits();
    let state = StateDir::open(config.state_dir(), config.interface())?;
    let servers = bind(&config).await?;
    if let Some(ports) = nat_ports(&config) {
        host::check_ports(ports)?;
    }
    let netlink = Netlink::open()?;
    let interface = netlink.interface(config.interface()).await?;
    let journal = Journal::default();
    let mut vips = Vips::new(netlink, interface, journal.clone());
    let balancing = balance(config, state, &mut vips, journal).await?;
    if balancing.engine.maps.is_pinned() {
        vips.outlive();
    }
    let (mut running, mut inputs, stops) = connect(path, balancing, vips, servers, signals)?;
    let outcome = running.serve(&mut inputs, &manager).await;
    manager.stopping();
    shut_down(running, inputs, &stops).await;
    outcome
}

/// The program, attached, with all that decides what it does.
struct Balancing {
    engine: Engine<Datapath>,
    sweeper: Sweeper,
    recorder: Recorder,
    leases: Leases,
    events: FlowEvents,
    mode: AttachedMode,
    state: StateDir,
    has_predecessor: bool,
}

/// Loads the program, fills its maps and attaches it. No VIP is there yet to bring it packets.
async fn balance(
    config: Config,
    mut state: StateDir,
    vips: &mut Vips,
    journal: Journal,
) -> anyhow::Result<Balancing> {
    if config.seed().is_none() && !config.vrrps().is_empty() {
        warn!("without `seed` other nodes send clients to other backends than this one");
    }
    let pins = adopt::pins(&config, vips.interface_index())?;
    let seed = adopt::seed(&config, pins.as_ref(), &state)?;
    let settings = datapath_config(&config, seed);
    let mut datapath = match pins {
        Some(pins) => Datapath::open_pinned(&settings, pins)?,
        None => Datapath::open(&settings)?,
    };
    let sweeper = datapath
        .take_sweeper()
        .context("a fresh datapath has no flow tables")?;
    let predecessor = adopt::picture(&mut datapath)?;
    let config = adopt::with_remnants(config, predecessor.as_ref(), &state)?;
    let recorder = datapath
        .take_recorder()
        .context("a fresh datapath has no flow tables")?;
    let leases = datapath
        .take_leases()
        .context("a fresh datapath has no leases")?;
    let leased = vrrp::leased(&leases);
    let events = datapath
        .take_events()
        .context("a fresh datapath has no ring of events")?;
    let admin = state.admin();
    let mut engine = Engine::new(config, admin, datapath, journal);
    let has_predecessor = predecessor.is_some();
    if let Some(image) = predecessor {
        engine.adopt(image, sweeper.has_room()?)?;
        // Before their services go. No router runs yet, but one may go on with its role.
        let config = engine.balancer.config();
        let stale = vips.remove_unwanted(config, |it| leased.has(it, config.vrrps()));
        stale.await.context("an address cannot be removed")?;
    }
    engine.handle_addresses(vips.own_addresses());
    let (index, mac) = vips.carrier();
    engine.handle_interface(index, mac);
    sources::find(&mut engine, vips).await;
    engine
        .try_reconcile()
        .context("the maps cannot be filled")?;
    let Attached {
        mode,
        is_successor,
        refusal,
    } = engine.maps.attach()?;
    let config = engine.balancer.config();
    let interface = config.interface();
    let mode_label = mode.label();
    if is_successor {
        info!(
            interface,
            mode = mode_label,
            "program replaced that was there"
        );
    } else {
        info!(interface, mode = mode_label, "program attached");
    }
    if let Some(refusal) = refusal {
        let reason = format!("{:#}", anyhow::Error::from(refusal));
        warn!(
            interface,
            reason, "native mode was refused, generic mode is slower"
        );
    }
    Ok(Balancing {
        engine,
        sweeper,
        recorder,
        leases,
        events,
        mode,
        state,
        has_predecessor,
    })
}

/// What ends the tasks.
struct Stops {
    /// Most of them.
    first: CancellationToken,
    /// Those that tell the peer of flows, which begin here until another host has the VIPs.
    last: CancellationToken,
}

/// Starts the tasks and joins them to the loop.
fn connect(
    path: PathBuf,
    balancing: Balancing,
    vips: Vips,
    servers: api::Servers,
    signals: Signals,
) -> anyhow::Result<(Running, Inputs, Stops)> {
    let Balancing {
        engine,
        sweeper,
        recorder,
        leases,
        events,
        mode,
        mut state,
        has_predecessor,
    } = balancing;
    let config = engine.balancer.config();
    let (stop, last) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = Tasks::new();
    let (handle, requests) = control::channel(engine.journal.clone());
    let dashboard = servers.dashboard_counters();
    servers.spawn(&handle, &stop, &mut tasks);
    let (wanted, wanted_receiver) = watch::channel(addresses(config));
    let (doubts, doubts_receiver) = mpsc::channel(DOUBTS);
    let (follower, found) = Follower::new(wanted_receiver, doubts_receiver)?;
    spawn(&mut tasks, "neighbours", &stop, async {
        Ok(follower.run().await?)
    });
    let sights = engine.sights();
    let (ended_sender, ended) = mpsc::channel(1);
    let journal = engine.journal.clone();
    let routers = Routers::new(
        vips.interface_index(),
        config.state_dir(),
        ended_sender,
        leases,
        journal,
    );
    let handles = sync::Handles {
        recorder,
        events,
        roles: routers.roles(),
        sights: engine.sights(),
    };
    let (syncer, tap, told) = synchronize(&engine, handles, &last, &mut tasks)?;
    let (findings_sender, findings) = mpsc::channel(1);
    let (flows_sender, flows) = watch::channel(control::Flows::default());
    spawn(
        &mut tasks,
        "sweep",
        &last,
        sweep::run(
            sweeper,
            sights,
            Reports {
                flows: flows_sender,
                findings: findings_sender,
                tap,
            },
        ),
    );
    let (mut probers, answers) = Probers::new();
    probers.follow(config);
    if let Err(error) = state.keep_names(config) {
        warn!(%error, "names of backends cannot be kept for the next start");
    }
    let (mut trackers, tracked) = Trackers::new(engine.journal.clone());
    trackers.follow(config);
    let mut notifiers = Notifiers::new(engine.journal.clone());
    notifiers.follow(config);
    let running = Running {
        engine,
        notifiers,
        dashboard,
        trackers,
        vips,
        routers,
        syncer,
        pace: Pace::new(has_predecessor),
        state,
        probers,
        wanted,
        doubts,
        flows,
        path,
        mode,
        started: time::Instant::now(),
        generation: 1,
        last_error: None,
        departure: Departure::Keep,
    };
    Ok((
        running,
        Inputs {
            requests,
            answers,
            found,
            findings,
            told,
            tracked,
            signals,
            tasks,
            ended,
        },
        Stops { first: stop, last },
    ))
}

/// Starts what keeps this node and its peer up to date, if there is one.
fn synchronize(
    engine: &Engine<Datapath>,
    handles: sync::Handles,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> anyhow::Result<(Option<Syncer>, Option<Tap>, mpsc::Receiver<Told>)> {
    let config = engine.balancer.config();
    let Some(peer) = config.sync() else {
        return Ok((None, None, mpsc::channel(1).1));
    };
    let most = config.limits().flows as usize;
    let keys = engine.maps.hash_keys();
    let parts = sync::parts(peer, handles, &keys, most, &engine.journal);
    let parts = parts.context("new flows cannot be waited for")?;
    spawn(tasks, "sync-out", stop, parts.outgoing.run());
    spawn(tasks, "sync-in", stop, parts.incoming.run());
    Ok((Some(parts.syncer), Some(parts.tap), parts.told))
}

/// What has to be had before anything is changed on the host.
async fn bind(config: &Config) -> anyhow::Result<api::Servers> {
    let group = config
        .api()
        .group()
        .map(console::socket::group_id)
        .transpose();
    let group = group.context("api.group cannot be used")?;
    let mut servers = api::Servers::bind(config.api().socket(), config.api().mode(), group).await?;
    if let Some(listen) = config.metrics_listen() {
        servers.bind_metrics(listen).await?;
    }
    if let Some(dashboard) = config.dashboard() {
        servers.open_dashboard(dashboard).await?;
    }
    Ok(servers)
}

fn datapath_config(config: &Config, seed: [u8; 16]) -> DatapathConfig {
    DatapathConfig {
        interface: config.interface().to_owned(),
        mode: match config.xdp_mode() {
            model::XdpMode::Auto => XdpMode::Auto,
            model::XdpMode::Native => XdpMode::Native,
            model::XdpMode::Generic => XdpMode::Generic,
        },
        seed,
        limits: Limits::from(config.limits()),
        events: EVENTS * u32::from(config.sync().is_some()),
    }
}

/// The backends whose next hops are to be followed.
fn addresses(config: &Config) -> BTreeSet<IpAddr> {
    config
        .backends()
        .map(|(_, backend)| backend.address())
        .collect()
}

/// Starts a task that goes on until the stop.
fn spawn(
    tasks: &mut Tasks,
    name: &'static str,
    stop: &CancellationToken,
    task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    let stop = stop.clone();
    tasks.spawn(async move { (name, stop.run_until_cancelled(task).await.unwrap_or(Ok(()))) });
}

/// Ends all that this process does; puts the host back as it was found if traffic is to end, or if
/// the program cannot go on alone.
async fn shut_down(running: Running, inputs: Inputs, stops: &Stops) {
    let Running {
        mut engine,
        mut vips,
        mut routers,
        mut probers,
        notifiers,
        pace,
        departure,
        ..
    } = running;
    let Inputs {
        requests,
        findings,
        mut tasks,
        ..
    } = inputs;
    engine.journal.tell(Event::Stopping {});
    // Nobody is to wait for more than that.
    engine.journal.close();
    // Whoever still asks is told that the daemon is stopping, and no walk waits for its findings to be
    // taken.
    drop((requests, findings));
    stops.first.cancel();
    // The program forwards until a successor is there, and until nobody sends packets here.
    routers.stop().await;
    stops.last.cancel();
    let end = async { while tasks.join_next().await.is_some() {} };
    if time::timeout(TASKS_DEADLINE, end).await.is_err() {
        warn!("tasks did not end in time");
        tasks.abort_all();
    }
    probers.stop();
    notifiers.stop().await;
    let is_pinned = engine.maps.is_pinned();
    // Nobody's packets come yet to a program that is new.
    let is_in_use = pace.has_taken_over || pace.has_predecessor;
    if departure == Departure::Keep && is_pinned && is_in_use {
        // Nobody follows the interface's address any more.
        let all = MapOp::Set(Setting::OwnMac(OwnMac::UNKNOWN));
        if let Err(error) = engine.maps.apply(&[all]) {
            let error = format!("{:#}", anyhow::Error::from(error));
            warn!(error, "the interface must keep its MAC address meanwhile");
        }
        info!("stopped; the program goes on forwarding until `tidegate stop --detach`");
        return;
    }
    if let Err(error) = vips.release().await {
        let error = format!("{error:#}");
        warn!(error, is_pinned, "program stays if it is pinned");
        if is_pinned {
            return;
        }
    }
    if let Err(error) = engine.maps.detach() {
        let error = format!("{:#}", anyhow::Error::from(error));
        warn!(error, "program could not be taken off");
    }
    info!("stopped");
}
