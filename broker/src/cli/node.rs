//! `tidegate-broker node`: sends clients away from the broker, to stop it or to even it out.

use std::{num::NonZeroU32, process::ExitCode, time::Duration, time::Instant};

use anyhow::bail;
use clap::Subcommand;
use console::{
    client::Client,
    output::{self, printable},
    units::duration,
};

use super::target::Target;
use crate::{
    control::view::{EvacuationPhase, EvacuationView, NodeStatus, Rebalance, SendAway},
    evacuation::DEFAULT_RATE,
};

/// Between two questions of `--wait`.
const PAUSE: Duration = Duration::from_millis(500);

/// Send clients away before the broker is stopped, or when it has more than others.
///
/// Balancers are told first, by 503 at /readyz. MQTT 5 clients hear 0x9C, others are closed; all of
/// them connect again, elsewhere, a bounded number each second.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:\n  tidegate-broker node evacuate --wait\n  \
        tidegate-broker node evacuate --rate 100 --to broker2.example.org:1883\n  \
        tidegate-broker node evacuate --stop\n  tidegate-broker node rebalance\n  \
        tidegate-broker node rebalance --keep 20000\n  \
        tidegate-broker node status"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show whether clients are sent away, and how many are left.
    Status {
        #[command(flatten)]
        target: Target,
    },
    /// Send all clients away and let none in, until `--stop` or a restart. Sessions stay.
    Evacuate(Evacuate),
    /// Send clients away until so many are left, and be as before then.
    Rebalance {
        /// How many clients are to stay; without it, as many as the nodes of the cluster have on
        /// average. Nodes that take no new clients do not count.
        #[arg(long, value_name = "CLIENTS")]
        keep: Option<u64>,
        #[command(flatten)]
        order: Evacuate,
    },
}

#[derive(Debug, clap::Args)]
struct Evacuate {
    /// Clients that are sent away each second.
    #[arg(long, value_name = "CLIENTS", default_value_t = DEFAULT_RATE)]
    rate: NonZeroU32,
    /// Where MQTT 5 clients are told to go; repeat it for several. Without it they connect as ever,
    /// which is right behind a balancer.
    #[arg(long = "to", value_name = "HOST:PORT")]
    to: Vec<String>,
    /// How long to serve on before the first client is sent away: longer than balancers take to see
    /// that the broker is not ready (their interval times the failures that they wait for).
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = time)]
    wait_health_check: Duration,
    /// Tell MQTT 5 clients to go for good (0x9D) and not for now (0x9C).
    #[arg(long)]
    permanent: bool,
    /// Publish wills that have no delay. Without it they are not: their clients have not died.
    #[arg(long)]
    publish_wills: bool,
    /// Wait until it is done.
    #[arg(long)]
    wait: bool,
    /// Give up waiting after so long (exit code 1); the broker goes on sending clients away.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1h",
        value_parser = time,
        requires = "wait"
    )]
    timeout: Duration,
    /// End it: clients are welcome again.
    #[arg(long, conflicts_with_all = ["to", "permanent", "publish_wills", "wait"])]
    stop: bool,
    #[command(flatten)]
    target: Target,
}

fn time(text: &str) -> Result<Duration, &'static str> {
    crate::duration::parse(text).ok_or("expected a duration, such as 500ms, 10s or 2m")
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Status { target } => {
            let status: NodeStatus = target.client()?.get("/v1/status")?;
            show(&status, target)?;
        }
        Command::Evacuate(order) => {
            let body = output::json(&order.terms())?;
            order.run("/v1/node/evacuate", body)?;
        }
        Command::Rebalance { keep, order } => {
            let body = output::json(&Rebalance {
                keep: *keep,
                terms: order.terms(),
            })?;
            order.run("/v1/node/rebalance", body)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Evacuate {
    fn terms(&self) -> SendAway {
        SendAway {
            rate: self.rate.get(),
            // Part of a second is a second: it is a least time.
            wait_seconds: self.wait_health_check.as_millis().div_ceil(1000) as u64,
            servers: self.to.clone(),
            permanent: self.permanent,
            publish_wills: self.publish_wills,
        }
    }

    fn run(&self, route: &str, body: String) -> anyhow::Result<()> {
        let client = self.target.client()?;
        if self.stop {
            let status: NodeStatus = client.post("/v1/node/serve", None)?;
            return show(&status, &self.target);
        }
        let begun: EvacuationView = client.post(route, Some(body))?;
        if self.wait {
            return self.wait_for_the_end(&client, &begun);
        }
        let status: NodeStatus = client.get("/v1/status")?;
        show(&status, &self.target)
    }

    fn wait_for_the_end(&self, client: &Client, begun: &EvacuationView) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.timeout;
        let mut told = None;
        loop {
            let status: NodeStatus = client.get("/v1/status")?;
            let end = end(begun, status.evacuation.as_ref());
            let left = status.evacuation.as_ref().map(|view| view.left);
            // A line each time that something has happened.
            if !self.target.json && end == End::NotYet && told != Some(left) {
                output::print(&format!("{}\n", sentence(&status)))?;
                told = Some(left);
            }
            match end {
                End::NotYet => {}
                End::Reached => return show(&status, &self.target),
                End::Stopped => bail!("somebody has ended it: clients are welcome again"),
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                bail!("gave up waiting; it goes on: {}", sentence(&status));
            }
            client.block_on(async { tokio::time::sleep(PAUSE.min(rest)).await });
        }
    }
}

