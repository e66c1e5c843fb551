//! Reads and asks what there is to know of the host; it changes nothing.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use console::tune::{self, Action, Order, catalogue::Role, host::Host, plan::Standing};
use futures_util::{StreamExt as _, stream};
use lb_common::abi::Forward;
use tokio::{net::TcpStream, time};

use super::facts::{Capabilities, Direct, Facts, Reached, Subject, VipFacts};
use crate::{
    config::model::{Backend, Check, Config, Protocol, Service},
    control::{Health, Status},
    daemon::prober::probe_of,
    io::{
        datapath::{is_in_bpf_file_system, program_name},
        host,
        netlink::{Link, Netlink},
        ping::ping,
        probe,
        segment::{Knock, Segment},
    },
};

/// How long hosts of the segment have to answer.
const WAIT: Duration = Duration::from_millis(500);

/// How long one that is asked over the network has, whatever its check says.
const LONGEST: Duration = Duration::from_secs(2);

/// How many are asked at the same time.
const AT_ONCE: usize = 64;

/// Backends that are asked for a VIP itself.
const KNOCKS: usize = 256;

/// All that is known, with what the daemon says.
pub(super) async fn gather(config: &Config, daemon: Result<Status, String>) -> Facts {
    let read = |path: &str| fs::read_to_string(path).ok();
    let status = daemon.as_ref().ok();
    let link = match Netlink::open() {
        Ok(netlink) => netlink.link(config.interface()).await.ok(),
        Err(_) => None,
    };
    let program = link.as_ref().and_then(|link| link.program);
    let (first, last) = (config.nat().first_port(), config.nat().last_port());
    let overlap = host::check_ports(first..=last).err();
    let overlap = overlap.filter(|_| config.translates());
    let (vips, direct) = segment(config, link.as_ref(), status);
    Facts {
        release: read("/proc/sys/kernel/osrelease"),
        has_jit: read("/proc/sys/net/core/bpf_jit_enable").map(|text| text.trim() != "0"),
        capabilities: capabilities(status),
        pin_dir: config.pin_dir().to_owned(),
        has_bpffs: Some(is_in_bpf_file_system(config.pin_dir())),
        interface: config.interface().to_owned(),
        driver: link
            .as_ref()
            .and_then(|link| driver(config.interface(), link)),
        program: program.and_then(|program| program_name(program.id)),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        is_clock_kept: host::is_clock_kept().ok(),
        ports: overlap.map(|overlap| overlap.to_string()),
        settings: settings(),
        vips,
        direct,
        reached: reached(config, status).await,
        link,
        daemon: Some(daemon),
    }
}

