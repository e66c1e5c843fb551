//! One router on a bench: adverts go in by hand, all that comes out is noted with its time.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use crate::core::vrrp::advert::{
    Addresses, Advert, Dialect, Envelope, Family, HOPS, Interval, Priority, Version, Vrid,
};
use crate::core::vrrp::announce::Presence;
use crate::core::vrrp::machine::Machine;
use crate::core::vrrp::refusal::{Refusal, Remark};
use crate::core::vrrp::role::{Change, Role};
use crate::core::vrrp::settings::{
    AcceptMode, Announcements, OtherAddresses, Peers, Preemption, Settings,
};

/// Where virtual clocks begin: any instant will do.
pub(in crate::core::vrrp) fn epoch() -> Instant {
    Instant::now()
}

pub(in crate::core::vrrp) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(in crate::core::vrrp) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// VRRPv3 over IPv4 with an advert a second, which preempts at once and accepts.
pub(in crate::core::vrrp) fn settings(priority: u8) -> Settings {
    Settings {
        version: Version::V3,
        vrid: Vrid::new(7).unwrap(),
        priority: Priority(priority),
        interval: Interval::centiseconds(100).unwrap(),
        source: ip("10.0.0.5"),
        addresses: Addresses::new([ip("10.0.0.100")]).unwrap(),
        peers: Peers::Multicast,
        password: None,
        dialect: Dialect::Message,
        other_addresses: OtherAddresses::Remark,
        preemption: Preemption::After(Duration::ZERO),
        startup_delay: Duration::ZERO,
        accept_mode: AcceptMode::Accept,
        announcements: Announcements {
            repeats: NonZeroU8::new(3).unwrap(),
            interval: ms(500),
            refresh: None,
        },
    }
}

/// The same for IPv6.
pub(in crate::core::vrrp) fn settings_v6(priority: u8) -> Settings {
    Settings {
        source: ip("fe80::5"),
        addresses: Addresses::new([ip("fe80::100"), ip("fd00::100")]).unwrap(),
        ..settings(priority)
    }
}

/// The same in VRRPv2.
pub(in crate::core::vrrp) fn settings_v2(priority: u8) -> Settings {
    Settings {
        version: Version::V2,
        ..settings(priority)
    }
}

/// What a router did, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::core::vrrp) struct Log {
    /// Milliseconds since the beginning, and priorities.
    pub(in crate::core::vrrp) adverts: Vec<(u64, u8)>,
    pub(in crate::core::vrrp) announcements: Vec<u64>,
    pub(in crate::core::vrrp) changes: Vec<(u64, Change)>,
}

pub(in crate::core::vrrp) struct Bench {
    pub(in crate::core::vrrp) machine: Machine,
    start: Instant,
    pub(in crate::core::vrrp) now: Instant,
    pub(in crate::core::vrrp) log: Log,
}

impl Bench {
    /// A router that is not started, with the addresses in place as soon as it is Active.
    pub(in crate::core::vrrp) fn new(settings: Settings) -> Self {
        let start = epoch();
        let mut machine = Machine::new(settings).unwrap();
        machine.handle_presence(Presence::Present, start);
        Self {
            machine,
            start,
            now: start,
            log: Log::default(),
        }
    }

    pub(in crate::core::vrrp) fn started(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.act(Machine::handle_startup);
        bench
    }

    /// One that has been Active for a while, with an empty log.
    pub(in crate::core::vrrp) fn active(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.act(Machine::adopt);
        bench.wait(10_000);
        assert_eq!(bench.machine.role(), Role::Active);
        bench.log = Log::default();
        bench
    }

    /// One that has just heard an Active of this priority, with an empty log.
    pub(in crate::core::vrrp) fn backup(settings: Settings, active: u8) -> Self {
        let mut bench = Self::started(settings);
        assert_eq!(bench.hear(active), Ok(None));
        assert_eq!(bench.machine.role(), Role::Backup);
        bench.log = Log::default();
        bench
    }

    pub(in crate::core::vrrp) fn role(&self) -> Role {
        self.machine.role()
    }

    /// Milliseconds since the beginning.
    pub(in crate::core::vrrp) fn millis(&self) -> u64 {
        u64::try_from(self.now.duration_since(self.start).as_millis()).unwrap()
    }

    pub(in crate::core::vrrp) fn act<T>(
        &mut self,
        action: impl FnOnce(&mut Machine, Instant) -> T,
    ) -> T {
        let result = action(&mut self.machine, self.now);
        self.drain();
        result
    }

    fn drain(&mut self) {
        let at = self.millis();
        while let Some(advert) = self.machine.poll_advert() {
            self.log.adverts.push((at, advert.priority.0));
        }
        while self.machine.poll_announce(self.now).is_some() {
            self.log.announcements.push(at);
        }
        while let Some(change) = self.machine.poll_change() {
            self.log.changes.push((at, change));
        }
    }

    /// Lets time pass, deadline by deadline.
    pub(in crate::core::vrrp) fn wait(&mut self, millis: u64) {
        let end = self.now + ms(millis);
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
            assert!(at >= self.now || self.machine.role() != Role::Initialize);
            self.now = self.now.max(at);
            self.act(Machine::handle_timeout);
        }
        self.now = end;
    }

    /// An advert as this router would send it, but for the priority.
    pub(in crate::core::vrrp) fn advert(&self, priority: u8) -> Advert {
        self.machine.settings().advert(Priority(priority))
    }

    /// From a peer with a higher address.
    pub(in crate::core::vrrp) fn envelope(&self) -> Envelope {
        match Family::of(&self.machine.settings().source) {
            Family::V4 => from("10.0.0.9"),
            Family::V6 => from("fe80::9"),
        }
    }

    pub(in crate::core::vrrp) fn hear(&mut self, priority: u8) -> Result<Option<Remark>, Refusal> {
        let (advert, envelope) = (self.advert(priority), self.envelope());
        self.hear_it(&advert, &envelope)
    }

    pub(in crate::core::vrrp) fn hear_it(
        &mut self,
        advert: &Advert,
        envelope: &Envelope,
    ) -> Result<Option<Remark>, Refusal> {
        self.act(|machine, now| machine.handle_advert(advert, envelope, now))
    }
}

pub(in crate::core::vrrp) fn from(source: &str) -> Envelope {
    let source = ip(source);
    Envelope {
        source,
        destination: Family::of(&source).group(),
        hops: HOPS,
    }
}
