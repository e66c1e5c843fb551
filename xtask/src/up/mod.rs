//! `cargo xtask up`: Tidegate at work on the reference network, to watch or, with `--check`, to verify.

mod live;
mod standby;
mod story;

use std::fmt;

use anyhow::Result;

use crate::elevate;
use crate::lab::{Binaries, Family, note_interrupts};
use crate::network::{Backend, Balance, Forward, Network, Shape};

/// What to show.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How packets reach the brokers.
    #[arg(long, value_enum, default_value_t = Forward::Dsr)]
    forward: Forward,
    /// How a broker is chosen.
    #[arg(long, value_enum, default_value_t = Balance::Maglev)]
    balance: Balance,
    /// Which brokers: ours, as one or each by itself, or unmodified third-party ones.
    #[arg(long, value_enum, default_value_t = Backend::Cluster)]
    backend: Backend,
    /// How many clients.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    clients: u32,
    /// Clients reach the VIP over IPv6.
    #[arg(long)]
    ipv6: bool,
    /// Runs the whole story unattended; fails if a step does, and ends with one line of JSON.
    #[arg(long)]
    check: bool,
    /// No words and no table: a line of JSON each second, or, with `--check`, at the end.
    #[arg(long)]
    json: bool,
}

impl fmt::Display for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--check, {}, {} clients", self.shape(), self.clients)
    }
}

impl Args {
    /// How many flows a balancer has to record for so many clients.
    fn recorded(&self, clients: u32) -> u64 {
        let is_recorded = self.balance.records(self.forward);
        if is_recorded { clients.into() } else { 0 }
    }

    /// The stories that the tests tell: each forward mode and each balance once, and foreign brokers.
    pub fn stories() -> [Self; 3] {
        let story = |forward, balance, backend, ipv6| Self {
            forward,
            balance,
            backend,
            clients: 500,
            ipv6,
            check: true,
            json: true,
        };
        [
            story(Forward::Dsr, Balance::Maglev, Backend::Cluster, false),
            story(Forward::Nat, Balance::RoundRobin, Backend::Mosquitto, true),
            story(Forward::Tunnel, Balance::Maglev, Backend::Tidegate, false),
        ]
    }

    fn shape(&self) -> Shape {
        Shape {
            forward: self.forward,
            balance: self.balance,
            backend: self.backend,
            family: if self.ipv6 { Family::V6 } else { Family::V4 },
        }
    }
}

/// Sets up, builds and shows.
///
/// # Errors
/// Names the step that failed.
pub fn run(args: &Args) -> Result<()> {
    let Some(programs) = elevate::with_programs(&[])? else {
        return Ok(());
    };
    with(args, &programs)
}

/// Shows with programs that are built.
///
/// # Errors
/// Names the step that failed.
pub fn with(args: &Args, programs: &Binaries) -> Result<()> {
    note_interrupts();
    if args.check {
        return story::tell(args, programs);
    }
    let mut network = Network::new(args.shape(), programs)?;
    live::show(args, &mut network)
}
