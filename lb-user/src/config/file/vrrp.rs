//! The keys of a `[[vrrp]]`.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::interface;
use crate::config::error::Problem;
use crate::config::model::{OtherAddresses, VrrpChecksum, VrrpVersion, WithoutBackends};
use crate::config::reader::{Located, Place, Table};
use crate::config::value::{
    Meaning, boolean, duration, host_address, name, number, text, text_that, word,
};

/// An address that nobody has for longer is no service.
const LONGEST_DELAY: Duration = Duration::from_secs(3_600);
/// The longest of VRRPv2; VRRPv3 has less.
const LONGEST_INTERVAL: Duration = Duration::from_secs(255);

pub(in crate::config) struct Vrrp {
    pub(in crate::config) place: Place,
    pub(in crate::config) name: Option<Located<String>>,
    pub(in crate::config) interface: Option<Located<String>>,
    pub(in crate::config) vrid: Option<Located<u8>>,
    pub(in crate::config) version: Option<Located<VrrpVersion>>,
    pub(in crate::config) priority: Option<Located<u8>>,
    pub(in crate::config) advert_interval: Option<Located<Duration>>,
    pub(in crate::config) source: Option<Located<IpAddr>>,
    pub(in crate::config) peers: Vec<Located<IpAddr>>,
    pub(in crate::config) password: Option<Located<String>>,
    pub(in crate::config) checksum: Option<Located<VrrpChecksum>>,
    pub(in crate::config) other_addresses: Option<Located<OtherAddresses>>,
    pub(in crate::config) preempt: Option<Located<bool>>,
    pub(in crate::config) preempt_delay: Option<Located<Duration>>,
    pub(in crate::config) startup_delay: Option<Located<Duration>>,
    pub(in crate::config) without_backends: Option<Located<WithoutBackends>>,
    pub(in crate::config) vips: Vec<Located<IpAddr>>,
    pub(in crate::config) group: Option<Located<String>>,
    pub(in crate::config) announce_repeats: Option<Located<u8>>,
    pub(in crate::config) announce_interval: Option<Located<Duration>>,
    pub(in crate::config) announce_refresh: Option<Located<Duration>>,
    pub(in crate::config) virtual_mac: Option<Located<bool>>,
    pub(in crate::config) tracks: Vec<Track>,
}

/// A `[[vrrp.track]]`.
pub(in crate::config) struct Track {
    pub(in crate::config) place: Place,
    pub(in crate::config) name: Option<Located<String>>,
    pub(in crate::config) gateway: Option<Located<IpAddr>>,
    pub(in crate::config) script: Vec<Located<String>>,
    pub(in crate::config) backends_up: Option<Located<u8>>,
    pub(in crate::config) interval: Option<Located<Duration>>,
    pub(in crate::config) timeout: Option<Located<Duration>>,
    pub(in crate::config) fall: Option<Located<u32>>,
    pub(in crate::config) rise: Option<Located<u32>>,
    pub(in crate::config) weight: Option<Located<i32>>,
}

impl Track {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            place: table.place(),
            name: table.required("name", "name = \"gateway\"", name),
            gateway: table.optional("gateway", host_address),
            script: table.list("script", text),
            backends_up: table.optional("backends_up", number(1..=100)),
            interval: table.optional("interval", duration(LONGEST_DELAY)),
            timeout: table.optional("timeout", duration(LONGEST_DELAY)),
            fall: table.optional("fall", number(1..=1_000)),
            rise: table.optional("rise", number(1..=1_000)),
            weight: table.optional("weight", number(-254..=-1)),
        }
    }
}

impl Vrrp {
    pub(in crate::config) fn read(table: &mut Table<'_>) -> Self {
        Self {
            place: table.place(),
            name: table.required("name", "name = \"front\"", name),
            interface: table.optional("interface", interface),
            vrid: table.required("vrid", "vrid = 51", number(1..=u8::MAX)),
            version: table.optional("version", version),
            priority: table.optional("priority", number(1..=u8::MAX)),
            advert_interval: table.optional("advert_interval", duration(LONGEST_INTERVAL)),
            source: table.optional("source", host_address),
            peers: table.list("peers", host_address),
            password: table.optional("password", password),
            checksum: table.optional(
                "checksum",
                word(&[
                    ("pseudo_header", VrrpChecksum::PseudoHeader),
                    ("message", VrrpChecksum::Message),
                ]),
            ),
            other_addresses: table.optional(
                "other_addresses",
                word(&[
                    ("remark", OtherAddresses::Remark),
                    ("refuse", OtherAddresses::Refuse),
                ]),
            ),
            preempt: table.optional("preempt", boolean),
            preempt_delay: table.optional("preempt_delay", duration(LONGEST_DELAY)),
            startup_delay: table.optional("startup_delay", duration(LONGEST_DELAY)),
            without_backends: table.optional(
                "without_backends",
                word(&[
                    ("release", WithoutBackends::Release),
                    ("stay", WithoutBackends::Stay),
                ]),
            ),
            vips: table.list("vips", host_address),
            group: table.optional("group", name),
            announce_repeats: table.optional("announce_repeats", number(1..=u8::MAX)),
            announce_interval: table.optional("announce_interval", duration(LONGEST_DELAY)),
            announce_refresh: table.optional("announce_refresh", duration(LONGEST_DELAY)),
            virtual_mac: table.optional("virtual_mac", boolean),
            tracks: table.tables("track", Track::read),
        }
    }
}

fn version(value: &DeValue<'_>) -> Meaning<VrrpVersion> {
    number(2..=3_u8)(value).map(|number| match number {
        2 => VrrpVersion::V2,
        _ => VrrpVersion::V3,
    })
}

/// RFC 2338, 5.3.6. No error repeats it.
fn password(value: &DeValue<'_>) -> Meaning<String> {
    let expected = "a password of 1 to 8 bytes in a string";
    text_that(expected, |text| {
        (1..=8).contains(&text.len()) && !text.contains('\0')
    })(value)
    .map_err(|_| Problem::Invalid {
        expected: expected.to_owned(),
        found: "the value".to_owned(),
    })
}
