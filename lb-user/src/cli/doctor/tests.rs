//! Made-up facts, and what is found in them.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    examine::{OWN, examine},
    facts::{Capabilities, Direct, Facts, Reached, Subject, VipFacts},
    finding::{Finding, Level},
    line,
};
use crate::{
    control::{Health, Status, VipState, example},
    io::{
        netlink::{Link, LinkProgram},
        segment::Answer,
    },
};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 40, 24));

/// Of the first backend in the example of a status.
const BACKEND: [u8; 6] = [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

/// A status in which nothing is wrong.
fn well() -> Status {
    let mut status = example::status();
    status.config.last_error = None;
    status.sync = None;
    status.interface.name = "eth0".to_owned();
    for vip in &mut status.vips {
        vip.state = VipState::Assigned;
    }
    for router in &mut status.vrrp.routers {
        router.role = "active".to_owned();
        router.peer = None;
        router.held.clear();
        router.faults.clear();
        router.adverts.refused.clear();
    }
    for backend in status.services.iter_mut().flat_map(|it| &mut it.backends) {
        (backend.health, backend.held) = (Health::Up, false);
    }
    for service in &mut status.services {
        service.state = crate::control::ServiceState::Up;
    }
    status
}

/// A host on which all is well.
fn healthy() -> Facts {
    Facts {
        release: Some("6.1.0-18-amd64\n".to_owned()),
        has_jit: Some(true),
        capabilities: Some(Capabilities {
            effective: u64::MAX,
            is_daemons: true,
        }),
        pin_dir: "/sys/fs/bpf/tidegate".into(),
        has_bpffs: Some(true),
        interface: "eth0".to_owned(),
        link: Some(Link {
            index: 2,
            mac: [2, 0, 0, 0, 0, 1],
            is_up: true,
            mtu: 1_500,
            receive_queues: 4,
            program: Some(LinkProgram {
                id: 7,
                is_generic: false,
            }),
            addresses: vec![(VIP, 32)],
        }),
        driver: Some("ixgbe".to_owned()),
        program: Some(OWN.to_owned()),
        cpus: 4,
        is_clock_kept: Some(true),
        ports: None,
        settings: Vec::new(),
        vips: vec![VipFacts {
            address: VIP,
            is_here: true,
            answers: Some(Vec::new()),
        }],
        direct: vec![Direct {
            name: "mqtt/broker1".to_owned(),
            vip: VIP,
            answer: Answer::Taken,
        }],
        daemon: Some(Ok(well())),
        reached: Vec::new(),
    }
}

/// What is not well.
fn bad(facts: &Facts) -> Vec<Finding> {
    let mut findings = examine(facts);
    findings.retain(|finding| finding.level > Level::Ok);
    findings
}

/// The one thing that is not well after a change of the healthy host.
fn only(change: impl FnOnce(&mut Facts)) -> (Level, &'static str, String) {
    let mut facts = healthy();
    change(&mut facts);
    let bad = bad(&facts);
    let [finding] = bad.as_slice() else {
        panic!("one finding: {bad:#?}")
    };
    assert!(finding.advice.is_some(), "{finding:?}");
    (finding.level, finding.subject, finding.message.clone())
}

fn link(facts: &mut Facts) -> &mut Link {
    facts.link.as_mut().unwrap()
}

#[test]
fn a_healthy_host_has_nothing_to_be_seen_to() {
    assert_eq!(bad(&healthy()), []);
}

#[test]
fn kernels_are_told_by_their_numbers() {
    let of = |release: &str| only(|facts| facts.release = Some(release.to_owned()));
    assert_eq!(of("5.9.1").0, Level::Error);
    assert_eq!(of("5.14.21-suse").0, Level::Error);
    assert_eq!(of("new").0, Level::Warning);
    let mut facts = healthy();
    facts.release = Some("5.15.0".to_owned());
    assert_eq!(bad(&facts), []);
}

#[test]
fn what_the_kernel_does_not_do_is_told() {
    assert_eq!(only(|facts| facts.has_jit = Some(false)).1, "jit");
    assert_eq!(only(|facts| facts.is_clock_kept = Some(false)).1, "clock");
    assert_eq!(only(|facts| facts.has_bpffs = Some(false)).1, "bpffs");
    let setting = "net.core.bpf_jit_enable".to_owned();
    assert_eq!(only(|facts| facts.settings = vec![setting]).1, "settings");
    let overlap = "nat.ports: 1-2 overlaps 1-2".to_owned();
    assert_eq!(only(|facts| facts.ports = Some(overlap)).1, "nat");
}

#[test]
fn lacking_capabilities_are_named_and_whose_they_are_matters() {
    let lack = |effective: u64, is_daemons: bool| {
        only(|facts| {
            facts.capabilities = Some(Capabilities {
                effective,
                is_daemons,
            });
        })
    };
    let (level, _, message) = lack(1 << 12 | 1 << 13 | 1 << 38, true);
    assert_eq!(level, Level::Error);
    assert!(message.contains("without CAP_BPF"), "{message}");
    let (level, _, message) = lack(1 << 21, false);
    assert_eq!(level, Level::Warning);
    assert!(
        message.contains("CAP_NET_ADMIN, CAP_NET_RAW here"),
        "{message}"
    );
}

#[test]
fn programs_of_others_are_in_the_way() {
    let named = |name: &str| {
        let name = Some(name.to_owned());
        only(|facts| facts.program = name)
    };
    assert!(named("xdp_dispatcher").2.contains("libxdp"));
    let (level, _, message) = named("xdp_filter");
    assert_eq!(level, Level::Error);
    assert!(message.ends_with("xdp_filter"), "{message}");
    let (level, subject, _) = only(|facts| link(facts).program = None);
    assert_eq!((level, subject), (Level::Error, "program"));
}

#[test]
fn the_interface_is_judged() {
    assert_eq!(only(|facts| link(facts).is_up = false).1, "interface");
    assert_eq!(only(|facts| facts.link = None).1, "interface");
    assert_eq!(only(|facts| link(facts).receive_queues = 1).1, "queues");
    let generic = LinkProgram {
        id: 7,
        is_generic: true,
    };
    let (level, subject, _) = only(|facts| link(facts).program = Some(generic));
    assert_eq!((level, subject), (Level::Warning, "driver"));
}

#[test]
fn a_backend_that_answers_for_the_vip_is_named() {
    let (level, subject, message) = only(|facts| facts.vips[0].answers = Some(vec![BACKEND]));
    assert_eq!((level, subject), (Level::Error, "arp"));
    assert!(
        message.contains("/broker1 answers for 172.16.40.24"),
        "{message}"
    );
}

#[test]
fn an_address_is_at_one_host() {
    let (one, other) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]);
    let twice = only(|facts| facts.vips[0].answers = Some(vec![one]));
    assert!(
        twice.2.contains("is here, and 02:00:00:00:00:02"),
        "{twice:?}"
    );
    let away = |answers: Vec<[u8; 6]>| {
        let mut facts = healthy();
        facts.vips[0] = VipFacts {
            address: VIP,
            is_here: false,
            answers: Some(answers),
        };
        bad(&facts).iter().map(|it| it.level).collect::<Vec<_>>()
    };
    assert_eq!(away(vec![one]), []);
    assert_eq!(away(vec![]), [Level::Warning]);
    assert_eq!(away(vec![one, other]), [Level::Error]);
}

