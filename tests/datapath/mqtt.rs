//! What is read of MQTT: packet types, the keep-alive of a CONNECT, and first bytes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::KeepAlive,
    mqtt::{CONNECT, packet_type},
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use tests::{
    packet::{Packet, Transport},
    world::World,
};

use super::services::{
    DSR_MAGLEV, DSR_ROUND_ROBIN, Family, NAT_MAGLEV, NAT_ROUND_ROBIN, small_world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
/// The kinds that record every flow.
const TRACKED: [u16; 3] = [DSR_ROUND_ROBIN, NAT_MAGLEV, NAT_ROUND_ROBIN];

const V311: &[u8] = b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06client";
const V31: &[u8] = b"\x10\x14\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x06client";
const V5: &[u8] = b"\x10\x16\x00\x04MQTT\x05\x02\x01\x2c\x03\x21\x00\x14\x00\x06client";
/// With a will of some length: two bytes of remaining length.
const LONG: &[u8] = b"\x10\xf2\x01\x00\x04MQTT\x04\x06\x00\x78\x00\x06client\x00\x04will";
const PUBLISH: &[u8] = b"\x30\x0c\x00\x05topicworld";
const PINGREQ: &[u8] = b"\xc0\x00";

/// A world with one service, whose payload is MQTT.
fn mqtt_world(service: u16) -> Result<World> {
    let mut world = small_world(service)?;
    world.change(|desired| desired.services[0].features.mqtt = true)?;
    Ok(world)
}

fn syn(service: u16) -> Packet {
    Family::V4
        .packet(SYN, service)
        .with(|packet| packet.payload.clear())
}

fn data(flow: &Packet, payload: &[u8]) -> Packet {
    flow.clone().with(|packet| {
        packet.transport = ACK;
        packet.payload = payload.to_vec();
    })
}

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::TxDsr | Verdict::TxNat)
}

/// Opens a connection and sends this; what became of the last packet.
fn open(world: &World, service: u16, payloads: &[&[u8]]) -> Result<(Packet, Verdict)> {
    let flow = syn(service);
    let mut verdict = world.send(&flow)?.verdict;
    ensure!(is_forwarded(verdict), "{verdict:?}");
    verdict = world.send(&data(&flow, b""))?.verdict;
    ensure!(is_forwarded(verdict), "{verdict:?}");
    for payload in payloads {
        verdict = world.send(&data(&flow, payload))?.verdict;
    }
    Ok((flow, verdict))
}

fn keep_alive(world: &World, flow: &Packet) -> Result<KeepAlive> {
    let recorded = world.datapath().flow(&flow.flow())?;
    Ok(recorded
        .context("the flow is not recorded")?
        .flow
        .keep_alive)
}

fn longest(world: &World) -> Result<Option<Duration>> {
    let service = world.image().services.values().next();
    let id = service.context("there is a service")?.id;
    Ok(world.datapath().longest_keep_alive(id)?)
}

fn counted(world: &World, first: u8) -> Result<u64> {
    let service = world.image().services.values().next();
    let id = service.context("there is a service")?.id;
    Ok(world.datapath().mqtt_packets(id)?.0[packet_type(first)])
}

#[test]
fn a_connect_says_how_long_its_session_may_be_silent() -> Result<()> {
    for service in TRACKED {
        let world = mqtt_world(service)?;
        ensure!(longest(&world)?.is_none());
        let mut expected = 0;
        for (connect, seconds) in [(V31, 10), (V311, 60), (V5, 300), (LONG, 120)] {
            let (flow, verdict) = open(&world, service, &[connect])?;
            ensure!(is_forwarded(verdict), "{verdict:?}");
            let found = keep_alive(&world, &flow)?.seconds();
            ensure!(found == Some(seconds), "{found:?} instead of {seconds}");
            expected = expected.max(u64::from(seconds));
            ensure!(longest(&world)? == Some(Duration::from_secs(expected)));
        }
    }
    Ok(())
}

/// It may be forged, and a session that was promised ten minutes keeps them.
#[test]
fn a_second_connect_makes_no_keep_alive_shorter() -> Result<()> {
    let with = |seconds: u16, version: u8| {
        let [high, low] = seconds.to_be_bytes();
        let mut connect = V311.to_vec();
        (connect[8], connect[10], connect[11]) = (version, high, low);
        connect
    };
    for service in TRACKED {
        let world = mqtt_world(service)?;
        let (flow, _) = open(&world, service, &[&with(600, 4)])?;
        for (seconds, version, expected) in [(1, 4, 600), (0, 5, 600), (900, 4, 900)] {
            world.send(&data(&flow, &with(seconds, version)))?;
            let found = keep_alive(&world, &flow)?;
            ensure!(found.seconds() == Some(expected), "{found:?}");
            ensure!(!found.may_differ());
        }
    }
    Ok(())
}

#[test]
fn of_version_5_it_is_known_that_the_server_may_have_another() -> Result<()> {
    for service in TRACKED {
        let world = mqtt_world(service)?;
        for (connect, may_differ) in [(V31, false), (V311, false), (V5, true)] {
            let (flow, _) = open(&world, service, &[connect])?;
            ensure!(keep_alive(&world, &flow)?.may_differ() == may_differ);
        }
    }
    Ok(())
}

