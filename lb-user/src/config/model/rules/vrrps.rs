//! The rules for virtual routers.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU8;
use std::time::Duration;

use super::{check_unique, or};
use crate::config::error::Problem;
use crate::config::file;
use crate::config::model::{
    OtherAddresses, Secret, Track, TrackTarget, Vrrp, VrrpChecksum, VrrpVersion, WithoutBackends,
    defaults,
};
use crate::config::reader::{Errors, Located, Place};
use crate::config::value::format_duration;

pub(super) fn check(raw: &file::Config, errors: &Errors) {
    let names = raw.vrrps.iter().filter_map(|vrrp| vrrp.name.as_ref());
    let names = names.map(|name| (&name.value, &name.place));
    check_unique(names, "choose another name", errors);
    let numbers = raw.vrrps.iter().filter_map(|vrrp| number(vrrp, raw));
    let remedy = "each interface, family and number makes one virtual router";
    check_unique(numbers, remedy, errors);
    let vips = raw.vrrps.iter().flat_map(|vrrp| &vrrp.vips);
    let vips = vips.map(|vip| (vip.value, &vip.place));
    check_unique(vips, "a VIP is of one virtual router", errors);
    check_groups(&raw.vrrps, errors);
    for vrrp in &raw.vrrps {
        check_vips(vrrp, &raw.vips, errors);
        check_interval(vrrp, errors);
        check_combinations(vrrp, errors);
        check_hosts(vrrp, &raw.vips, errors);
        check_virtual_mac(vrrp, raw, errors);
        check_tracks(vrrp, errors);
    }
}

/// `tidegate vrrp release NAME` is about a router or a group.
fn check_groups(vrrps: &[file::Vrrp], errors: &Errors) {
    for group in vrrps.iter().filter_map(|vrrp| vrrp.group.as_ref()) {
        let names = vrrps.iter().filter(|vrrp| {
            let is_member = vrrp.group.as_ref().map(|own| &own.value) == Some(&group.value);
            !is_member
        });
        let mut names = names.filter_map(|vrrp| vrrp.name.as_ref());
        if let Some(name) = names.find(|name| name.value == group.value) {
            let line = name.place.line;
            let remedy = "a router that is not in the group has its name";
            errors.add(&group.place, Problem::Duplicate { line, remedy });
        }
    }
}

/// What adverts are told apart by; its place is that of the number.
fn number<'a>(
    vrrp: &'a file::Vrrp,
    raw: &'a file::Config,
) -> Option<((&'a str, bool, u8), &'a Place)> {
    let interface = vrrp.interface.as_ref().or(raw.interface.as_ref())?;
    let vrid = vrrp.vrid.as_ref()?;
    let key = (interface.value.as_str(), is_ipv4(vrrp)?, vrid.value);
    Some((key, &vrid.place))
}

/// The family is that of its first address.
fn is_ipv4(vrrp: &file::Vrrp) -> Option<bool> {
    vrrp.vips.first().map(|vip| vip.value.is_ipv4())
}

fn version(vrrp: &file::Vrrp) -> VrrpVersion {
    let version = vrrp.version.as_ref();
    version.map_or(VrrpVersion::V3, |version| version.value)
}

fn check_vips(vrrp: &file::Vrrp, declared: &[file::Vip], errors: &Errors) {
    let Some(first) = vrrp.vips.first() else {
        let place = Place {
            path: format!("{}.vips", vrrp.place.path),
            line: vrrp.place.line,
        };
        let example = "vips = [\"192.0.2.1\"]";
        return errors.add(&place, Problem::Missing { example });
    };
    // Their number is one byte of an advert (RFC 9568, 5.2.5).
    if let Some(vip) = vrrp.vips.get(usize::from(u8::MAX)) {
        let expected = "at most 255 addresses of a router".to_owned();
        let found = vrrp.vips.len().to_string();
        errors.add(&vip.place, Problem::Invalid { expected, found });
    }
    for vip in &vrrp.vips {
        let is_it = |declared: &&file::Vip| {
            let address = declared.address.as_ref();
            address.is_some_and(|address| address.value.0 == vip.value)
        };
        let address = vip.value.to_string();
        match declared.iter().find(is_it) {
            None => errors.add(&vip.place, Problem::UndeclaredVip { address }),
            Some(file::Vip {
                assign: Some(Located { value: false, .. }),
                ..
            }) => errors.add(&vip.place, Problem::NotAssigned { address }),
            Some(_) => {}
        }
        if vip.value.is_ipv4() != first.value.is_ipv4() {
            errors.add(&vip.place, Problem::TwoFamilies);
        }
    }
    // RFC 9568, 5.2.9.
    if let IpAddr::V6(v6) = first.value
        && !v6.is_unicast_link_local()
    {
        let vrid = vrrp.vrid.as_ref().map_or(1, |vrid| vrid.value);
        let example = Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            0x0200,
            0x5eff,
            0xfe00,
            0x0200 | u16::from(vrid),
        );
        let example = example.to_string();
        errors.add(&first.place, Problem::NotLinkLocal { example });
    }
}

