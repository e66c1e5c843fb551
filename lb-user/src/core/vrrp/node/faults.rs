//! What keeps routers back: what they lack, what lowers their priority, and the addresses that they
//! could speak from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::router::Router;
use super::{Backing, Closed, Facts, Line, Link};
use crate::config::model::{Track, Vrrp, WithoutBackends};
use crate::core::vrrp::advert::{Family, Priority};
use crate::core::vrrp::label::labelled;
use crate::core::vrrp::track::TrackState;

labelled! {
    /// What a router lacks.
    Fault {
        /// The program is not attached, or its maps have not held what they should for a while.
        NotReady = "not_ready",
        /// An interface is gone, switched off, or without its cable.
        LinkDown = "link_down",
        /// Its interface does not have the address that it would speak from.
        NoAddress = "no_address",
        /// It cannot speak: its socket cannot be opened, or not so soon.
        NoSocket = "no_socket",
        /// It cannot be set up as configured with that address.
        Unfit = "unfit",
        /// No service of its addresses has a backend.
        NoBackends = "no_backends",
        /// Its addresses could not be put on the interface; it tries again later.
        NoVip = "no_vip",
        /// Something that it depends on is down, or was not tried yet.
        Tracked = "tracked",
    }
}

labelled! {
    /// Why a router has a lower priority than configured.
    Handicap {
        /// Nobody answers who is behind its addresses. That is no [`Fault`]: of two nodes that hear
        /// nobody one must be Active when the backends can be reached again.
        SilentBackends = "silent_backends",
        /// Something that it depends on is down that has a weight.
        Tracked = "tracked",
    }
}

/// What is left of a priority that loses `cost`, for these reasons.
pub(super) fn lower(priority: Priority, cost: u32, handicaps: &BTreeSet<Handicap>) -> Priority {
    let cost = u8::try_from(cost).unwrap_or(u8::MAX);
    let left = priority.0.saturating_sub(cost);
    // Less than any that is usual, and still more for who had more, so that two nodes with the same
    // handicap stay what they are.
    let divisor = if handicaps.contains(&Handicap::SilentBackends) {
        16
    } else {
        1
    };
    Priority((left / divisor).max(1))
}

/// What is known of the things that a router depends on.
pub(super) fn tracked<'a>(
    vrrp: &'a Vrrp,
    facts: &'a Facts,
) -> impl Iterator<Item = (&'a Track, TrackState)> {
    vrrp.tracks().iter().map(|track| {
        let key = (vrrp.name().to_owned(), track.name().to_owned());
        let state = facts.forwarding.tracked.get(&key).copied();
        (track, state.unwrap_or(TrackState::Unknown))
    })
}

/// What a router's priority loses to those that are down.
pub(super) fn cost(vrrp: &Vrrp, facts: &Facts) -> u32 {
    let down = tracked(vrrp, facts).filter(|(_, state)| *state == TrackState::Down);
    let costs = down.filter_map(|(track, _)| track.cost());
    costs.map(|cost| u32::from(cost.get())).sum()
}

/// The family of a router's addresses.
pub(super) fn family_of(vrrp: &Vrrp) -> Option<Family> {
    vrrp.vips().first().map(Family::of)
}

/// The address that a router speaks from, if it is there.
pub(super) fn source(vrrp: &Vrrp, facts: &Facts) -> Option<IpAddr> {
    let addresses = &facts.links.get(vrrp.interface())?.addresses;
    if let Some(source) = vrrp.source() {
        return addresses.contains(&source).then_some(source);
    }
    let family = family_of(vrrp)?;
    // RFC 9568, 5.1.2.1; peers behind a router are not reached from a link-local address.
    let is_global = vrrp.peers().iter().any(|peer| !is_link_local(peer));
    let mut own = addresses.iter().filter(|own| {
        let is_fit = family == Family::V4 || is_link_local(own) != is_global;
        Family::of(own) == family && is_fit && !facts.plan.vips.contains_key(own)
    });
    own.next().copied()
}

/// Whether the address is there that is spoken from on a line.
pub(super) fn has_source(line: &Line, facts: &Facts) -> bool {
    let link = facts.links.get(&line.interface);
    link.is_some_and(|link| link.addresses.contains(&line.source))
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// What a router lacks that would speak from `source`.
pub(super) fn faults(
    router: &Router,
    source: Option<IpAddr>,
    backing: Backing,
    is_active: bool,
    facts: &Facts,
) -> BTreeSet<Fault> {
    let is_up = |name: &str| facts.links.get(name).is_some_and(|link: &Link| link.is_up);
    let has_links = is_up(router.vrrp.interface()) && is_up(&facts.plan.carrier);
    let speaks = router.line.as_ref();
    let has_address = match speaks {
        Some(line) => has_source(line, facts),
        None => source.is_some(),
    };
    let Closed { opening, broken } = &facts.closed;
    let has_socket = speaks.is_none_or(|line| {
        let is_opening = opening.contains(line) && !is_active;
        !is_opening && !broken.contains(line)
    });
    let has_backends = backing != Backing::Nobody || stays(&router.vrrp);
    // Who is Active may have been so before that was configured, or before this process began.
    let goes_on = is_active || router.was_active || router.leased_until.is_some();
    let has_tracked = tracked(&router.vrrp, facts).all(|(track, state)| match state {
        TrackState::Up => true,
        TrackState::Unknown => goes_on,
        TrackState::Down => track.cost().is_some(),
    });
    let checks = [
        (Fault::NotReady, facts.forwarding.is_ready),
        (Fault::LinkDown, has_links),
        (Fault::NoAddress, has_address),
        (Fault::NoSocket, has_socket),
        (Fault::Unfit, router.unfit.is_none()),
        (Fault::NoBackends, has_backends),
        (Fault::NoVip, !router.trial.is_over()),
        (Fault::Tracked, has_tracked),
    ];
    let failed = checks.into_iter().filter(|(_, is_fine)| !is_fine);
    failed.map(|(fault, _)| fault).collect()
}

/// Why a router should have a lower priority than configured, of which its group has lost `cost`.
pub(super) fn handicaps(vrrp: &Vrrp, backing: Backing, cost: u32) -> BTreeSet<Handicap> {
    // RFC 9568, 5.2.4: an owner's is 255.
    if Priority(vrrp.priority().get()) == Priority::OWNER {
        return BTreeSet::new();
    }
    let is_silent = backing == Backing::Silent && !stays(vrrp);
    let checks = [
        (Handicap::SilentBackends, is_silent),
        (Handicap::Tracked, cost > 0),
    ];
    let found = checks.into_iter().filter(|(_, is_so)| *is_so);
    found.map(|(handicap, _)| handicap).collect()
}

fn stays(vrrp: &Vrrp) -> bool {
    vrrp.without_backends() == WithoutBackends::Stay
}