#[test]
fn backends_of_dsr_have_to_take_the_vip() {
    for (answer, word) in [
        (Answer::Silent, "does not answer"),
        (Answer::Refused, "nothing listens"),
    ] {
        let (level, subject, message) = only(|facts| facts.direct[0].answer = answer);
        assert_eq!((level, subject), (Level::Error, "dsr"));
        assert!(message.contains(word), "{message}");
    }
}

fn status(change: impl FnOnce(&mut Status)) -> (Level, &'static str, String) {
    only(|facts| {
        let mut status = well();
        change(&mut status);
        facts.daemon = Some(Ok(status));
    })
}

#[test]
fn what_the_daemon_lacks_is_told() {
    assert_eq!(status(|it| it.vips[0].state = VipState::Absent).1, "vip");
    let down = status(|it| {
        let backend = &mut it.services[0].backends[0];
        backend.health = Health::Down;
        backend.reason = Some("connection refused".to_owned());
    });
    assert_eq!((down.0, down.1), (Level::Warning, "backend"));
    assert!(down.2.ends_with("connection refused"), "{down:?}");
    let silent = status(|it| it.vrrp.routers[0].role = "backup".to_owned());
    assert_eq!((silent.0, silent.1), (Level::Warning, "vrrp"));
    let held = status(|it| it.vrrp.routers[0].held.push("operator".to_owned()));
    assert_eq!((held.0, held.1), (Level::Error, "vrrp"));
    let old = status(|it| it.config.last_error = Some("no such key".to_owned()));
    assert_eq!((old.0, old.1), (Level::Warning, "config"));
    let elsewhere = status(|it| it.interface.name = "eth1".to_owned());
    assert_eq!((elsewhere.0, elsewhere.1), (Level::Warning, "daemon"));
}

#[test]
fn without_a_daemon_this_command_has_asked() {
    let mut facts = healthy();
    facts.daemon = Some(Err("no daemon".to_owned()));
    let reached = |subject, failure: Option<&str>| Reached {
        subject,
        name: "mqtt/broker1".to_owned(),
        failure: failure.map(str::to_owned),
    };
    facts.reached = vec![
        reached(Subject::Backend, None),
        reached(Subject::Backend, Some("timed out")),
        reached(Subject::Sync, Some("refused")),
    ];
    let subjects: Vec<_> = bad(&facts).iter().map(|it| it.subject).collect();
    assert_eq!(subjects, ["daemon", "backend", "sync"]);
}

#[test]
fn lines_have_their_advice_below_and_no_control_characters() {
    let finding = super::finding::error("backend", "mqtt/\u{1b}[2J is down", "see to it");
    assert_eq!(
        line(&finding),
        "ERROR    backend: mqtt/\\u{1b}[2J is down\n         -> see to it\n"
    );
}
