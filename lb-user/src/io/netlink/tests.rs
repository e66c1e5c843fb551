//! What netlink can be asked without privileges, of the loopback interface that every host has.

use std::net::{IpAddr, Ipv4Addr};

use super::{Netlink, NetlinkError};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn interface_is_found_with_its_addresses() {
    let netlink = Netlink::open().unwrap();
    let loopback = netlink.interface("lo").await.unwrap();
    assert_eq!((loopback.index, loopback.mac), (1, [0; 6]));
    // A fresh network namespace has it switched off, without an address.
    let shown = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let has_it = shown.contains("127.0.0.1");
    assert_eq!(loopback.addresses.contains(&(LOOPBACK, 8)), has_it);
}

#[tokio::test]
async fn missing_interface_is_told_by_its_name() {
    let netlink = Netlink::open().unwrap();
    let error = netlink.interface("nosuch0").await.unwrap_err();
    assert_eq!(error.to_string(), "there is no interface named nosuch0");
}

#[tokio::test]
async fn route_to_the_host_itself_is_no_way_to_a_backend() {
    let netlink = Netlink::open().unwrap();
    let error = netlink.route(LOOPBACK).await.unwrap_err();
    assert!(
        matches!(error, NetlinkError::NoRoute { destination } if destination == LOOPBACK),
        "{error}"
    );
}

#[tokio::test]
async fn answers_do_not_mix_when_asked_at_once() {
    let netlink = Netlink::open().unwrap();
    let (found, missing, again) = tokio::join!(
        netlink.interface("lo"),
        netlink.interface("nosuch0"),
        netlink.interface("lo"),
    );
    assert_eq!(found.unwrap(), again.unwrap());
    assert!(missing.is_err());
}

#[tokio::test]
async fn connection_that_gave_up_is_replaced() {
    let netlink = Netlink::open().unwrap();
    netlink.connection.lock().unwrap().task.abort();
    // The request under way may be lost with it, those after it are not.
    drop(netlink.interface("lo").await);
    assert!(netlink.interface("lo").await.is_ok());
}
