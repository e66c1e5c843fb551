//! `tidegate check`: says whether a configuration file is right, and if not, all that is wrong.

use std::{net::IpAddr, path::PathBuf};

use serde::Serialize;

use super::{Failure, output};
use crate::{
    api::tls_files,
    config::{
        self, ConfigErrors,
        model::{Config, Protocol, Vip},
    },
    core::image::records_all,
    io::datapath::{self, Limits},
};

/// Checks a configuration file without starting anything.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate check --config /etc/tidegate/tidegate.toml && tidegate reload"
)]
pub(super) struct Args {
    /// The file to check.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    #[serde(flatten)]
    size: Option<Size>,
    errors: Vec<Mistake>,
    /// What is right, and not what one may think.
    notes: Vec<String>,
}

/// How much a right file configures.
#[derive(Clone, Copy, Debug, Serialize)]
struct Size {
    vips: usize,
    services: usize,
    backends: usize,
    /// Bytes that the kernel will take for the maps.
    map_memory: u64,
}

#[derive(Debug, Serialize)]
struct Mistake {
    path: String,
    line: Option<usize>,
    message: String,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let outcome = config::load(&args.config);
    if args.json {
        output::print(&output::json(&report(&outcome))?)?;
    }
    let config = outcome.map_err(|errors| Failure::Usage(complaint(&errors)))?;
    if !args.json {
        let Size {
            vips,
            services,
            backends,
            map_memory,
        } = size(&config);
        let file = args.config.display();
        let mebibytes = map_memory >> 20;
        output::print(&format!(
            "{file}: right: {} on {} with {}; maps take {mebibytes} MiB\n",
            output::count(services, "service"),
            output::count(vips, "VIP"),
            output::count(backends, "backend"),
        ))?;
        for note in notes(&config) {
            output::print(&format!("{file}: note: {note}\n"))?;
        }
    }
    Ok(())
}

fn report(outcome: &Result<Config, ConfigErrors>) -> Report {
    match outcome {
        Ok(config) => Report {
            ok: true,
            size: Some(size(config)),
            errors: Vec::new(),
            notes: notes(config),
        },
        Err(errors) => {
            let mistake = |error: &config::ConfigError| Mistake {
                path: error.path().to_owned(),
                line: error.line(),
                message: error.problem().to_string(),
            };
            Report {
                ok: false,
                size: None,
                errors: errors.iter().map(mistake).collect(),
                notes: Vec::new(),
            }
        }
    }
}

/// What is right, and not what one may think.
fn notes(config: &Config) -> Vec<String> {
    let mut notes = unchecked(config);
    notes.extend(narrow_tunnels(config));
    notes.extend(unshared(config));
    notes.extend(filtered(config));
    notes.extend(uncertified(config));
    notes
}

/// Why the daemon would not start with the dashboard's certificate. Who checks may be somebody else, or
/// on another host.
fn uncertified(config: &Config) -> Option<String> {
    let files = tls_files(config.dashboard()?)?;
    let error = dashboard::check_tls(&files).err()?;
    Some(format!("the dashboard cannot use its certificate: {error}"))
}

/// The addresses that several hosts have at once, as far as the configuration tells.
fn shared(config: &Config) -> impl Iterator<Item = IpAddr> {
    let vips = config.vips().iter();
    let vips = vips.filter(|vip| vip.is_withdrawn_unserved());
    vips.map(Vip::address)
}

/// Services of such addresses whose flows only the host knows that has seen them start.
fn unshared(config: &Config) -> impl Iterator<Item = String> {
    let services = config.services().iter().filter(|service| {
        let keeps_records = records_all(service.balance(), service.forward());
        keeps_records && shared(config).any(|vip| vip == service.vip())
    });
    services.map(|service| {
        format!(
            "service {}: with `without_backends = \"withdraw\"` other hosts may have its VIP at once, and do not \
             know its flows: `maglev` and `source` with `dsr` or `tunnel` need no record of them",
            service.name()
        )
    })
}