fn capabilities(status: Option<&Status>) -> Option<Capabilities> {
    let effective = |process: &str| {
        let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let daemons = status.and_then(|status| effective(&status.pid.to_string()));
    let is_daemons = daemons.is_some();
    let effective = daemons.or_else(|| effective("self"))?;
    Some(Capabilities {
        effective,
        is_daemons,
    })
}

/// A mount of sysfs is of one network namespace, which may be another one.
fn driver(name: &str, link: &Link) -> Option<String> {
    let path = Path::new("/sys/class/net").join(name);
    let index = fs::read_to_string(path.join("ifindex")).ok()?;
    let driver = fs::read_link(path.join("device/driver")).ok()?;
    let is_it = index.trim().parse() == Ok(link.index);
    let driver = driver.file_name().filter(|_| is_it)?;
    Some(driver.to_string_lossy().into_owned())
}

/// Those that matter and are wrong.
fn settings() -> Vec<String> {
    let order = Order {
        role: Role::Balancer,
        host: Host {
            settings: "/proc/sys".into(),
            state: "/nonexistent".into(),
        },
        action: Action::Show,
        only: Vec::new(),
    };
    let Ok(report) = tune::run(&order) else {
        return Vec::new();
    };
    let readings = report.settings.into_iter();
    let wrong = readings.filter(|it| it.is_meant(&[]) && it.standing == Standing::Wrong);
    wrong.map(|it| it.key.to_owned()).collect()
}

/// What the hosts of the segment say of the VIPs; IPv6 is not asked.
fn segment(
    config: &Config,
    link: Option<&Link>,
    status: Option<&Status>,
) -> (Vec<VipFacts>, Vec<Direct>) {
    let addresses = link.map_or(&[][..], |link| &link.addresses);
    let is_here = |wanted: IpAddr| addresses.iter().any(|(address, _)| *address == wanted);
    let ipv4 = config.vips().iter().filter_map(|vip| match vip.address() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let ipv4: Vec<Ipv4Addr> = ipv4.collect();
    let segment = link.and_then(|link| Segment::open(link.index, link.mac).ok());
    let answers = segment.as_ref().and_then(|it| it.who_has(&ipv4, WAIT).ok());
    let mut answers = answers.map(Vec::into_iter);
    let vips = ipv4.iter().map(|address| VipFacts {
        address: IpAddr::V4(*address),
        is_here: is_here(IpAddr::V4(*address)),
        answers: answers.as_mut().and_then(Iterator::next),
    });
    let vips = vips.collect();
    let mut own = addresses.iter().filter_map(|(address, _)| match address {
        IpAddr::V4(address) if !ipv4.contains(address) => Some(*address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    let direct = match (segment, own.next(), status) {
        (Some(segment), Some(own), Some(status)) => direct(config, &segment, own, status),
        _ => Vec::new(),
    };
    (vips, direct)
}

/// Has backends of `dsr` that are up asked for the VIP itself.
fn direct(config: &Config, segment: &Segment, own: Ipv4Addr, status: &Status) -> Vec<Direct> {
    let services = config.services().iter();
    let services =
        services.filter(|it| it.forward() == Forward::Dsr && it.protocol() != Protocol::Udp);
    let mut names = Vec::new();
    let mut knocks = Vec::new();
    for service in services {
        let IpAddr::V4(address) = service.vip() else {
            continue;
        };
        let found = status.services.iter().find(|it| it.name == service.name());
        let backends = found.map_or(&[][..], |it| &it.backends);
        let up = backends.iter().filter(|it| it.health == Health::Up);
        for backend in up {
            let Some(mac) = backend.next_hop.as_deref().and_then(mac) else {
                continue;
            };
            names.push((
                format!("{}/{}", service.name(), backend.name),
                service.vip(),
            ));
            let port = service.port();
            knocks.push(Knock { mac, address, port });
        }
    }
    knocks.truncate(KNOCKS);
    // Ports that this process alone takes, as far as chance goes.
    let first_port = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or_default();
    let answers = segment
        .knock(&knocks, own, first_port, WAIT)
        .unwrap_or_default();
    let asked = names.into_iter().zip(answers);
    let direct = asked.map(|((name, vip), answer)| Direct { name, vip, answer });
    direct.collect()
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok()?;
    bytes.try_into().ok()
}

/// The other routers, and whom the daemon would ask if it ran.
async fn reached(config: &Config, status: Option<&Status>) -> Vec<Reached> {
    let mut reached = Vec::new();
    let mut peers: Vec<IpAddr> = config
        .vrrps()
        .iter()
        .flat_map(|it| it.peers())
        .copied()
        .collect();
    peers.sort_unstable();
    peers.dedup();
    for peer in peers {
        let failure = ping(peer, LONGEST).await.err();
        reached.push(Reached {
            subject: Subject::Vrrp,
            name: format!("the peer {peer}"),
            failure: failure.map(|why| why.to_string()),
        });
    }
    if status.is_some() {
        return reached;
    }
    if let Some(sync) = config.sync() {
        let failure = match time::timeout(LONGEST, TcpStream::connect(sync.peer())).await {
            Ok(Ok(_)) => None,
            Ok(Err(why)) => Some(why.to_string()),
            Err(_) => Some(format!("no answer within {LONGEST:?}")),
        };
        reached.push(Reached {
            subject: Subject::Sync,
            name: format!("the peer {}", sync.peer()),
            failure,
        });
    }
    let backends = config.backends();
    let checked = backends.filter_map(|(service, it)| Some((service, it, service.check()?)));
    let asked = stream::iter(checked.map(|(service, backend, check)| ask(service, backend, check)));
    reached.extend(asked.buffered(AT_ONCE).collect::<Vec<_>>().await);
    reached
}

/// Checks a backend once, as the daemon would.
async fn ask(service: &Service, backend: &Backend, check: &Check) -> Reached {
    let target = SocketAddr::new(backend.address(), check.port_of(backend));
    let answer = probe::run(
        &probe_of(check.probe()),
        target,
        check.timeout().min(LONGEST),
    )
    .await;
    Reached {
        subject: Subject::Backend,
        name: format!("{}/{}", service.name(), backend.name()),
        failure: answer.err().map(|why| why.to_string()),
    }
}
