//! Each rule for settings, and each check of adverts that depends on them.

use super::{LONGEST_DELAY, OtherAddresses, Peers, Preemption, Settings, Unfit};
use crate::core::vrrp::advert::{
    Addresses, Advert, Envelope, Family, GROUP_V4, GROUP_V6, HOPS, Interval, Password, Priority,
    Version, Vrid,
};
use crate::core::vrrp::machine::tests::bench::{from, ip, ms, settings, settings_v2, settings_v6};
use crate::core::vrrp::refusal::{Refusal, Remark};

fn interval(centiseconds: u16) -> Interval {
    Interval::centiseconds(centiseconds).unwrap()
}

fn addresses(texts: &[&str]) -> Addresses {
    let addresses: Vec<_> = texts.iter().map(|text| ip(text)).collect();
    Addresses::new(addresses).unwrap()
}

/// The default, changed.
fn with(settings: Settings, change: impl Fn(&mut Settings)) -> Settings {
    let mut settings = settings;
    change(&mut settings);
    settings
}

fn check(settings: Settings, change: impl Fn(&mut Settings)) -> Result<(), Unfit> {
    with(settings, change).check()
}

#[test]
fn the_usual_settings_are_fit() {
    for settings in [settings(100), settings_v6(255), settings_v2(1)] {
        assert_eq!(settings.check(), Ok(()));
    }
}

/// RFC 9568, 5.2.4.
#[test]
fn a_priority_of_zero_is_unfit() {
    assert_eq!(settings(0).check(), Err(Unfit::Priority));
    assert_eq!(settings(1).check(), Ok(()));
}

/// RFC 9568, 5.2.7; RFC 3768, 5.3.7.
#[test]
fn intervals_must_fit_their_version() {
    for (cs, v3, v2) in [
        (1, Ok(()), Err(Unfit::IntervalV2)),
        (100, Ok(()), Ok(())),
        (150, Ok(()), Err(Unfit::IntervalV2)),
        (4_095, Ok(()), Err(Unfit::IntervalV2)),
        (4_096, Err(Unfit::IntervalV3), Err(Unfit::IntervalV2)),
        (25_500, Err(Unfit::IntervalV3), Ok(())),
        (25_600, Err(Unfit::IntervalV3), Err(Unfit::IntervalV2)),
    ] {
        let change = |settings: &mut Settings| settings.interval = interval(cs);
        assert_eq!(check(settings(100), change), v3, "{cs}");
        assert_eq!(check(settings_v2(100), change), v2, "{cs}");
    }
}

#[test]
fn version_two_is_for_ipv4_and_passwords() {
    let two = |settings: &mut Settings| settings.version = Version::V2;
    assert_eq!(check(settings_v6(100), two), Err(Unfit::VersionTwo));
    let password = |settings: &mut Settings| settings.password = Password::new("x");
    assert_eq!(check(settings_v2(100), password), Ok(()));
    assert_eq!(check(settings(100), password), Err(Unfit::Password));
}

/// RFC 9568, 5.2.9.
#[test]
fn source_and_addresses_must_be_of_one_family() {
    let v6 = |settings: &mut Settings| settings.source = ip("fe80::5");
    assert_eq!(check(settings(100), v6), Err(Unfit::Family));
    let v4 = |settings: &mut Settings| settings.source = ip("10.0.0.5");
    assert_eq!(check(settings_v6(100), v4), Err(Unfit::Family));
}

/// RFC 9568, 5.2.9, 6.1.
#[test]
fn the_first_address_of_ipv6_must_be_link_local() {
    let reversed = |settings: &mut Settings| {
        settings.addresses = addresses(&["fd00::100", "fe80::100"]);
    };
    assert_eq!(check(settings_v6(100), reversed), Err(Unfit::NoLinkLocal));
    let own = |settings: &mut Settings| {
        settings.addresses = Addresses::new([settings.vrid.link_local().into()]).unwrap();
    };
    assert_eq!(check(settings_v6(100), own), Ok(()));
}

#[test]
fn sources_and_peers_must_be_hosts() {
    for wrong in ["0.0.0.0", "224.0.0.18", "127.0.0.1", "255.255.255.255"] {
        let source = |settings: &mut Settings| settings.source = ip(wrong);
        assert_eq!(check(settings(100), source), Err(Unfit::Source), "{wrong}");
    }
    for (peers, expected) in [
        (&["10.0.0.9", "10.1.0.9"][..], Ok(())),
        (&[], Err(Unfit::Peers)),
        (&["10.0.0.9", "0.0.0.0"], Err(Unfit::Peers)),
        (&["10.0.0.5"], Err(Unfit::Peers)),
        (&["fe80::9"], Err(Unfit::Peers)),
    ] {
        let peers = |settings: &mut Settings| {
            settings.peers = Peers::Unicast(peers.iter().map(|text| ip(text)).collect());
        };
        assert_eq!(check(settings(100), peers), expected);
    }
}

