//! How a virtual router is set up, and which adverts that lets through.
//!
//! [`Settings::check`] says what no router may be set up like, [`Settings::admit`] is the part of
//! RFC 9568, 7.1 that depends on the configuration; [`super::packet`] has the other.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use super::advert::{
    Addresses, Advert, Dialect, Envelope, Family, HOPS, Interval, Password, Priority, Version, Vrid,
};
use super::refusal::{Refusal, Remark};

/// The longest delay of any kind: an hour of a service that nobody has is more than anyone wants.
pub const LONGEST_DELAY: Duration = Duration::from_secs(3_600);

/// A virtual router on one interface, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub version: Version,
    pub vrid: Vrid,
    /// Without what tracking takes off; [`Priority::OWNER`] for who has the addresses as its own.
    pub priority: Priority,
    /// Advertisement_Interval.
    pub interval: Interval,
    /// The primary address of the interface, which adverts are sent from (RFC 9568, 7.2).
    pub source: IpAddr,
    /// The addresses of the virtual router, in the order they are advertised.
    pub addresses: Addresses,
    pub peers: Peers,
    /// VRRPv2 alone.
    pub password: Option<Password>,
    /// What is sent.
    pub dialect: Dialect,
    pub other_addresses: OtherAddresses,
    pub preemption: Preemption,
    /// Between the start and becoming Backup, or Active for an owner.
    pub startup_delay: Duration,
    pub accept_mode: AcceptMode,
    pub announcements: Announcements,
}

/// Who hears the adverts of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// All routers of the group.
    Multicast,
    /// Named peers.
    Unicast,
}

/// To whom adverts go and whose are heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// To the group of the family; from anybody.
    Multicast,
    /// To these, and from these alone.
    Unicast(Vec<IpAddr>),
}

/// What becomes of adverts that list other addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherAddresses {
    /// They count, with a remark. To refuse them would make both sides Active.
    Remark,
    /// They are refused; VRRPv2's of an owner are not (RFC 3768, 7.1).
    Refuse,
}

/// Whether a Backup takes over from an Active of lower priority (Preempt_Mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// An owner does all the same (RFC 9568, 6.1).
    Never,
    /// It does, when the Active has had a lower priority for so long.
    After(Duration),
}

/// Whether an Active that owns none of the addresses takes packets to them (Accept_Mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptMode {
    Accept,
    Discard,
}

/// How the addresses are announced, by gratuitous ARP or unsolicited neighbour advertisements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcements {
    /// How often, one `interval` apart: one alone may be lost.
    pub repeats: NonZeroU8,
    pub interval: Duration,
    /// Once more whenever so long has passed, for peers that yield without a word.
    pub refresh: Option<Duration>,
}

/// What no virtual router may be set up like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("a router has a priority from 1 to 255")]
    Priority,
    #[error("VRRPv3 has intervals of 1 to 4095 centiseconds")]
    IntervalV3,
    #[error("VRRPv2 has intervals of 1 to 255 whole seconds")]
    IntervalV2,
    #[error("VRRPv2 knows IPv4 alone")]
    VersionTwo,
    #[error("VRRPv3 has no passwords")]
    Password,
    #[error("addresses and source must be of one family")]
    Family,
    #[error("the first address of IPv6 must be link-local")]
    NoLinkLocal,
    #[error("the source must be the address of a host")]
    Source,
    #[error("peers must be other hosts, at least one, of the family of the source")]
    Peers,
    #[error("delays and intervals must not be longer than an hour")]
    Delay,
}

