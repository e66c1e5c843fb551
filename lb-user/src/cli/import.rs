//! `tidegate import`: a configuration made of those of HAProxy and keepalived.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use super::{EXIT_INCOMPLETE, Failure, output};
use crate::{
    config,
    import::{self, Finding, Imported, Options, Source, WEIGHTS, Way, Weight},
};

/// Writes a Tidegate configuration from the files of HAProxy and keepalived.
///
/// What is not carried over as it was is listed on stderr, what was lost first, each with its line, the
/// reason and what to do.
/// Exit codes: 0 all that matters is carried over, 2 something was lost, 64 the files are of neither
/// program, 1 anything else.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate import /etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf \
    --output tidegate.toml\n  tidegate import haproxy.cfg --interface eth0 --vip 172.16.40.24/32 --json"
)]
pub(super) struct Args {
    /// The files, in any order.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the configuration here, and not to stdout; a file that is there is left as it is.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The interface that carries the VIPs, whatever keepalived says.
    #[arg(long, value_name = "NAME", value_parser = interface)]
    interface: Option<String>,
    /// An address that clients connect to, if keepalived has none; may be repeated.
    #[arg(long = "vip", value_name = "ADDRESS[/LENGTH]", value_parser = vip)]
    vips: Vec<(IpAddr, u8)>,
    /// How HAProxy's servers are to be reached: `nat` takes no change of them.
    #[arg(long, value_enum, default_value_t = Forward::Nat)]
    forward: Forward,
    /// Print configuration and findings as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Forward {
    Nat,
    Dsr,
    Tunnel,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Whether nothing was lost.
    complete: bool,
    services: usize,
    routers: usize,
    /// Left out if it was written to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a str>,
    findings: &'a [Finding],
}

fn interface(text: &str) -> Result<String, String> {
    if import::is_interface(text) {
        Ok(text.to_owned())
    } else {
        Err("it is no name of an interface, such as eth0".to_owned())
    }
}

fn vip(text: &str) -> Result<(IpAddr, u8), String> {
    let found = import::host_prefix(text);
    found.ok_or_else(|| "write the address of a host, such as 172.16.40.24/32".to_owned())
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut texts = Vec::new();
    for path in &args.files {
        let name = path.display().to_string();
        let bytes = read(path).with_context(|| format!("cannot read {name}"))?;
        // Comments may be in any encoding.
        texts.push((name, String::from_utf8_lossy(&bytes).into_owned()));
    }
    let sources: Vec<Source<'_>> = texts
        .iter()
        .map(|(name, text)| Source { name, text })
        .collect();
    let imported = import::import(&sources, &options(args));
    let imported = imported.map_err(|error| Failure::Usage(error.to_string()))?;
    // What the daemon would refuse is a mistake of this program, and worth a report.
    config::parse(&imported.config, "the configuration that was made").map_err(|errors| {
        Failure::Runtime(anyhow::anyhow!(
            "what was made of the files is not right; please report it with them:\n{errors}"
        ))
    })?;
    if let Some(path) = &args.output {
        write(path, &imported.config)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    tell(args, &imported)?;
    if imported.has_lost() {
        return Err(Failure::Told(EXIT_INCOMPLETE));
    }
    Ok(())
}

/// All of a file, or enough to see that it is too long.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(import::LONGEST).unwrap_or(u64::MAX);
    File::open(path)?
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn options(args: &Args) -> Options {
    Options {
        interface: args.interface.clone(),
        vips: args.vips.clone(),
        way: match args.forward {
            Forward::Nat => Way::Nat,
            Forward::Dsr => Way::Dsr,
            Forward::Tunnel => Way::Tunnel,
        },
    }
}

/// There may be a password of VRRPv2 in it, so its owner alone reads it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn tell(args: &Args, imported: &Imported) -> Result<(), Failure> {
    let config = args.output.is_none().then_some(imported.config.as_str());
    if args.json {
        output::print(&output::json(&report(imported, config))?)?;
        return Ok(());
    }
    for finding in WEIGHTS.iter().flat_map(|weight| of(imported, *weight)) {
        output::complain(&console::output::printable(&finding.to_string()));
    }
    output::complain(&summary(imported));
    if let Some(config) = config {
        output::print(config)?;
    }
    Ok(())
}

fn of(imported: &Imported, weight: Weight) -> impl Iterator<Item = &Finding> {
    let findings = imported.findings.iter();
    findings.filter(move |finding| finding.weight == weight)
}

/// What was made, and how much is to be seen to.
fn summary(imported: &Imported) -> String {
    let &Imported {
        services, routers, ..
    } = imported;
    let counts =
        WEIGHTS.map(|weight| format!("{} {}", of(imported, weight).count(), weight.label()));
    format!(
        "made {} and {}; {}",
        output::count(services, "service"),
        output::count(routers, "virtual router"),
        counts.join(", "),
    )
}

fn report<'a>(imported: &'a Imported, config: Option<&'a str>) -> Report<'a> {
    Report {
        complete: !imported.has_lost(),
        services: imported.services,
        routers: imported.routers,
        config,
        findings: &imported.findings,
    }
}

#[cfg(test)]
mod tests {
    use super::{interface, report, summary, vip};
    use crate::import::{Options, Source, import};

    #[test]
    fn scripts_are_told_of_each_finding_with_its_place() {
        let text =
            "listen mqtt\n bind 172.16.40.24:1883\n frobnicate\n server a 172.16.40.20:1883\n";
        let source = Source {
            name: "h.cfg",
            text,
        };
        let imported = import(&[source], &Options::default()).unwrap();
        let json = serde_json::to_value(report(&imported, Some(&imported.config))).unwrap();
        assert_eq!(json["complete"], false);
        assert_eq!(json["services"], 1);
        assert!(
            json["config"]
                .as_str()
                .is_some_and(|text| text.contains("[[service]]"))
        );
        let findings = json["findings"].as_array().unwrap();
        let lost = findings.iter().find(|it| it["weight"] == "lost").unwrap();
        assert_eq!(lost["file"], "h.cfg");
        assert_eq!(lost["line"], 3);
        assert_eq!(lost["what"], "frobnicate");
        assert_eq!(
            summary(&imported),
            "made 1 service and 0 virtual routers; 1 not carried over, 2 changed, 0 not needed"
        );
        let written = serde_json::to_value(report(&imported, None)).unwrap();
        assert!(written.get("config").is_none());
    }

    #[test]
    fn what_no_configuration_takes_is_refused_as_an_option() {
        assert!(interface("eth0").is_ok() && interface("a/b").is_err());
        assert!(vip("fd00::24/64").is_ok() && vip("0.0.0.0").is_err());
    }
}