#[test]
fn delays_must_not_be_longer_than_an_hour() {
    let changes: [fn(&mut Settings); 4] = [
        |settings| settings.startup_delay = LONGEST_DELAY + ms(1),
        |settings| settings.preemption = Preemption::After(LONGEST_DELAY + ms(1)),
        |settings| settings.announcements.interval = LONGEST_DELAY + ms(1),
        |settings| settings.announcements.refresh = Some(LONGEST_DELAY + ms(1)),
    ];
    for change in changes {
        assert_eq!(check(settings(100), change), Err(Unfit::Delay));
    }
    let longest = |settings: &mut Settings| settings.startup_delay = LONGEST_DELAY;
    assert_eq!(check(settings(100), longest), Ok(()));
}

/// An advert of a peer that is configured alike is taken without a remark; the changed one is not.
fn admit(settings: &Settings, change: impl Fn(&mut Advert)) -> Result<Option<Remark>, Refusal> {
    let envelope = match settings.addresses.family() {
        Family::V4 => from("10.0.0.9"),
        Family::V6 => from("fe80::9"),
    };
    let mut advert = settings.advert(Priority(100));
    assert_eq!(settings.admit(&advert, &envelope), Ok(None));
    change(&mut advert);
    settings.admit(&advert, &envelope)
}

/// RFC 9568, 7.1.
#[test]
fn adverts_of_other_virtual_routers_are_refused() {
    let other = |advert: &mut Advert| advert.vrid = Vrid::new(8).unwrap();
    assert_eq!(admit(&settings(100), other), Err(Refusal::Vrid));
}

/// RFC 9568, 7.1; RFC 3768, 7.1.
#[test]
fn adverts_of_the_other_version_are_refused() {
    let two = |advert: &mut Advert| advert.version = Version::V2;
    assert_eq!(admit(&settings(100), two), Err(Refusal::Version));
    let three = |advert: &mut Advert| advert.version = Version::V3;
    assert_eq!(admit(&settings_v2(100), three), Err(Refusal::Version));
}

/// RFC 9568, 1: the virtual routers of the families are independent.
#[test]
fn adverts_of_the_other_family_are_refused() {
    let six = |advert: &mut Advert| advert.addresses = addresses(&["fe80::100"]);
    assert_eq!(admit(&settings(100), six), Err(Refusal::Family));
}

#[test]
fn adverts_from_no_host_are_refused() {
    for (settings, sources) in [
        (
            settings(100),
            ["0.0.0.0", "127.0.0.1", "224.0.0.18", "255.255.255.255"],
        ),
        (settings_v6(100), ["::", "::1", "ff02::12", "ff02::1"]),
    ] {
        let advert = settings.advert(Priority(200));
        for source in sources {
            let refused = settings.admit(&advert, &from(source));
            assert_eq!(refused, Err(Refusal::NoSource), "{source}");
        }
    }
}

#[test]
fn adverts_from_the_own_address_are_refused() {
    for settings in [settings(100), settings_v6(100)] {
        let advert = settings.advert(Priority(200));
        let own = Envelope {
            source: settings.source,
            ..from("10.0.0.9")
        };
        assert_eq!(settings.admit(&advert, &own), Err(Refusal::OwnAddress));
    }
}

#[test]
fn in_unicast_adverts_of_strangers_are_refused() {
    let unicast = with(settings(100), |settings| {
        settings.peers = Peers::Unicast(vec![ip("10.0.0.9"), ip("10.0.0.8")]);
    });
    let advert = unicast.advert(Priority(200));
    for (source, expected) in [
        ("10.0.0.9", Ok(None)),
        ("10.0.0.8", Ok(None)),
        ("10.0.0.7", Err(Refusal::Stranger)),
    ] {
        assert_eq!(unicast.admit(&advert, &from(source)), expected);
    }
}

#[test]
fn in_multicast_adverts_of_any_host_are_taken() {
    let advert = settings(100).advert(Priority(200));
    for source in ["10.0.0.7", "192.168.1.1"] {
        assert_eq!(settings(100).admit(&advert, &from(source)), Ok(None));
    }
}

/// RFC 2338, 7.1; RFC 3768, 7.1.
#[test]
fn adverts_with_another_authentication_are_refused() {
    let closed = with(settings_v2(100), |settings| {
        settings.password = Password::new("secret");
    });
    let wrong = |advert: &mut Advert| advert.password = Password::new("Secret");
    assert_eq!(admit(&closed, wrong), Err(Refusal::AuthMismatch));
    let longer = |advert: &mut Advert| advert.password = Password::new("secret1");
    assert_eq!(admit(&closed, longer), Err(Refusal::AuthMismatch));
    let none = |advert: &mut Advert| advert.password = None;
    assert_eq!(admit(&closed, none), Err(Refusal::AuthType));
    assert_eq!(admit(&settings_v2(100), wrong), Err(Refusal::AuthType));
}

