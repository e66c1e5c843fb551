//! `tidegate-broker run`: puts the node together and ends it in order.

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, Log, LogFormat, Vip},
    node::Node,
    open_files,
    vip::Lease,
};

/// What clients may expect of a broker and this one does not do.
const NOT_DONE: &str = "\
Mind that:
- user names and passwords are accepted and not checked yet: any client may do anything
- shared subscriptions ($share/...) are refused
- sessions and retained messages are in memory and end with the process
- a broker that is stopped does not publish the wills of its clients";

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
    // Accepting and reading CONNECT is one thread's work; the shards bring threads of their own.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(&config))
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    // Before anything is changed on this host, so that no signal leaves it half changed.
    let mut stop = StopSignals::watch().context("cannot watch for signals")?;
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
    let result = serve_clients(config, &mut stop).await;
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

async fn serve_clients(config: &Config, stop: &mut StopSignals) -> anyhow::Result<ExitCode> {
    let mut node = Node::start(config).await?;
    info!(
        node = config.node(),
        addresses = ?node.addresses(),
        metrics = ?node.metrics_address(),
        "ready"
    );
    let code = tokio::select! {
        () = stop.recv() => ExitCode::SUCCESS,
        () = node.failed() => {
            error!("a part of the node has ended");
            ExitCode::FAILURE
        }
    };
    info!("stopping");
    node.stop().await;
    Ok(code)
}

/// The signals that ask the broker to stop. A hangup is one of them: there is nothing to reload, and
/// its default would end the process with the virtual addresses still held.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl StopSignals {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn recv(&mut self) {
        let Self {
            terminate,
            interrupt,
            hangup,
        } = self;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
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

    #[tokio::test]
    async fn hangup_stops_the_broker_in_order() {
        let mut stop = StopSignals::watch().unwrap();
        kill_process(getpid(), process::Signal::HUP).unwrap();
        stop.recv().await;
    }
}
