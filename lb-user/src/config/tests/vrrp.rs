//! Virtual routers: what may be said of them, and what they come to.

use std::time::Duration;

use super::{right, wrong};
use crate::config::model::{OtherAddresses, VrrpChecksum, VrrpVersion, WithoutBackends};

/// The right file with a link-local VIP, and these virtual routers.
fn with(routers: &str) -> String {
    let link_local = "[[vip]]\naddress = \"fe80::40:24/64\"\n";
    format!("{}\n{link_local}{routers}", super::RIGHT)
}

const SMALL: &str = "
[[vrrp]]
name = \"front\"
vrid = 51
vips = [\"172.16.40.24\"]
";

const FULL: &str = "
[[vrrp]]
name = \"front-v4\"
interface = \"eth1\"
vrid = 51
version = 2
priority = 255
advert_interval = \"2s\"
source = \"172.16.40.2\"
peers = [\"172.16.40.3\", \"172.16.40.4\"]
password = \"geheim12\"
other_addresses = \"refuse\"
preempt = false
startup_delay = \"5s\"
without_backends = \"stay\"
vips = [\"172.16.40.24\"]
group = \"front\"
announce_repeats = 3
announce_interval = \"200ms\"
announce_refresh = \"1m\"

[[vrrp]]
name = \"front-v6\"
vrid = 51
advert_interval = \"10ms\"
preempt_delay = \"30s\"
vips = [\"fe80::40:24\", \"fd00:40::24\"]
group = \"front\"
";

#[test]
fn the_example_and_the_readme_are_right() {
    let config = right(include_str!("../../../configs/tidegate-vrrp.toml"));
    let names: Vec<&str> = config.vrrps().iter().map(|vrrp| vrrp.name()).collect();
    assert_eq!(names, ["front-v4", "front-v6"]);
    assert_eq!(config.vrrps()[0].group(), config.vrrps()[1].group());
    for page in [
        include_str!("../../../../README.md"),
        include_str!("../../../../docs/pair.md"),
    ] {
        let blocks = page.split("```toml\n").skip(1);
        let mut blocks = blocks.filter_map(|rest| rest.split_once("```"));
        let (text, _) = blocks.find(|(text, _)| text.contains("[[vrrp]]")).unwrap();
        assert_eq!(right(text).vrrps().len(), 1);
    }
}

#[test]
fn absent_keys_stand_for_defaults() {
    let config = right(&with(SMALL));
    let [vrrp] = config.vrrps() else {
        panic!("one virtual router")
    };
    assert_eq!((vrrp.name(), vrrp.interface()), ("front", "eth0"));
    assert_eq!((vrrp.vrid().get(), vrrp.priority().get()), (51, 100));
    assert_eq!(vrrp.version(), VrrpVersion::V3);
    assert_eq!(vrrp.advert_interval(), Duration::from_secs(1));
    assert_eq!((vrrp.source(), vrrp.peers()), (None, &[][..]));
    assert_eq!((vrrp.password(), vrrp.group()), (None, None));
    assert_eq!(vrrp.checksum(), VrrpChecksum::PseudoHeader);
    assert_eq!(vrrp.other_addresses(), OtherAddresses::Remark);
    assert_eq!(vrrp.preempt_after(), Some(Duration::ZERO));
    assert_eq!(vrrp.startup_delay(), Duration::ZERO);
    assert_eq!(vrrp.without_backends(), WithoutBackends::Release);
    assert_eq!(vrrp.announce_repeats().get(), 5);
    assert_eq!(vrrp.announce_interval(), Duration::from_secs(1));
    assert_eq!(vrrp.announce_refresh(), None);
    assert_eq!(vrrp.virtual_mac(), None);
}

#[test]
fn a_virtual_mac_is_of_number_and_family() {
    let mac = |text: &str| {
        right(&with(text)).vrrps()[0]
            .virtual_mac()
            .unwrap()
            .to_string()
    };
    let v4 = format!("{SMALL}virtual_mac = true\n");
    assert_eq!(mac(&v4), "00:00:5e:00:01:33");
    let v6 = v4.replace("\"172.16.40.24\"", "\"fe80::40:24\", \"fd00:40::24\"");
    assert_eq!(mac(&v6), "00:00:5e:00:02:33");
}

#[test]
fn given_keys_are_taken() {
    let config = right(&with(FULL));
    assert!(!format!("{config:?}").contains("geheim"));
    let [v4, v6] = config.vrrps() else {
        panic!("two virtual routers")
    };
    assert_eq!((v4.interface(), v4.group()), ("eth1", Some("front")));
    assert_eq!((v4.version(), v4.priority().get()), (VrrpVersion::V2, 255));
    assert_eq!(v4.advert_interval(), Duration::from_secs(2));
    assert_eq!(v4.source().unwrap().to_string(), "172.16.40.2");
    assert_eq!(v4.peers().len(), 2);
    assert_eq!(v4.password().unwrap().expose(), "geheim12");
    assert_eq!(v4.other_addresses(), OtherAddresses::Refuse);
    assert_eq!(v4.preempt_after(), None);
    assert_eq!(v4.without_backends(), WithoutBackends::Stay);
    assert_eq!(v4.startup_delay(), Duration::from_secs(5));
    assert_eq!(v4.announce_repeats().get(), 3);
    assert_eq!(v4.announce_interval(), Duration::from_millis(200));
    assert_eq!(v4.announce_refresh(), Some(Duration::from_secs(60)));
    assert_eq!((v6.interface(), v6.group()), ("eth0", Some("front")));
    assert_eq!(v6.advert_interval(), Duration::from_millis(10));
    assert_eq!(v6.preempt_after(), Some(Duration::from_secs(30)));
    assert_eq!(v6.vips().len(), 2);
}

#[test]
fn the_checksum_that_is_sent_can_be_chosen() {
    let config = right(&with(&format!("{SMALL}checksum = \"message\"\n")));
    assert_eq!(config.vrrps()[0].checksum(), VrrpChecksum::Message);
}

#[test]
fn one_number_is_for_both_families_and_for_each_interface() {
    let six = "[[vrrp]]\nname = \"six\"\nvrid = 51\nvips = [\"fe80::40:24\"]\n";
    right(&with(&format!("{SMALL}{six}")));
}

#[test]
fn whatever_is_wrong_is_reported_at_its_key() {
    let small = |more: &str| with(&format!("{SMALL}{more}\n"));
    let v6 = |vips: &str| with(&SMALL.replace("\"172.16.40.24\"", vips));
    let without = |line: &str| with(&SMALL.replace(line, ""));
    let second = |name: &str, vrid: u8, vip: &str| {
        let second = format!("[[vrrp]]\nname = \"{name}\"\nvrid = {vrid}\nvips = [\"{vip}\"]");
        let declared = "[[vip]]\naddress = \"172.16.40.25/32\"\n";
        small(&format!("{second}\n{declared}"))
    };
    let broken = [
        (without("name = \"front\""), "vrrp[0].name: missing"),
        (without("vrid = 51"), "vrrp[0].vrid: missing"),
        (
            without("vips = [\"172.16.40.24\"]"),
            "vrrp[0].vips: missing",
        ),
        (small("vrid_ = 1"), "vrrp[0].vrid_: unknown key"),
        (
            with(&SMALL.replace("51", "0")),
            "vrrp[0].vrid: 0 is not a whole number",
        ),
        (
            with(&SMALL.replace("51", "256")),
            "vrrp[0].vrid: 256 is not a whole number",
        ),
        (small("version = 4"), "vrrp[0].version: 4 is not"),
        (small("priority = 0"), "vrrp[0].priority: 0 is not"),
        (small("interface = \"a b\""), "vrrp[0].interface: "),
        (
            small("advert_interval = \"15ms\""),
            "vrrp[0].advert_interval: 15ms is not an interval of this version, a multiple",
        ),
        (
            small("advert_interval = \"41s\""),
            "vrrp[0].advert_interval: 41s is not",
        ),
        (
            small("version = 2\nadvert_interval = \"100ms\""),
            "vrrp[0].advert_interval: 100ms is not an interval of this version, a whole",
        ),
        (
            small("version = 2\nadvert_interval = \"256s\""),
            "vrrp[0].advert_interval: \"256s\" is not a duration",
        ),
        (
            small("password = \"x\""),
            "vrrp[0].password: only with `version = 2`",
        ),
        (
            small("version = 2\npassword = \"ninechars\""),
            "vrrp[0].password: the value is not a password of 1 to 8 bytes",
        ),
        (
            small("version = 2\nchecksum = \"message\""),
            "vrrp[0].checksum: only with `version = 3`",
        ),
        (
            small("checksum = \"none\""),
            "vrrp[0].checksum: \"none\" is not",
        ),
        (
            small("other_addresses = \"drop\""),
            "vrrp[0].other_addresses: ",
        ),
        (
            small("preempt = false\npreempt_delay = \"1s\""),
            "vrrp[0].preempt_delay: only with `preempt = true`",
        ),
        (
            small("virtual_mac = true\ninterface = \"eth1\""),
            "vrrp[0].virtual_mac: only with the interface of the VIPs",
        ),
        (
            small("virtual_mac = true\npeers = [\"172.16.40.3\"]"),
            "vrrp[0].virtual_mac: only with multicast",
        ),
        (
            small("virtual_mac = true\npriority = 255"),
            "vrrp[0].virtual_mac: only with a priority below 255",
        ),
        (small("startup_delay = \"2h\""), "vrrp[0].startup_delay: "),
        (
            small("announce_repeats = 0"),
            "vrrp[0].announce_repeats: 0 is not",
        ),
        (
            small("peers = [\"fd00:40::3\"]"),
            "vrrp[0].peers[0]: fd00:40::3 is not of the",
        ),
        (
            small("peers = [\"172.16.40.24\"]"),
            "vrrp[0].peers[0]: 172.16.40.24 is a VIP",
        ),
        (
            small("peers = [\"172.16.40.3\", \"172.16.40.3\"]"),
            "vrrp[0].peers[1]: also given",
        ),
        (
            small("source = \"172.16.40.3\"\npeers = [\"172.16.40.3\"]"),
            "vrrp[0].peers[0]: also given at line 34; a router is not its own peer",
        ),
        (
            small("source = \"fe80::3\""),
            "vrrp[0].source: fe80::3 is not of the",
        ),
        (
            small("source = \"172.16.40.24\""),
            "vrrp[0].source: 172.16.40.24 is a VIP",
        ),
        (
            v6("\"172.16.40.99\""),
            "vrrp[0].vips[0]: 172.16.40.99 is not declared",
        ),
        (
            v6("\"fd00:40::24\""),
            "vrrp[0].vips[0]: the first must be link-local",
        ),
        (
            v6("\"172.16.40.24\", \"fd00:40::24\""),
            "vrrp[0].vips[1]: the VIPs of a virtual",
        ),
        (
            v6("\"fe80::40:24\"").replace("vrid = 51", "vrid = 51\nversion = 2"),
            "vrrp[0].version: only with VIPs of IPv4",
        ),
        (
            small("").replace("40.24/32\"", "40.24/32\"\nassign = false"),
            "vrrp[0].vips[0]: 172.16.40.24 is assigned by somebody else",
        ),
        (
            small("").replace("40.24/32\"", "40.24/32\"\nwithout_backends = \"withdraw\""),
            "vip[0].without_backends: 172.16.40.24 comes and goes with the virtual router front,",
        ),
        (
            second("front", 52, "172.16.40.25"),
            "vrrp[1].name: also given",
        ),
        (
            second("other", 51, "172.16.40.25"),
            "vrrp[1].vrid: also given",
        ),
        (
            second("other", 52, "172.16.40.24"),
            "vrrp[1].vips[0]: also given",
        ),
        (
            second("other\"\ngroup = \"front", 52, "172.16.40.25"),
            "vrrp[1].group: also given",
        ),
        (many_vips(256), "vrrp[0].vips[255]: "),
    ];
    for (text, expected) in broken {
        let message = wrong(&text);
        assert!(message.contains(expected), "{expected:?} in\n{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

/// A file whose one router moves so many addresses.
fn many_vips(count: u32) -> String {
    let address = |number: u32| std::net::Ipv4Addr::from(0xac10_3200 + number);
    let declared: String = (0..count)
        .map(|number| format!("[[vip]]\naddress = \"{}/32\"\n", address(number)))
        .collect();
    let vips: Vec<String> = (0..count)
        .map(|number| format!("\"{}\"", address(number)))
        .collect();
    let router = SMALL.replace("\"172.16.40.24\"", &vips.join(", "));
    with(&format!("{declared}{router}"))
}

#[test]
fn as_many_addresses_as_an_advert_counts_are_right() {
    assert_eq!(right(&many_vips(255)).vrrps()[0].vips().len(), 255);
}

#[test]
fn an_owner_may_send_from_its_vip() {
    let owner = "priority = 255\nsource = \"172.16.40.24\"\n";
    right(&with(&format!("{SMALL}{owner}")));
}

#[test]
fn virtual_routers_are_reloaded() {
    let (old, new) = (right(&with(SMALL)), right(&with(FULL)));
    assert_ne!(old.vrrps(), new.vrrps());
    assert_eq!(old.reload_blockers(&new), []);
}

#[test]
fn what_a_router_depends_on_is_a_gateway_a_script_or_a_share_of_backends() {
    let file = |track: &str| {
        let track = format!("track = [{{ name = \"it\", {track} }}]");
        with(&format!(
            "[[vrrp]]\nname = \"front\"\nvrid = 51\nvips = [\"172.16.40.24\"]\n{track}\n"
        ))
    };
    let track = |text: &str| right(&file(text)).vrrps()[0].tracks()[0].clone();
    let gateway = track("gateway = \"172.16.40.1\"");
    assert_eq!(gateway.target().to_string(), "gateway 172.16.40.1");
    let times = (gateway.interval(), gateway.timeout());
    assert_eq!(times, (Duration::from_secs(1), Duration::from_secs(1)));
    assert_eq!(
        (gateway.fall(), gateway.rise(), gateway.cost()),
        (3, 2, None)
    );
    let script = track("script = [\"/bin/check\", \"a\"], weight = -30, timeout = \"1m\"");
    assert_eq!(script.target().to_string(), "script /bin/check a");
    assert_eq!(script.cost().map(u8::from), Some(30));
    let share = track("backends_up = 50, weight = -30");
    assert_eq!(share.target().to_string(), "50 % of its backends");
    assert_eq!(share.interval(), Duration::from_secs(1));
    for (keys, expected) in [
        ("weight = -1", "give one of `gateway`, `script` and"),
        (
            "gateway = \"172.16.40.1\", script = [\"/a\"]",
            "give one of",
        ),
        ("script = [\"/a\"], backends_up = 9", "give one of"),
        ("backends_up = 9", "track[0].weight: missing"),
        ("backends_up = 0, weight = -1", "from 1 to 100"),
        (
            "backends_up = 9, weight = -1, timeout = \"1s\"",
            "timeout: only with `gateway` or",
        ),
        ("gateway = \"172.16.40.1\", weight = 5", "from -254 to -1"),
        ("gateway = \"fe80::1\"", "fe80::1 is link-local"),
        (
            "gateway = \"172.16.40.1\", timeout = \"2s\"",
            "longer than the interval",
        ),
    ] {
        let errors = wrong(&file(keys));
        assert!(errors.contains(expected), "{errors}");
    }
}
