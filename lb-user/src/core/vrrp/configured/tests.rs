//! Routers that are configured, as they are set up.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::{self, model::Config};
use crate::core::vrrp::advert::{Dialect, Interval, Priority, Version};
use crate::core::vrrp::settings::{AcceptMode, OtherAddresses, Peers, Preemption, Settings, Unfit};

const FILE: &str = r#"
interface = "eth0"

[[vip]]
address = "172.16.40.24/32"

[[vip]]
address = "fe80::40:24/64"

[[vip]]
address = "fd00:40::24/128"

[[vrrp]]
name = "v4"
vrid = 51
version = 2
priority = 255
advert_interval = "2s"
source = "172.16.40.2"
peers = ["172.16.40.3", "172.16.40.4"]
password = "geheim12"
other_addresses = "refuse"
preempt = false
startup_delay = "5s"
vips = ["172.16.40.24"]
announce_repeats = 3
announce_interval = "200ms"
announce_refresh = "1m"

[[vrrp]]
name = "v6"
vrid = 51
advert_interval = "10ms"
preempt_delay = "30s"
vips = ["fe80::40:24", "fd00:40::24"]
"#;

fn config(text: &str) -> Config {
    config::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn keys_become_settings() {
    let config = config(FILE);
    let settings = Settings::of(&config.vrrps()[0], ip("172.16.40.1")).unwrap();
    assert_eq!((settings.version, settings.vrid.get()), (Version::V2, 51));
    assert_eq!(settings.priority, Priority::OWNER);
    assert_eq!(settings.interval.get(), 200);
    assert_eq!(settings.source, ip("172.16.40.2"));
    assert_eq!(settings.addresses.to_vec(), [ip("172.16.40.24")]);
    let peers = vec![ip("172.16.40.3"), ip("172.16.40.4")];
    assert_eq!(settings.peers, Peers::Unicast(peers));
    assert_eq!(settings.password.unwrap().0, *b"geheim12");
    assert_eq!(settings.other_addresses, OtherAddresses::Refuse);
    assert_eq!(settings.preemption, Preemption::Never);
    assert_eq!(settings.startup_delay, Duration::from_secs(5));
    assert_eq!(settings.announcements.repeats.get(), 3);
    assert_eq!(settings.announcements.interval, Duration::from_millis(200));
    assert_eq!(
        settings.announcements.refresh,
        Some(Duration::from_secs(60))
    );
}

#[test]
fn defaults_become_settings_too() {
    let config = config(FILE);
    let settings = Settings::of(&config.vrrps()[1], ip("fe80::1")).unwrap();
    assert_eq!(settings.version, Version::V3);
    assert_eq!(settings.priority, Priority(100));
    assert_eq!(Some(settings.interval), Interval::centiseconds(1));
    assert_eq!(settings.source, ip("fe80::1"), "the interface's own");
    assert_eq!(
        settings.addresses.to_vec(),
        [ip("fe80::40:24"), ip("fd00:40::24")]
    );
    assert_eq!(settings.peers, Peers::Multicast);
    assert_eq!(settings.password, None);
    assert_eq!(settings.dialect, Dialect::PseudoHeader);
    assert_eq!(settings.other_addresses, OtherAddresses::Remark);
    assert_eq!(
        settings.preemption,
        Preemption::After(Duration::from_secs(30))
    );
    assert_eq!(settings.accept_mode, AcceptMode::Accept);
}

#[test]
fn the_dialect_that_is_sent_can_be_chosen() {
    let text = "interface = \"eth0\"\n[[vip]]\naddress = \"192.0.2.1\"\n\
                [[vrrp]]\nname = \"a\"\nvrid = 1\nvips = [\"192.0.2.1\"]\nchecksum = \"message\"\n";
    let config = config(text);
    let settings = Settings::of(&config.vrrps()[0], ip("192.0.2.2")).unwrap();
    assert_eq!(settings.dialect, Dialect::Message);
}

#[test]
fn a_primary_address_of_the_other_family_does_not_do() {
    let config = config(FILE);
    let settings = Settings::of(&config.vrrps()[1], ip("192.0.2.2"));
    assert_eq!(settings, Err(Unfit::Family));
}
