//! Tunnels: what may be said of them, and where.

use lb_common::abi::{Encapsulation, Forward};

use super::{changed, right, wrong};

const TUNNEL: &str = "forward = \"tunnel\"";

/// The right file, with a tunnel in place of `dsr`, and more keys for the service.
fn tunnel(more: &str) -> String {
    changed("forward = \"dsr\"", &format!("{TUNNEL}\n{more}"))
}

fn with_sources(sources: &str) -> String {
    let table = format!("[tunnel]\nsources = [{sources}]\n[[service]]");
    tunnel("").replacen("[[service]]", &table, 1)
}

#[test]
fn tunnel_is_ip_in_ip_unless_told_otherwise() {
    let config = right(&tunnel(""));
    let service = &config.services()[0];
    assert_eq!(service.forward(), Forward::Tunnel);
    let form = service.tunnel().unwrap();
    assert_eq!(form.encapsulation(), Encapsulation::IpIp);
    assert!(config.tunnel_sources().is_empty());
}

#[test]
fn gue_has_a_port_of_its_own_choice_or_the_usual_one() {
    for (more, port) in [("", 6080), ("tunnel_port = 7000", 7000)] {
        let config = right(&tunnel(&format!("tunnel = \"gue\"\n{more}")));
        let form = *config.services()[0].tunnel().unwrap();
        assert_eq!((form.label(), form.port()), ("gue", port));
    }
}

#[test]
fn backend_at_the_end_of_a_tunnel_may_be_of_the_other_family() {
    let text = tunnel("").replace("\"172.16.40.21\"", "\"fd00:40::21\"");
    let config = right(&text);
    assert!(config.services()[0].backends()[1].address().is_ipv6());
}

#[test]
fn sources_are_a_prefix_a_family() {
    let config = right(&with_sources("\"10.9.0.0/24\", \"fd00:9::/112\""));
    let [v4, v6] = config.tunnel_sources() else {
        panic!("two prefixes")
    };
    assert!(v4.contains("10.9.0.255".parse().unwrap()));
    assert!(!v4.contains("10.9.1.0".parse().unwrap()));
    assert!(v6.contains("fd00:9::ffff".parse().unwrap()));
    assert!(!v6.contains("fd00:9::1:0".parse().unwrap()));
    assert!(!v4.contains("fd00:9::".parse().unwrap()));
    right(&with_sources("\"10.9.0.7\", \"fd00:9::/96\""));
}

fn with_mtu(mtu: &str) -> String {
    let table = format!("[tunnel]\nmtu = {mtu}\n[[service]]");
    tunnel("").replacen("[[service]]", &table, 1)
}

#[test]
fn the_ways_to_backends_carry_what_the_first_hop_does_unless_told_otherwise() {
    assert_eq!(right(&tunnel("")).tunnel_mtu(), None);
    for mtu in [576, 1_400, 65_535] {
        assert_eq!(right(&with_mtu(&mtu.to_string())).tunnel_mtu(), Some(mtu));
    }
}

#[test]
fn clients_over_ipv6_need_room_for_1280_bytes() {
    let (v4, v6) = ("172.16.40.20", "fd00:40::20");
    for (vip, form, backend, overhead) in [
        ("fd00:40::24", "ipip", v4, 20),
        ("fd00:40::24", "ipip", v6, 40),
        ("fd00:40::24", "gue", v4, 28),
        ("fd00:40::24", "gue", v6, 48),
    ] {
        let text = tunnel(&format!("tunnel = \"{form}\""))
            .replace("vip = \"172.16.40.24\"", &format!("vip = \"{vip}\""))
            .replace(v4, backend);
        let config = right(&text);
        let service = &config.services()[0];
        let backend = &service.backends()[0];
        let room = |mtu| service.too_little_room(backend, mtu);
        assert_eq!(room(1_280 + overhead), None);
        assert_eq!(room(1_279 + overhead), Some(1_279));
    }
    let config = right(&tunnel(""));
    let service = &config.services()[0];
    assert_eq!(service.too_little_room(&service.backends()[0], 576), None);
}

#[test]
fn whatever_is_wrong_with_a_tunnel_is_reported_at_its_key() {
    let broken = [
        (
            changed("port = 1883", "port = 1883\ntunnel = \"gue\""),
            "service[0].tunnel: only for services with `forward = \"tunnel\"`",
        ),
        (
            changed("port = 1883", "port = 1883\ntunnel_port = 7"),
            "service[0].tunnel_port: only for services with `forward = \"tunnel\"`",
        ),
        (
            tunnel("tunnel_port = 7000"),
            "service[0].tunnel_port: only for services with `tunnel = \"gue\"`",
        ),
        (
            tunnel("tunnel = \"vxlan\""),
            "service[0].tunnel: \"vxlan\" is not \"ipip\" or \"gue\"",
        ),
        (
            tunnel("") + "port = 1884\n",
            "service[0].backend[1].port: tunnel cannot change ports: make it 1883",
        ),
        (
            with_sources("\"10.9.0.1/24\""),
            "tunnel.sources[0]: bits behind the prefix are set",
        ),
        (
            with_sources("\"fd00:9::/64\""),
            "tunnel.sources[0]: more than 32 bits behind the prefix",
        ),
        (
            with_sources("\"10.9.0.0/24\", \"10.8.0.0/24\""),
            "tunnel.sources[1]: more than 1 addresses of one family",
        ),
        (
            with_mtu("575"),
            "tunnel.mtu: 575 is not a whole number from 576 to 65535",
        ),
        (
            with_mtu("65536"),
            "tunnel.mtu: 65536 is not a whole number from 576 to 65535",
        ),
        (
            with_sources("\"172.16.40.0/24\""),
            "tunnel.sources[0]: it holds the VIP 172.16.40.24",
        ),
    ];
    for (text, expected) in broken {
        let message = wrong(&text);
        assert!(message.contains(expected), "{expected:?} in\n{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}