/// RFC 3768, 7.1; RFC 9568, 7.1.
#[test]
fn another_interval_is_refused_in_version_two_and_remarked_in_version_three() {
    let other = |advert: &mut Advert| advert.interval = interval(200);
    let refused = admit(&settings_v2(100), other);
    assert_eq!(refused, Err(Refusal::IntervalMismatch));
    let remarked = admit(&settings(100), other);
    assert_eq!(remarked, Ok(Some(Remark::IntervalDiffers)));
}

/// RFC 9568, 7.1; RFC 3768, 7.1.
#[test]
fn other_addresses_are_refused_if_asked_for() {
    let strict = |settings| {
        with(settings, |settings| {
            settings.other_addresses = OtherAddresses::Refuse;
        })
    };
    let other = |advert: &mut Advert| advert.addresses = addresses(&["10.0.0.101"]);
    let owners = |advert: &mut Advert| {
        advert.addresses = addresses(&["10.0.0.101"]);
        advert.priority = Priority::OWNER;
    };
    let remarked = Ok(Some(Remark::AddressesDiffer));
    assert_eq!(admit(&settings(100), other), remarked);
    assert_eq!(admit(&settings_v2(100), other), remarked);
    for settings in [settings(100), settings_v2(100)] {
        let refused = admit(&strict(settings), other);
        assert_eq!(refused, Err(Refusal::Addresses));
    }
    assert_eq!(admit(&strict(settings_v2(100)), owners), remarked);
    let refused = admit(&strict(settings(100)), owners);
    assert_eq!(refused, Err(Refusal::Addresses));
}

#[test]
fn the_order_of_addresses_does_not_matter() {
    let two = with(settings(100), |settings| {
        settings.addresses = addresses(&["10.0.0.100", "10.0.0.101"]);
    });
    let reversed =
        |advert: &mut Advert| advert.addresses = addresses(&["10.0.0.101", "10.0.0.100"]);
    assert_eq!(admit(&two, reversed), Ok(None));
    for other in [
        &["10.0.0.100"][..],
        &["10.0.0.100", "10.0.0.100"],
        &["10.0.0.100", "10.0.0.101", "10.0.0.102"],
    ] {
        let other = |advert: &mut Advert| advert.addresses = addresses(other);
        assert_eq!(admit(&two, other), Ok(Some(Remark::AddressesDiffer)));
    }
}

/// RFC 9568, 7.1 with erratum 8298.
#[test]
fn a_second_owner_is_remarked() {
    let owner = |advert: &mut Advert| advert.priority = Priority::OWNER;
    let remarked = admit(&settings(255), owner);
    assert_eq!(remarked, Ok(Some(Remark::TwoOwners)));
    assert_eq!(admit(&settings(254), owner), Ok(None));
}

/// RFC 9568, 5.1.1, 5.1.2, 7.2.
#[test]
fn adverts_go_from_the_primary_address_to_the_group_with_255_hops() {
    for (settings, group) in [
        (settings(100), GROUP_V4.into()),
        (settings_v6(100), GROUP_V6.into()),
    ] {
        let envelope = Envelope {
            source: settings.source,
            destination: group,
            hops: HOPS,
        };
        assert_eq!(settings.envelopes().collect::<Vec<_>>(), [envelope]);
    }
    assert_eq!((GROUP_V4.to_string(), HOPS), ("224.0.0.18".to_owned(), 255));
    assert_eq!(GROUP_V6.to_string(), "ff02::12");
}

#[test]
fn in_unicast_adverts_go_to_each_peer() {
    let peers = vec![ip("10.0.0.9"), ip("10.0.0.8")];
    let unicast = with(settings(100), |settings| {
        settings.peers = Peers::Unicast(peers.clone());
    });
    let destinations = unicast.envelopes().map(|envelope| envelope.destination);
    assert_eq!(destinations.collect::<Vec<_>>(), peers);
}

/// RFC 9568, 7.2.
#[test]
fn adverts_are_filled_in_with_the_configuration() {
    let closed = with(settings_v2(100), |settings| {
        settings.password = Password::new("secret");
    });
    let advert = Advert {
        version: Version::V2,
        vrid: closed.vrid,
        priority: Priority(42),
        interval: interval(100),
        password: Password::new("secret"),
        addresses: addresses(&["10.0.0.100"]),
    };
    assert_eq!(closed.advert(Priority(42)), advert);
}
