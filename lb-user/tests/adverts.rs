//! Ten million damaged adverts in a few seconds, the same in every run: none panics, what is
//! understood can be sent, what is refused changes nothing, and memory does not grow.
//!
//! Half of them get a right checksum after the damage, or hardly any would be read to its end.

#[path = "support/memory.rs"]
mod memory;
#[path = "../../lb-common/tests/fuzz/mutate.rs"]
mod mutate;

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::thread;
use std::time::{Duration, Instant};

use lb_common::checksum;
use lb_user::core::vrrp::advert::{
    Addresses, Dialect, Envelope, Family, HOPS, Interval, PROTOCOL, Password, Priority, Version,
    Vrid,
};
use lb_user::core::vrrp::machine::Machine;
use lb_user::core::vrrp::packet::{decode, encode};
use lb_user::core::vrrp::refusal::{Refusal, Refusals};
use lb_user::core::vrrp::role::{Peer, Role};
use lb_user::core::vrrp::settings::{
    AcceptMode, Announcements, OtherAddresses, Peers, Preemption, Settings,
};

use mutate::Mutator;

const INPUTS: u32 = 10_000_000;
/// Where adverts of each family come from: mostly a peer, else nobody and the router itself.
const SOURCES_V4: [&str; 4] = ["10.77.0.9", "10.77.0.9", "0.0.0.0", "10.77.0.2"];
const SOURCES_V6: [&str; 4] = ["fe80::9", "fe80::9", "::", "fe80::2"];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn settings(version: Version, addresses: &[&str]) -> Settings {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
    let addresses = Addresses::new(addresses).expect("addresses");
    let source = match addresses.family() {
        Family::V4 => "10.77.0.2",
        Family::V6 => "fe80::2",
    };
    let password = match version {
        Version::V2 => Password::new("secret12"),
        Version::V3 => None,
    };
    Settings {
        version,
        vrid: Vrid::new(51).expect("a VRID"),
        priority: Priority(100),
        interval: Interval::centiseconds(100).expect("an interval"),
        source: ip(source),
        addresses,
        peers: Peers::Multicast,
        password,
        dialect: Dialect::Message,
        other_addresses: OtherAddresses::Refuse,
        preemption: Preemption::After(Duration::ZERO),
        startup_delay: Duration::ZERO,
        accept_mode: AcceptMode::Accept,
        announcements: Announcements {
            repeats: NonZeroU8::MIN,
            interval: Duration::from_secs(1),
            refresh: None,
        },
    }
}

fn routers() -> [Settings; 3] {
    [
        settings(Version::V2, &["10.77.0.100", "10.77.0.101"]),
        settings(Version::V3, &["10.77.0.100"]),
        settings(Version::V3, &["fe80::100", "fd77::100"]),
    ]
}

fn envelope(source: IpAddr) -> Envelope {
    Envelope {
        source,
        destination: Family::of(&source).group(),
        hops: HOPS,
    }
}

/// Adverts of a router's peer.
fn sent(settings: &Settings, sources: &[&str]) -> Vec<Vec<u8>> {
    let envelope = envelope(ip(sources[0]));
    let of = |priority| {
        let mut message = Vec::new();
        let advert = settings.advert(Priority(priority));
        encode(&advert, &envelope, Dialect::PseudoHeader, &mut message);
        assert_eq!(decode(&message, &envelope), Ok(advert));
        message
    };
    [0, 1, 200].map(of).into()
}

/// Replaces the checksum by one that is right in some version and dialect.
fn repair(message: &mut [u8], envelope: &Envelope) {
    let length = message.len() as u64;
    let is_v2 = message.first().is_some_and(|kind| kind >> 4 == 2);
    let Some(sum) = message.get_mut(6..8) else {
        return;
    };
    sum.fill(0);
    let plain = checksum::add(0, message);
    let add = |sum, address: IpAddr| match address {
        IpAddr::V4(v4) => checksum::add(sum, &v4.octets()),
        IpAddr::V6(v6) => checksum::add(sum, &v6.octets()),
    };
    let sum = if is_v2 {
        plain
    } else {
        let addresses = add(add(plain, envelope.source), envelope.destination);
        addresses + length + u64::from(PROTOCOL)
    };
    message[6..8].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
}