/// Whoever sends it: the record of the service's longest is as good as its worst packet, and is
/// forgotten with the service.
#[test]
fn a_claim_of_no_connection_is_noted_until_it_is_forgotten() -> Result<()> {
    let mut world = mqtt_world(DSR_MAGLEV)?;
    let claim = b"\x10\x12\x00\x04MQTT\x04\x02\xff\xff\x00\x06client";
    world.send(&data(&syn(DSR_MAGLEV), claim))?;
    ensure!(longest(&world)? == Some(Duration::from_secs(65_535)));
    let id = world
        .image()
        .services
        .values()
        .next()
        .context("a service")?
        .id;
    world.datapath_mut().forget_keep_alive(id)?;
    ensure!(longest(&world)?.is_none());
    world.send(&data(&syn(DSR_MAGLEV), V311))?;
    ensure!(longest(&world)? == Some(Duration::from_secs(60)));
    Ok(())
}

#[test]
fn first_data_that_is_no_connect_is_dropped_and_the_flow_stays() -> Result<()> {
    for service in TRACKED {
        let world = mqtt_world(service)?;
        for other in [
            PUBLISH,
            PINGREQ,
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01",
            b"x",
        ] {
            let (flow, verdict) = open(&world, service, &[other])?;
            ensure!(verdict == Verdict::DropNotMqtt, "{verdict:?}");
            ensure!(keep_alive(&world, &flow)?.is_awaited());
            let again = world.send(&data(&flow, other))?.verdict;
            ensure!(again == Verdict::DropNotMqtt, "{again:?}");
            ensure!(is_forwarded(world.send(&data(&flow, V311))?.verdict));
            ensure!(is_forwarded(world.send(&data(&flow, other))?.verdict));
        }
        ensure!(
            counted(&world, PUBLISH[0])? == 1,
            "dropped ones are not counted"
        );
    }
    Ok(())
}

#[test]
fn a_connect_in_pieces_passes() -> Result<()> {
    for service in TRACKED {
        let world = mqtt_world(service)?;
        for first in 1..12 {
            let (front, rest) = V311.split_at(first);
            let (flow, verdict) = open(&world, service, &[front, rest])?;
            ensure!(is_forwarded(verdict), "{first} bytes: {verdict:?}");
            ensure!(keep_alive(&world, &flow)? == KeepAlive::NONE);
        }
    }
    Ok(())
}

#[test]
fn a_syn_with_data_is_checked_too() -> Result<()> {
    for service in TRACKED {
        let world = mqtt_world(service)?;
        let fast = |payload: &[u8]| data(&syn(service), payload).with(|p| p.transport = SYN);
        let good = fast(V311);
        ensure!(is_forwarded(world.send(&good)?.verdict));
        ensure!(keep_alive(&world, &good)?.seconds() == Some(60));
        let bad = fast(PUBLISH);
        ensure!(world.send(&bad)?.verdict == Verdict::DropNotMqtt);
        ensure!(world.datapath().flow(&bad.flow())?.is_none());
    }
    Ok(())
}

#[test]
fn a_flow_that_was_met_in_its_middle_is_not_checked() -> Result<()> {
    for service in [DSR_MAGLEV, DSR_ROUND_ROBIN, NAT_MAGLEV, NAT_ROUND_ROBIN] {
        let world = mqtt_world(service)?;
        let flow = syn(service);
        for payload in [PUBLISH, PINGREQ, PUBLISH] {
            let verdict = world.send(&data(&flow, payload))?.verdict;
            ensure!(is_forwarded(verdict), "{service}: {verdict:?}");
        }
        ensure!(counted(&world, PUBLISH[0])? == 2);
    }
    Ok(())
}

#[test]
fn without_a_record_types_and_keep_alives_are_seen_but_nothing_is_refused() -> Result<()> {
    let world = mqtt_world(DSR_MAGLEV)?;
    let (flow, _) = open(&world, DSR_MAGLEV, &[V311, PUBLISH, PINGREQ, PINGREQ])?;
    let (other, verdict) = open(&world, DSR_MAGLEV, &[b"GET / HTTP/1.1\r\n\r\n"])?;
    ensure!(is_forwarded(verdict), "{verdict:?}");
    for packet in [flow, other] {
        ensure!(world.datapath().flow(&packet.flow())?.is_none());
    }
    ensure!(counted(&world, CONNECT)? == 1);
    ensure!(counted(&world, PUBLISH[0])? == 1);
    ensure!(counted(&world, PINGREQ[0])? == 2);
    ensure!(longest(&world)? == Some(Duration::from_secs(60)));
    Ok(())
}

#[test]
fn a_service_that_is_no_mqtt_is_left_alone() -> Result<()> {
    for service in TRACKED {
        let world = small_world(service)?;
        let (flow, verdict) = open(&world, service, &[PUBLISH, V311])?;
        ensure!(is_forwarded(verdict), "{verdict:?}");
        ensure!(keep_alive(&world, &flow)? == KeepAlive::NONE);
        ensure!(counted(&world, CONNECT)? == 0 && longest(&world)?.is_none());
    }
    Ok(())
}

/// Ethernet pads short frames: what is there is no data.
#[test]
fn padding_is_no_payload() -> Result<()> {
    let world = mqtt_world(DSR_ROUND_ROBIN)?;
    let (flow, _) = open(&world, DSR_ROUND_ROBIN, &[])?;
    let padded = data(&flow, b"").with(|packet| packet.padding = PUBLISH.to_vec());
    ensure!(is_forwarded(world.send(&padded)?.verdict));
    ensure!(keep_alive(&world, &flow)?.is_awaited());
    let short = data(&flow, &V311[..11]).with(|packet| packet.padding = V311[11..].to_vec());
    ensure!(is_forwarded(world.send(&short)?.verdict));
    ensure!(keep_alive(&world, &flow)? == KeepAlive::NONE);
    Ok(())
}