/// Routers whose frames somebody else may have to admit.
fn filtered(config: &Config) -> impl Iterator<Item = String> {
    let routers = config.vrrps().iter();
    routers.filter_map(|router| {
        let (name, mac) = (router.name(), router.virtual_mac()?);
        Some(format!(
            "vrrp {name}: frames come to {mac}, and are sent from it: a hypervisor or switch that admits known MAC \
             addresses alone has to admit it on all hosts"
        ))
    })
}

/// Tunnels that cannot carry all packets of their clients, as far as the configuration tells.
fn narrow_tunnels(config: &Config) -> impl Iterator<Item = String> {
    let narrow = config.tunnel_mtu().into_iter().flat_map(|mtu| {
        let backends = config.backends();
        backends.filter_map(move |(service, backend)| {
            Some((service, backend, service.too_little_room(backend, mtu)?))
        })
    });
    narrow.map(|(service, backend, room)| {
        format!(
            "service {}: with this `tunnel.mtu` the tunnel to {} carries packets of {room} bytes, and clients over \
             IPv6 may send 1280: larger ones are lost",
            service.name(),
            backend.name()
        )
    })
}

/// Services over MQTT that cannot tell first data from later.
fn unchecked(config: &Config) -> Vec<String> {
    let services = config.services().iter();
    let unchecked = services
        .filter(|service| service.protocol() == Protocol::Mqtt && !records_all(service.balance(), service.forward()))
        .map(|service| {
            format!(
                "service {}: it is not checked that the first packet is a CONNECT: that takes a record of each \
                 flow, which `round_robin`, `least_conn` and `nat` keep",
                service.name()
            )
        });
    let is_alone = config.vrrps().is_empty() && shared(config).next().is_none();
    let is_alone = is_alone || config.seed().is_some();
    let seedless = (!is_alone).then(|| {
        "without `seed` each node makes one of its own: they send a client to different backends, and its \
         session ends when another node takes over"
            .to_owned()
    });
    seedless.into_iter().chain(unchecked).collect()
}

fn size(config: &Config) -> Size {
    let reports = datapath::EVENTS * u32::from(config.sync().is_some());
    let maps = Limits::from(config.limits()).map_memory(datapath::possible_cpus());
    Size {
        vips: config.vips().len(),
        services: config.services().len(),
        backends: config.backends().count(),
        map_memory: maps + datapath::ring_memory(reports),
    }
}

/// All that is wrong, and how much that is.
pub(super) fn complaint(errors: &ConfigErrors) -> String {
    format!(
        "{} in the configuration\n{errors}",
        output::count(errors.len(), "mistake")
    )
}

#[cfg(test)]
mod tests {
    use super::{complaint, report};
    use crate::config;

