//! `tidegate-broker run`: puts the node together and ends it in order.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context;
use console::service::Manager;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{self, MissedTickBehavior},
};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, Log, LogFormat, Stop, Vip},
    control,
    node::Node,
    open_files,
    reload::reload,
    vip::Lease,
};

/// How often it is looked whether a service manager is to be told that the broker works, if none asks.
const PULSE: Duration = Duration::from_secs(10);

/// What clients may expect of a broker and this one does not do.
const NOT_DONE: &str = "\
Mind that:
- sessions and retained messages end with the process, unless [persistence] has a directory";

#[derive(Debug, clap::Args)]
#[command(after_help = NOT_DONE)]
pub(super) struct Args {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    start_logging(config.log());
    raise_open_files(config.limits().connections);
    // For what comes before a session; the shards bring threads of their own.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(front_threads())
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(&config, &args.config))
}

/// How many threads accept, and shake hands over TLS: one takes less time for a client than a shard
/// does, unless there is TLS.
fn front_threads() -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (cores / 4).max(1)
}

async fn serve(config: &Config, path: &Path) -> anyhow::Result<ExitCode> {
    // Before anything is changed on this host, so that no signal leaves it half changed.
    let mut signals = Signals::watch().context("cannot watch for signals")?;
    let manager = Manager::find().unwrap_or_else(|error| {
        warn!(%error, "the service manager cannot be told that the broker works");
        Manager::nobody()
    });
    let lease = match config.vip() {
        Some(Vip {
            addresses,
            interface,
        }) => {
            let lease = Lease::acquire(addresses, interface).await;
            Some(lease.context("cannot hold the virtual addresses")?)
        }
        None => None,
    };
    let result = serve_clients(config, path, &mut signals, &manager).await;
    // The addresses stay until the last client has its goodbye.
    if let Some(lease) = lease {
        lease
            .release()
            .await
            .context("cannot give the virtual addresses back")?;
    }
    info!("stopped");
    result
}

async fn serve_clients(
    config: &Config,
    path: &Path,
    signals: &mut Signals,
    manager: &Manager,
) -> anyhow::Result<ExitCode> {
    let control = control::Server::bind(config.control()).await?;
    let mut node = Node::start(config).await?;
    // Until the last client is gone: how far the stop has come can be looked at.
    let (reloads, mut reload_orders) = mpsc::channel(1);
    let status = Arc::clone(node.status());
    let _control = control.map(|control| control.serve(status, reloads.clone()));
    manager.ready();
    info!(
        node = config.node(),
        addresses = ?node.addresses(),
        metrics = ?node.metrics_address(),
        health = ?node.health_address(),
        "ready"
    );
    let mut pulse = time::interval(manager.pulse().unwrap_or(PULSE));
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ending = loop {
        tokio::select! {
            // A node that lives and does not work is to be missed.
            _ = pulse.tick() => if node.status().answers() {
                manager.alive();
            },
            request = signals.recv() => match request {
                Request::Stop => break Ending::Asked,
                // The log has told what became of it.
                Request::Reload => drop(reload(path, config, &node)),
            },
            Some(answer) = reload_orders.recv() => {
                let _ = answer.send(reload(path, config, &node));
            }
            () = node.failed() => {
                error!("a part of the node has ended");
                break Ending::Failed;
            }
        }
    };
    // Who asks for a reload hears that the broker is stopping.
    drop(reload_orders);
    manager.stopping();
    let ended_in_order = tokio::select! {
        () = end(node, ending.stop(config.stop())) => true,
        () = signals.wait_for_stop() => false,
        never = manager.ask_for_time() => match never {},
    };
    if !ended_in_order {
        warn!("told to stop again: ending at once");
    }
    Ok(ending.code())
}

/// Why the node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Asked,
    Failed,
}

impl Ending {
    /// A node that has lost a part does not serve on: some of its clients get no answer.
    fn stop(self, configured: Stop) -> Stop {
        match self {
            Self::Asked => configured,
            Self::Failed => Stop {
                grace: Duration::ZERO,
                rate: None,
            },
        }
    }

    fn code(self) -> ExitCode {
        match self {
            Self::Asked => ExitCode::SUCCESS,
            Self::Failed => ExitCode::FAILURE,
        }
    }
}

/// Ends the node in order.
async fn end(node: Node, stop: Stop) {
    let Stop { grace, rate } = stop;
    node.announce_stop();
    if !grace.is_zero() {
        info!(
            ?grace,
            "not ready any more, serving on for the grace period"
        );
        time::sleep(grace).await;
    }
    if let Some(rate) = rate {
        info!(rate, "sending clients away");
        node.empty(rate).await;
    }
    info!("stopping");
    node.stop().await;
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Stop,
    Reload,
}

/// The signals that are for the broker. The default of each would end the process with the virtual
/// addresses still held.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// As [`Self::recv`], when there is nothing to reload any more.
    async fn wait_for_stop(&mut self) {
        while self.recv().await != Request::Stop {}
    }

    async fn recv(&mut self) -> Request {
        let Self {
            terminate,
            interrupt,
            hangup,
        } = self;
        tokio::select! {
            _ = terminate.recv() => Request::Stop,
            _ = interrupt.recv() => Request::Stop,
            _ = hangup.recv() => Request::Reload,
        }
    }
}

/// Starts logging to standard error, which leaves standard output to commands' results.
fn start_logging(log: &Log) {
    // The Router tells of every link and subscription at `info`; only its errors concern anyone.
    let filter = if log.level.contains("rumqttd") {
        log.level.clone()
    } else {
        format!("{},rumqttd=error", log.level)
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(io::stderr);
    // A second call in one process keeps the first subscriber, which is fine.
    let _ = match log.format {
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
}

fn raise_open_files(wanted: usize) {
    match open_files::raise_limit() {
        Ok(Some(maximum)) if usize::try_from(maximum).is_ok_and(|maximum| maximum < wanted) => {
            info!(
                maximum,
                wanted, "the limit on open files is below the limit on connections"
            );
        }
        Ok(_enough) => {}
        Err(error) => warn!(%error, "cannot raise the limit on open files"),
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{self, getpid, kill_process};

    use super::*;

    #[test]
    fn example_configuration_says_what_is_not_done_either() {
        let example = include_str!("../../configs/tidegate-broker.toml");
        let rest = example.replace("# ", "");
        assert!(rest.contains(NOT_DONE), "{NOT_DONE}");
    }

    #[test]
    fn failed_node_serves_no_grace_period() {
        let stop = Stop {
            grace: Duration::from_secs(3600),
            rate: Some(std::num::NonZeroU32::MIN),
        };
        assert_eq!(Ending::Asked.stop(stop), stop);
        let at_once = Ending::Failed.stop(stop);
        assert_eq!((at_once.grace, at_once.rate), (Duration::ZERO, None));
    }

    #[tokio::test]
    async fn hangup_asks_for_a_reload() {
        let mut signals = Signals::watch().unwrap();
        kill_process(getpid(), process::Signal::HUP).unwrap();
        assert_eq!(signals.recv().await, Request::Reload);
    }
}
