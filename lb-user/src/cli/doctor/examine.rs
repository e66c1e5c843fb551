//! What facts about a host mean: facts in, findings out.

use std::path::Path;

use super::{
    daemon,
    facts::{Capabilities, Facts, Reached, Subject},
    finding::{Finding, error, ok, warning},
    segment,
};
use crate::io::netlink::Link;

/// The oldest kernel that the program is meant for.
const OLDEST: (u32, u32) = (5, 15);

/// What the daemon cannot do without, by their numbers in linux/capability.h.
const NEEDED: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// Stands for CAP_BPF and CAP_PERFMON as well.
const SYS_ADMIN: u32 = 21;

/// What the kernel calls our program.
pub(super) const OWN: &str = lb_common::abi::PROGRAM;

/// What libxdp attaches to run several programs one after the other.
const DISPATCHER: &str = "xdp_dispatcher";

/// All findings, in the order in which things depend on each other.
pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let status = facts.daemon.as_ref().and_then(|it| it.as_ref().ok());
    let mut findings = vec![kernel(facts.release.as_deref())];
    findings.extend(jit(facts.has_jit));
    findings.extend([
        capabilities(facts.capabilities),
        bpffs(&facts.pin_dir, facts.has_bpffs),
        settings(&facts.settings),
        clock(facts.is_clock_kept),
    ]);
    findings.extend(facts.ports.as_ref().map(|why| {
        let advice = "set `[nat] ports` outside of the range, or put the range back";
        error("nat", why.clone(), advice)
    }));
    findings.push(interface(&facts.interface, facts.link.as_ref()));
    if let Some(link) = &facts.link {
        findings.push(program(facts, link, status.is_some()));
        findings.extend(queues(facts, link));
    }
    match &facts.daemon {
        Some(Ok(status)) => findings.extend(daemon::examine(status, facts)),
        Some(Err(why)) => findings.push(warning(
            "daemon",
            why.clone(),
            "start it (`systemctl start tidegate`); what it alone knows was not looked at",
        )),
        None => {}
    }
    findings.extend(segment::examine(facts));
    findings.extend(facts.reached.iter().map(reached));
    findings
}

fn kernel(release: Option<&str>) -> Finding {
    let numbers = release.and_then(|release| {
        let mut parts = release.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    });
    let named = format!("Linux {}", release.unwrap_or("of unknown version").trim());
    match numbers {
        Some(version) if version >= OLDEST => ok("kernel", named),
        Some(_) => error(
            "kernel",
            format!("{named} is too old"),
            "run Linux 5.15 or newer",
        ),
        None => warning(
            "kernel",
            named,
            "see with `uname -r` whether it is 5.15 or newer",
        ),
    }
}

/// Only the first network namespace tells.
fn jit(has_jit: Option<bool>) -> Option<Finding> {
    Some(if has_jit? {
        ok("jit", "programs are compiled")
    } else {
        warning(
            "jit",
            "programs are interpreted, which takes several times as long",
            "sysctl -w net.core.bpf_jit_enable=1, or `tidegate tune --apply`",
        )
    })
}

fn capabilities(capabilities: Option<Capabilities>) -> Finding {
    const SUBJECT: &str = "capabilities";
    let Some(Capabilities {
        effective,
        is_daemons,
    }) = capabilities
    else {
        return warning(SUBJECT, "not known", "run it where /proc is mounted");
    };
    let has = |number: u32| effective >> number & 1 == 1;
    let has_instead = |number: u32| number >= 38 && has(SYS_ADMIN);
    let lacking = NEEDED
        .iter()
        .filter(|(number, _)| !has(*number) && !has_instead(*number));
    let names: Vec<&str> = lacking.map(|(_, name)| *name).collect();
    match (names.is_empty(), is_daemons) {
        (true, true) => ok(SUBJECT, "the daemon has all that it needs"),
        (true, false) => ok(SUBJECT, "all that are needed are here"),
        (false, true) => error(
            SUBJECT,
            format!("the daemon is without {}", names.join(", ")),
            "run it as root, or give its unit AmbientCapabilities with these",
        ),
        (false, false) => warning(
            SUBJECT,
            format!("without {} here", names.join(", ")),
            "run this command as root: it sees more; the daemon needs these as well",
        ),
    }
}