    #[test]
    fn wrong_file_is_reported_with_every_mistake() {
        let outcome = config::parse("interface = 7\nfoo = 1\n", "t.toml");
        let json = serde_json::to_value(report(&outcome)).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["errors"][0]["path"], "interface");
        assert_eq!(json["errors"][1]["line"], 2);
        let text = complaint(&outcome.unwrap_err());
        assert!(text.starts_with("2 mistakes in the configuration\nt.toml:1: interface: 7 is not"));
    }

    #[test]
    fn a_virtual_mac_is_noted_for_who_has_to_admit_it() {
        let text = include_str!("../../configs/tidegate-vrrp.toml");
        let notes = |text: &str| -> Vec<String> {
            let notes = super::notes(&config::parse(text, "t.toml").unwrap()).into_iter();
            notes.filter(|note| note.starts_with("vrrp ")).collect()
        };
        assert_eq!(notes(text), [""; 0]);
        let text = text.replace("# virtual_mac = true ", "virtual_mac = true ");
        let [note] = &notes(&text)[..] else {
            panic!("one note")
        };
        assert!(
            note.starts_with("vrrp front-v4: frames come to 00:00:5e:00:01:33"),
            "{note}"
        );
    }

    #[test]
    fn tunnel_without_room_for_clients_over_ipv6_is_noted() {
        let text = include_str!("../../configs/tidegate-tunnel.toml");
        let notes = |mtu: u16| {
            let text = text.replacen("[[vip]]", &format!("[tunnel]\nmtu = {mtu}\n[[vip]]"), 1);
            super::notes(&config::parse(&text, "t.toml").unwrap())
        };
        assert_eq!(notes(1_500), [""; 0]);
        let narrow = notes(1_300);
        // Four services over IPv6, each with two backends over IPv6 and IP in IP.
        assert_eq!(narrow.len(), 8, "{narrow:?}");
        let (_, note) = narrow[0].split_once(": ").unwrap();
        assert!(note.contains("carries packets of 1260 bytes"), "{note}");
    }

    #[test]
    fn nodes_that_make_up_their_own_seeds_are_told_of() {
        let text = include_str!("../../configs/tidegate-vrrp.toml");
        let notes = |text: &str| report(&config::parse(text, "t.toml")).notes;
        let is_told = |notes: Vec<String>| notes.iter().any(|note| note.contains("`seed`"));
        assert!(!is_told(notes(text)));
        assert!(is_told(notes(&text.replace("\nseed =", "\n# seed ="))));
        let alone = include_str!("../../configs/tidegate-dsr.toml");
        assert!(!is_told(notes(alone)));
    }

    #[test]
    fn services_of_a_vip_that_many_hosts_have_are_told_to_need_no_records() {
        let text = include_str!("../../configs/tidegate-dsr.toml");
        let withdraw = "assign = true\nwithout_backends = \"withdraw\"";
        let text = text.replacen("assign = true", withdraw, 1);
        let notes = |text: &str| report(&config::parse(text, "t.toml")).notes;
        let told = |notes: Vec<String>, part: &str| {
            let notes = notes.iter().filter(|note| note.contains(part));
            notes.count()
        };
        assert_eq!(told(notes(&text), "other hosts may have its VIP"), 0);
        assert_eq!(told(notes(&text), "without `seed`"), 1);
        let turns = text.replacen("balance = \"maglev\"", "balance = \"round_robin\"", 1);
        assert_eq!(told(notes(&turns), "other hosts may have its VIP"), 1);
    }

    #[test]
    fn the_ring_of_a_node_with_a_peer_counts() {
        let text = include_str!("../../configs/tidegate-vrrp.toml");
        let memory = |text: &str| super::size(&config::parse(text, "t.toml").unwrap()).map_memory;
        let sync = "[sync]\nlisten = \"172.16.40.22:9464\"\npeer = \"172.16.40.23:9464\"\n\
                    key_file = \"/k\"\n[[vip]]";
        let with_peer = text.replacen("[[vip]]", sync, 1);
        let more = memory(&with_peer) - memory(text);
        assert_eq!(more, super::datapath::ring_memory(super::datapath::EVENTS));
        assert!(more > 1 << 20);
    }

    #[test]
    fn right_file_is_reported_with_its_size() {
        let text = include_str!("../../configs/tidegate-dsr.toml");
        let outcome = config::parse(text, "t.toml");
        let mut json = serde_json::to_value(report(&outcome)).unwrap();
        let memory = json.as_object_mut().unwrap().remove("map_memory").unwrap();
        assert!(memory.as_u64().unwrap() > 1_000_000_000 / 4);
        let notes = json["notes"].clone();
        let first = notes[0].as_str().unwrap();
        assert!(
            first.starts_with("service mqtt: it is not checked"),
            "{first}"
        );
        let expected = serde_json::json!({
            "ok": true, "vips": 2, "services": 8, "backends": 16, "errors": [], "notes": notes,
        });
        assert_eq!(json, expected);
    }
}