impl Settings {
    /// Whether a router can be set up like this.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), Unfit> {
        let family = self.addresses.family();
        // RFC 9568, 5.2.4: an owner has 255, others 1 to 254, and 0 is for releases.
        ensure(self.priority != Priority::RELEASE, Unfit::Priority)?;
        match self.version {
            Version::V3 => {
                let is_right = self.interval.get() <= Interval::LONGEST_V3;
                ensure(is_right, Unfit::IntervalV3)?;
                ensure(self.password.is_none(), Unfit::Password)?;
            }
            Version::V2 => {
                let interval = self.interval.get();
                let is_right = interval.is_multiple_of(Interval::SECOND)
                    && interval / Interval::SECOND <= u16::from(u8::MAX);
                ensure(is_right, Unfit::IntervalV2)?;
                ensure(family == Family::V4, Unfit::VersionTwo)?;
            }
        }
        ensure(Family::of(&self.source) == family, Unfit::Family)?;
        // RFC 9568, 5.2.9, 6.1.
        ensure(self.addresses.is_first_fit(), Unfit::NoLinkLocal)?;
        ensure(is_host(&self.source), Unfit::Source)?;
        if let Peers::Unicast(peers) = &self.peers {
            let is_other =
                |peer: &IpAddr| Family::of(peer) == family && is_host(peer) && *peer != self.source;
            let are_others = !peers.is_empty() && peers.iter().all(is_other);
            ensure(are_others, Unfit::Peers)?;
        }
        ensure(self.longest_delay() <= LONGEST_DELAY, Unfit::Delay)
    }

    fn longest_delay(&self) -> Duration {
        let preemption = match self.preemption {
            Preemption::Never => Duration::ZERO,
            Preemption::After(delay) => delay,
        };
        let Announcements {
            repeats: _,
            interval,
            refresh,
        } = self.announcements;
        let refresh = refresh.unwrap_or_default();
        let announcements = interval.max(refresh);
        self.startup_delay.max(preemption).max(announcements)
    }

    /// Whether an advert concerns this router, and what is odd about it if it does.
    ///
    /// # Errors
    /// The first check that it fails.
    pub fn admit(&self, advert: &Advert, envelope: &Envelope) -> Result<Option<Remark>, Refusal> {
        let Advert {
            version,
            vrid,
            priority,
            interval,
            password,
            addresses,
        } = advert;
        ensure(
            addresses.family() == self.addresses.family(),
            Refusal::Family,
        )?;
        // RFC 9568, 7.1.
        ensure(*vrid == self.vrid, Refusal::Vrid)?;
        ensure(*version == self.version, Refusal::Version)?;
        self.admit_source(&envelope.source)?;
        match (password, &self.password) {
            (None, None) => {}
            // RFC 2338, 7.1; RFC 3768, 7.1.
            (Some(theirs), Some(ours)) => ensure(theirs == ours, Refusal::AuthMismatch)?,
            (Some(_), None) | (None, Some(_)) => return Err(Refusal::AuthType),
        }
        let is_interval_same = *interval == self.interval;
        // RFC 3768, 7.1; in VRRPv3 it is only to be remarked (RFC 9568, 7.1).
        let is_version_two = *version == Version::V2;
        ensure(
            !is_version_two || is_interval_same,
            Refusal::IntervalMismatch,
        )?;
        let are_addresses_same = addresses.is_same_set(&self.addresses);
        // RFC 3768, 7.1; in VRRPv3 it is only to be remarked (RFC 9568, 7.1).
        let is_owners = is_version_two && *priority == Priority::OWNER;
        let is_strict = self.other_addresses == OtherAddresses::Refuse && !is_owners;
        ensure(are_addresses_same || !is_strict, Refusal::Addresses)?;
        let both_own = self.priority == Priority::OWNER && *priority == Priority::OWNER;
        Ok(if both_own {
            // RFC 9568, 7.1 with erratum 8298: a remark, or both would stay Active.
            Some(Remark::TwoOwners)
        } else if !are_addresses_same {
            Some(Remark::AddressesDiffer)
        } else {
            (!is_interval_same).then_some(Remark::IntervalDiffers)
        })
    }

    fn admit_source(&self, source: &IpAddr) -> Result<(), Refusal> {
        ensure(is_host(source), Refusal::NoSource)?;
        ensure(*source != self.source, Refusal::OwnAddress)?;
        match &self.peers {
            Peers::Multicast => Ok(()),
            Peers::Unicast(peers) => ensure(peers.contains(source), Refusal::Stranger),
        }
    }

    /// Where each advert goes (RFC 9568, 7.2), and what its IP header says.
    pub fn envelopes(&self) -> impl Iterator<Item = Envelope> {
        let (group, peers) = match &self.peers {
            Peers::Multicast => (Some(self.addresses.family().group()), [].as_slice()),
            Peers::Unicast(peers) => (None, peers.as_slice()),
        };
        let destinations = group.into_iter().chain(peers.iter().copied());
        destinations.map(|destination| Envelope {
            source: self.source,
            destination,
            hops: HOPS,
        })
    }

    /// An advert of this router (RFC 9568, 7.2).
    #[must_use]
    pub fn advert(&self, priority: Priority) -> Advert {
        Advert {
            version: self.version,
            vrid: self.vrid,
            priority,
            interval: self.interval,
            password: self.password,
            addresses: self.addresses.clone(),
        }
    }
}

fn ensure<E>(is_right: bool, otherwise: E) -> Result<(), E> {
    if is_right { Ok(()) } else { Err(otherwise) }
}

/// Whether packets of one host can come from there.
fn is_host(address: &IpAddr) -> bool {
    let is_broadcast = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast)
}

#[cfg(test)]
mod tests;