fn bpffs(pin_dir: &Path, has_it: Option<bool>) -> Finding {
    let pin_dir = pin_dir.display();
    if has_it == Some(true) {
        return ok("bpffs", format!("{pin_dir} is in a BPF file system"));
    }
    warning(
        "bpffs",
        format!("{pin_dir} is in no BPF file system"),
        "the daemon mounts one if it may (CAP_SYS_ADMIN); or: mount -t bpf bpf /sys/fs/bpf",
    )
}

fn settings(wrong: &[String]) -> Finding {
    if wrong.is_empty() {
        return ok("settings", "the kernel's settings that matter are right");
    }
    let message = format!("to be changed: {}", wrong.join(", "));
    warning(
        "settings",
        message,
        "see `tidegate tune`, and `tidegate tune --apply`",
    )
}

fn clock(is_kept: Option<bool>) -> Finding {
    match is_kept {
        Some(true) => ok("clock", "it is kept right"),
        Some(false) => warning(
            "clock",
            "nothing keeps it right",
            "run chrony or systemd-timesyncd: logs and events of two hosts are compared by it, and certificates \
             are judged by it",
        ),
        None => warning(
            "clock",
            "the kernel does not say whether it is right",
            "see `timedatectl`",
        ),
    }
}

fn interface(name: &str, link: Option<&Link>) -> Finding {
    match link {
        Some(link) if link.is_up => ok(
            "interface",
            format!("{name} is up, with an MTU of {}", link.mtu),
        ),
        Some(_) => error(
            "interface",
            format!("{name} is down, or its cable is out"),
            format!("see to the cable and the switch; ip link set dev {name} up"),
        ),
        None => error(
            "interface",
            format!("there is no {name}"),
            "name one of `ip link` as `interface` in the configuration",
        ),
    }
}

/// Who has the place for a program on the interface.
fn program(facts: &Facts, link: &Link, is_running: bool) -> Finding {
    let name = &facts.interface;
    let Some(attached) = link.program else {
        return if is_running {
            error(
                "program",
                format!("no program is attached to {name}, though the daemon runs"),
                "somebody has detached it: systemctl restart tidegate",
            )
        } else {
            ok("program", format!("{name} is free for one"))
        };
    };
    let mode = if attached.is_generic {
        "generic"
    } else {
        "native"
    };
    match facts.program.as_deref() {
        Some(OWN) if is_running => ok("program", format!("it is on {name}, {mode}")),
        Some(OWN) => ok(
            "program",
            format!("it is on {name}, {mode}, and serves as the last daemon left it"),
        ),
        Some(DISPATCHER) => error(
            "program",
            format!("programs of others are on {name}, by libxdp's dispatcher"),
            format!(
                "see `xdp-loader status {name}`, and end who has loaded them, or: xdp-loader unload {name} --all"
            ),
        ),
        Some(other) => error(
            "program",
            format!("a program of others is on {name}: {other}"),
            format!("end who has loaded it, or: ip link set dev {name} xdp off"),
        ),
        None => warning(
            "program",
            format!("a program is on {name}, and whose is not told here"),
            "run it as root",
        ),
    }
}

/// How fast the interface can be.
fn queues(facts: &Facts, link: &Link) -> Vec<Finding> {
    let (name, queues) = (&facts.interface, link.receive_queues);
    let Some(driver) = &facts.driver else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if link.program.is_some_and(|program| program.is_generic) {
        findings.push(warning(
            "driver",
            format!("{driver} runs the program after the driver (generic), which is several times slower"),
            format!(
                "most drivers need LRO off (ethtool -K {name} lro off), an MTU of one page at most (3,498; it is {}), \
                 and queues to spare; see docs/tuning.md",
                link.mtu
            ),
        ));
    } else {
        findings.push(ok("driver", driver.clone()));
    }
    if queues == 1 && facts.cpus > 1 {
        findings.push(warning(
            "queues",
            format!(
                "{name} has one receive queue, so one CPU of {} does all",
                facts.cpus
            ),
            format!(
                "ethtool -L {name} combined {}, if the card has more",
                facts.cpus
            ),
        ));
    }
    findings
}

fn reached(reached: &Reached) -> Finding {
    let Reached {
        subject,
        name,
        failure,
    } = reached;
    let (subject, advice) = match subject {
        Subject::Backend => ("backend", "see to the broker, and to what is between"),
        Subject::Sync => (
            "sync",
            "start the peer, and let it through to its `[sync] listen`",
        ),
        Subject::Vrrp => ("vrrp", "see to the host, and to what is between"),
    };
    match failure {
        None => ok(subject, format!("{name} is reached")),
        Some(why) => warning(subject, format!("{name} is not reached: {why}"), advice),
    }
}