/// RFC 9568, 5.2.7; RFC 3768, 5.3.7.
fn check_interval(vrrp: &file::Vrrp, errors: &Errors) {
    let Some(interval) = &vrrp.advert_interval else {
        return;
    };
    let millis = interval.value.as_millis();
    let (unit, longest, expected) = match version(vrrp) {
        VrrpVersion::V2 => (1_000, 255_000, "a whole number of seconds up to \"255s\""),
        VrrpVersion::V3 => (10, 40_950, "a multiple of \"10ms\" up to \"40950ms\""),
    };
    if !millis.is_multiple_of(unit) || millis > longest {
        let expected = format!("an interval of this version, {expected}");
        let found = format_duration(interval.value);
        errors.add(&interval.place, Problem::Invalid { expected, found });
    }
}

/// Keys that only mean something beside others.
fn check_combinations(vrrp: &file::Vrrp, errors: &Errors) {
    let is_v2 = version(vrrp) == VrrpVersion::V2;
    let is_ipv4 = is_ipv4(vrrp).unwrap_or(true);
    let refuse = |place: Option<&Place>, is_right: bool, needed: &'static str| {
        if let Some(place) = place
            && !is_right
        {
            errors.add(place, Problem::NotForRouter { needed });
        }
    };
    let place = |version: &Located<VrrpVersion>| version.place.clone();
    let version = vrrp.version.as_ref().map(place);
    refuse(
        version.as_ref(),
        !is_v2 || is_ipv4,
        "VIPs of IPv4, or `version = 3`",
    );
    let password = vrrp.password.as_ref().map(|password| &password.place);
    refuse(password, is_v2, "`version = 2`");
    let checksum = vrrp.checksum.as_ref().map(|checksum| &checksum.place);
    refuse(
        checksum,
        !is_v2 && is_ipv4,
        "`version = 3` and VIPs of IPv4",
    );
    let preempts = vrrp.preempt.as_ref().is_none_or(|preempt| preempt.value);
    let delay = vrrp.preempt_delay.as_ref().map(|delay| &delay.place);
    refuse(delay, preempts, "`preempt = true`");
}

/// The program answers for it, on the interface that it is attached to and while the router has a lease;
/// switches learn where it is from adverts that all of them see.
fn check_virtual_mac(vrrp: &file::Vrrp, raw: &file::Config, errors: &Errors) {
    let Some(given) = vrrp.virtual_mac.as_ref().filter(|given| given.value) else {
        return;
    };
    let refuse = |needed| errors.add(&given.place, Problem::NotForRouter { needed });
    let interfaces = vrrp.interface.as_ref().zip(raw.interface.as_ref());
    if interfaces.is_some_and(|(own, carrier)| own.value != carrier.value) {
        refuse("the interface of the VIPs");
    }
    if !vrrp.peers.is_empty() {
        refuse("multicast, without `peers`");
    }
    if vrrp.priority.as_ref().is_some_and(|it| it.value == u8::MAX) {
        refuse("a priority below 255, as an owner's host answers for itself");
    }
}

/// Peers and source.
fn check_hosts(vrrp: &file::Vrrp, vips: &[file::Vip], errors: &Errors) {
    let peers = vrrp.peers.iter().map(|peer| (peer.value, &peer.place));
    check_unique(peers, "remove one", errors);
    let is_owner = vrrp.priority.as_ref().is_some_and(|p| p.value == u8::MAX);
    let is_vip = |host: IpAddr| {
        let mut declared = vips.iter().filter_map(|vip| vip.address.as_ref());
        declared.any(|vip| vip.value.0 == host)
    };
    for host in vrrp.peers.iter().chain(&vrrp.source) {
        let address = host.value.to_string();
        if is_ipv4(vrrp).is_some_and(|is_ipv4| is_ipv4 != host.value.is_ipv4()) {
            errors.add(&host.place, Problem::OtherFamily { address });
        } else if is_vip(host.value) && !is_owner {
            errors.add(&host.place, Problem::IsVip { address });
        }
    }
    if let Some(source) = &vrrp.source
        && let Some(peer) = vrrp.peers.iter().find(|peer| peer.value == source.value)
    {
        let line = source.place.line;
        let remedy = "a router is not its own peer";
        errors.add(&peer.place, Problem::Duplicate { line, remedy });
    }
}