/// What has become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    Reached,
    Stopped,
}

fn end(begun: &EvacuationView, now: Option<&EvacuationView>) -> End {
    use crate::control::view::EvacuationAim::{Evacuate, Rebalance};
    match (begun.aim, now) {
        (_, Some(view)) if view.phase == EvacuationPhase::Evacuated => End::Reached,
        (_, Some(_)) => End::NotYet,
        // It ends by itself.
        (Rebalance, None) => End::Reached,
        (Evacuate, None) => End::Stopped,
    }
}

fn show(status: &NodeStatus, target: &Target) -> anyhow::Result<()> {
    let text = if target.json {
        output::json(status)?
    } else {
        format!("{}\n", sentence(status))
    };
    output::print(&text)?;
    Ok(())
}

fn sentence(status: &NodeStatus) -> String {
    let node = &status.node;
    let Some(view) = &status.evacuation else {
        let clients = status.connections;
        return format!("{node}: no client is sent away, {clients} connections");
    };
    let EvacuationView {
        aim: _,
        phase,
        begins_in_seconds,
        sent,
        left,
        rate,
        servers,
    } = view;
    let to = match servers {
        Some(servers) => format!(" to {}", printable(servers)),
        None => String::new(),
    };
    match phase {
        EvacuationPhase::Waiting => {
            let wait = duration(*begins_in_seconds);
            format!("{node}: in {wait} {left} clients are sent away{to}, {rate} a second")
        }
        EvacuationPhase::Sending => {
            let rest = duration(left.div_ceil(u64::from(rate.get())));
            format!(
                "{node}: {sent} clients are sent away{to}, {left} are left, {rate} a second: \
                 {rest} to go"
            )
        }
        EvacuationPhase::Evacuated => format!(
            "{node}: evacuated, {sent} clients were sent away{to}; new ones are refused until \
             `tidegate-broker node evacuate --stop` or a restart"
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::control::view::EvacuationAim;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Command, String> {
        let words = std::iter::once("node").chain(line.split(' '));
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(cli.args.command)
    }

    #[test]
    fn defaults_suit_a_balancer_and_parts_of_seconds_are_rounded_up() {
        let Ok(Command::Evacuate(order)) = parse("evacuate") else {
            panic!("an evacuation");
        };
        let terms = order.terms();
        assert_eq!((terms.rate, terms.wait_seconds), (500, 10));
        assert!(terms.servers.is_empty() && !terms.permanent && !terms.publish_wills);
        let line = "evacuate --to a:1 --to b:2 --wait-health-check 1500ms --permanent";
        let Ok(Command::Evacuate(order)) = parse(line) else {
            panic!("an evacuation");
        };
        assert_eq!(order.terms().wait_seconds, 2);
        assert_eq!(order.terms().servers, ["a:1", "b:2"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, told) in [
            ("rebalance --keep few", "--keep"),
            ("evacuate --stop --wait", "--wait"),
            ("evacuate --rate 0", "--rate"),
            ("evacuate --wait-health-check 5", "duration"),
            ("evacuate --timeout 5s", "--wait"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
        assert!(parse("rebalance --stop").is_ok());
        let average = parse("rebalance");
        assert!(matches!(average, Ok(Command::Rebalance { keep: None, .. })));
    }

    #[test]
    fn end_of_what_was_ordered_is_told_from_its_undoing() {
        let view = |aim, phase| EvacuationView {
            aim,
            phase,
            begins_in_seconds: 0,
            sent: 1,
            left: 2,
            rate: DEFAULT_RATE,
            servers: None,
        };
        let sending = view(EvacuationAim::Evacuate, EvacuationPhase::Sending);
        let evacuated = view(EvacuationAim::Evacuate, EvacuationPhase::Evacuated);
        assert_eq!(end(&sending, Some(&sending)), End::NotYet);
        assert_eq!(end(&sending, Some(&evacuated)), End::Reached);
        assert_eq!(end(&sending, None), End::Stopped);
        let rebalance = view(EvacuationAim::Rebalance, EvacuationPhase::Sending);
        assert_eq!(end(&rebalance, None), End::Reached);
    }
}
