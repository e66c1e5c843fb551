//! `tidegate decap`: unpacks tunnelled packets, on a backend.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use anyhow::Context as _;
use clap::ValueEnum;
use lb_decap::{Config, Decap, Mode, Prefix};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, output};

/// Unpacks the packets of a balancer with `forward = "tunnel"`, on a backend, until SIGTERM or SIGINT.
///
/// Attaches an XDP program to the interface that the packets come in by. Takes packets for the
/// virtual addresses out of IP in IP and GUE, and only from the senders that are named; all else is
/// the host's as before. Prints what it counted when it ends. The virtual addresses must be on this
/// host, as for `dsr`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tidegate decap --interface eth0 --from 10.9.0.0/24 --vip 172.16.40.24\n  \
    tidegate decap --interface eth0 --from fd00:9::/64 --vip 172.16.40.24 --vip fd00:40::24 --json")]
pub(super) struct Args {
    /// The interface that tunnelled packets come in by.
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// Who may send them: what tunnels send from (`[tunnel] sources`); may be repeated.
    #[arg(long, value_name = "PREFIX", required = true)]
    from: Vec<Prefix>,
    /// An address to unpack packets for; may be repeated.
    #[arg(long, value_name = "IP", required = true)]
    vip: Vec<IpAddr>,
    /// The UDP port of GUE (`tunnel_port`).
    #[arg(long, value_name = "PORT", default_value_t = 6080,
          value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// How to attach.
    #[arg(long, value_enum, default_value_t = XdpMode::Auto)]
    mode: XdpMode,
    /// Print the counters as one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum XdpMode {
    /// Native, and generic where the driver has no native mode.
    Auto,
    /// In the driver.
    Native,
    /// In the network stack, after the driver.
    Generic,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let _inside = runtime.enter();
    // Before the program is attached: a signal in between must not be lost.
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut decap = Decap::open(&args.config()).map_err(anyhow::Error::from)?;
    let mode = decap.attach().map_err(anyhow::Error::from)?;
    output::complain(&args.says(mode));
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let counts = decap.counts().map_err(anyhow::Error::from)?;
    drop(decap);
    let counts = counts
        .into_iter()
        .map(|(outcome, count)| (outcome.label(), count));
    output::print(&render(counts, args.json)?)?;
    Ok(())
}

impl Args {
    fn config(&self) -> Config {
        Config {
            interface: self.interface.clone(),
            mode: match self.mode {
                XdpMode::Auto => Mode::Auto,
                XdpMode::Native => Mode::Native,
                XdpMode::Generic => Mode::Generic,
            },
            sources: self.from.clone(),
            vips: self.vip.clone(),
            gue_port: self.port,
        }
    }

    /// What is done from now on, for the log.
    fn says(&self, mode: Mode) -> String {
        let mode = match mode {
            Mode::Generic => "generic",
            Mode::Auto | Mode::Native => "native",
        };
        format!(
            "on {} ({mode} mode): unpacks IP in IP and GUE (UDP port {}) from {} for {}",
            self.interface,
            self.port,
            list(&self.from),
            list(&self.vip)
        )
    }
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

fn render(
    counts: impl Iterator<Item = (&'static str, u64)>,
    json: bool,
) -> Result<String, anyhow::Error> {
    if json {
        return output::json(&counts.collect::<BTreeMap<_, _>>());
    }
    Ok(counts.fold(String::new(), |mut text, (label, count)| {
        let _ = writeln!(text, "{label:<14} {count}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{Args, Mode, render};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    const ENDS: [&str; 6] = [
        "--interface",
        "eth0",
        "--from",
        "10.9.0.0/24",
        "--vip",
        "172.16.40.24",
    ];

    #[test]
    fn it_says_from_where_and_for_whom() {
        let args = Cli::try_parse_from(["decap"].iter().chain(&ENDS))
            .unwrap()
            .args;
        assert_eq!(
            args.says(Mode::Native),
            "on eth0 (native mode): unpacks IP in IP and GUE (UDP port 6080) from 10.9.0.0/24 for 172.16.40.24"
        );
    }

    #[test]
    fn nothing_is_unpacked_from_everybody() {
        for missing in [0, 2, 4] {
            let mut given = vec!["decap"];
            for pair in [0, 2, 4].into_iter().filter(|pair| *pair != missing) {
                given.extend(&ENDS[pair..pair + 2]);
            }
            assert!(Cli::try_parse_from(given).is_err());
        }
    }

    #[test]
    fn counters_are_lines_or_one_line() {
        let counts = || [("decapsulated", 7), ("not_ours", 1)].into_iter();
        let text = render(counts(), false).unwrap();
        assert_eq!(text, "decapsulated   7\nnot_ours       1\n");
        let json = render(counts(), true).unwrap();
        assert_eq!(json, "{\"decapsulated\":7,\"not_ours\":1}\n");
    }
}