/// What it depends on.
fn check_tracks(vrrp: &file::Vrrp, errors: &Errors) {
    let names = vrrp.tracks.iter().filter_map(|it| it.name.as_ref());
    let names = names.map(|name| (&name.value, &name.place));
    check_unique(names, "choose another name", errors);
    let is_owner = vrrp.priority.as_ref().is_some_and(|p| p.value == u8::MAX);
    for track in &vrrp.tracks {
        let given = [
            track.gateway.is_some(),
            !track.script.is_empty(),
            track.backends_up.is_some(),
        ];
        if given.into_iter().filter(|is_given| *is_given).count() != 1 {
            errors.add(&track.place, Problem::NotOneTarget);
        }
        if track.backends_up.is_some() {
            check_share(track, errors);
        }
        if let Some(gateway) = &track.gateway
            && matches!(gateway.value, IpAddr::V6(v6) if v6.is_unicast_link_local())
        {
            let address = gateway.value.to_string();
            errors.add(&gateway.place, Problem::LinkLocal { address });
        }
        if let Some(weight) = &track.weight
            && is_owner
        {
            let needed = "a priority below 255, which is never lowered";
            errors.add(&weight.place, Problem::NotForRouter { needed });
        }
        // A script that takes longer is tried when it has ended; a gateway has answered before.
        let interval = track_interval(track);
        if let Some(timeout) = &track.timeout
            && track.gateway.is_some()
            && timeout.value > interval
        {
            let interval = format_duration(interval);
            errors.add(&timeout.place, Problem::TimeoutTooLong { interval });
        }
    }
}

/// A share of backends is no attempt that could take long, and no reason to go.
fn check_share(track: &file::Track, errors: &Errors) {
    if let Some(timeout) = &track.timeout {
        let needed = "`gateway` or `script`";
        errors.add(&timeout.place, Problem::NotForRouter { needed });
    }
    if track.weight.is_none() {
        let place = Place {
            path: format!("{}.weight", track.place.path),
            line: track.place.line,
        };
        errors.add(&place, Problem::ShareWithoutWeight);
    }
}

fn track_interval(track: &file::Track) -> Duration {
    let given = track.interval.as_ref().map(|it| it.value);
    given.unwrap_or(if track.script.is_empty() {
        defaults::GATEWAY_INTERVAL
    } else {
        defaults::SCRIPT_INTERVAL
    })
}

fn build_track(raw: file::Track) -> Option<Track> {
    let interval = track_interval(&raw);
    let cost = raw.weight.map(|weight| weight.value.unsigned_abs());
    let cost = cost.and_then(|cost| NonZeroU8::new(u8::try_from(cost).ok()?));
    let quick = defaults::GATEWAY_TIMEOUT.min(interval);
    let (target, timeout) = match (raw.gateway, raw.backends_up) {
        (Some(gateway), _) => (TrackTarget::Gateway(gateway.value), quick),
        (None, Some(percent)) => (TrackTarget::Backends(percent.value), quick),
        (None, None) => {
            let command = raw.script.into_iter().map(|word| word.value).collect();
            (TrackTarget::Script(command), defaults::SCRIPT_TIMEOUT)
        }
    };
    Some(Track {
        name: raw.name?.value,
        target,
        interval,
        timeout: or(raw.timeout, timeout),
        fall: or(raw.fall, defaults::TRACK_FALL),
        rise: or(raw.rise, defaults::TRACK_RISE),
        cost,
    })
}

pub(super) fn build(raw: file::Vrrp, interface: &str) -> Option<Vrrp> {
    let non_zero = |given: Option<Located<u8>>, default| NonZeroU8::new(or(given, default));
    let preempts = or(raw.preempt, true);
    let delay = or(raw.preempt_delay, Duration::ZERO);
    let values = |given: Vec<Located<IpAddr>>| given.into_iter().map(|one| one.value).collect();
    Some(Vrrp {
        name: raw.name?.value,
        interface: raw
            .interface
            .map_or(interface.to_owned(), |name| name.value),
        vrid: NonZeroU8::new(raw.vrid?.value)?,
        version: or(raw.version, VrrpVersion::V3),
        priority: non_zero(raw.priority, defaults::VRRP_PRIORITY)?,
        advert_interval: or(raw.advert_interval, defaults::ADVERT_INTERVAL),
        source: raw.source.map(|source| source.value),
        peers: values(raw.peers),
        password: raw.password.map(|password| Secret(password.value)),
        checksum: or(raw.checksum, VrrpChecksum::PseudoHeader),
        other_addresses: or(raw.other_addresses, OtherAddresses::Remark),
        preempt_after: preempts.then_some(delay),
        startup_delay: or(raw.startup_delay, Duration::ZERO),
        without_backends: or(raw.without_backends, WithoutBackends::Release),
        vips: values(raw.vips),
        group: raw.group.map(|group| group.value),
        announce_repeats: non_zero(raw.announce_repeats, defaults::ANNOUNCE_REPEATS)?,
        announce_interval: or(raw.announce_interval, defaults::ANNOUNCE_INTERVAL),
        announce_refresh: raw.announce_refresh.map(|refresh| refresh.value),
        has_virtual_mac: or(raw.virtual_mac, false),
        tracks: raw
            .tracks
            .into_iter()
            .map(build_track)
            .collect::<Option<_>>()?,
    })
}