/// What a refused advert must leave as it is.
fn state(machine: &Machine) -> (Role, Option<Peer>, Option<Instant>, u64) {
    let received = machine.counters().received;
    let active = machine.active().copied();
    (machine.role(), active, machine.next_deadline(), received)
}

/// What came of the inputs.
#[derive(Default)]
struct Outcome {
    understood: u32,
    taken: u32,
    refused: Refusals,
}

/// Damaged adverts of one family, for routers of both in turns.
fn run(seed: u64, corpus: &[Vec<u8>], sources: &[&str], inputs: u32) -> Outcome {
    let mut outcome = Outcome::default();
    let now = Instant::now();
    let mut machines = routers().map(|settings| {
        let mut machine = Machine::new(settings).expect("fit settings");
        machine.handle_startup(now);
        machine
    });
    let envelopes: Vec<Envelope> = sources.iter().map(|source| envelope(ip(source))).collect();
    let mut mutator = Mutator::new(seed);
    let (mut input, mut again) = (Vec::new(), Vec::new());
    for number in 0..inputs {
        mutator.next(corpus, &mut input);
        let mut envelope = envelopes[(number / 2) as usize % envelopes.len()];
        if number % 64 == 0 {
            envelope.hops = 254;
        }
        if number % 2 == 0 {
            repair(&mut input, &envelope);
        }
        let advert = match decode(&input, &envelope) {
            Ok(advert) => advert,
            Err(refusal) => {
                outcome.refused.count(refusal);
                continue;
            }
        };
        outcome.understood += 1;
        encode(&advert, &envelope, Dialect::Message, &mut again);
        assert_eq!(decode(&again, &envelope).as_ref(), Ok(&advert));
        let machine = &mut machines[number as usize % 3];
        let before = state(machine);
        match machine.handle_advert(&advert, &envelope, now) {
            Ok(_) => outcome.taken += 1,
            Err(refusal) => {
                outcome.refused.count(refusal);
                assert_eq!(state(machine), before);
            }
        }
    }
    outcome
}

#[test]
fn damaged_adverts_change_nothing() {
    let [v2, v3, v6] = routers();
    let v4: Vec<_> = [v2, v3]
        .iter()
        .flat_map(|settings| sent(settings, &SOURCES_V4))
        .collect();
    let v6 = sent(&v6, &SOURCES_V6);
    let both = |inputs| {
        thread::scope(|scope| {
            let v4 = scope.spawn(|| run(1, &v4, &SOURCES_V4, inputs / 2));
            let v6 = run(2, &v6, &SOURCES_V6, inputs / 2);
            [v4.join().expect("no panic"), v6]
        })
    };
    let _first_touch = both(INPUTS / 100);
    let before = memory::resident();
    let outcomes = both(INPUTS);
    let grown = memory::resident().saturating_sub(before);
    println!("memory has grown by {grown} KiB");
    assert!(grown < memory::FLAT, "{grown} KiB");
    let sum = |count: fn(&Outcome) -> u32| outcomes.iter().map(count).sum::<u32>();
    let understood = sum(|outcome| outcome.understood);
    let taken = sum(|outcome| outcome.taken);
    println!("{understood} of {INPUTS} understood, {taken} times taken");
    for refusal in Refusal::ALL {
        let counts = outcomes.iter().map(|outcome| outcome.refused.of(*refusal));
        let count: u64 = counts.sum();
        println!("{count:>10} {refusal}");
        // All are multicast.
        assert!(
            count > 0 || *refusal == Refusal::Stranger,
            "none for {refusal}"
        );
    }
    assert!(understood > INPUTS / 20, "{understood}");
    assert!(taken > INPUTS / 500, "{taken}");
}
