//! Changing the maps while packets run.

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{BackendId, NextHop},
    parse::{TCP_ACK, TCP_SYN},
    verdict::{Action, Verdict},
};
use lb_user::core::plan::Desired;
use tests::{
    packet::{Packet, Transport},
    prog_run::{self, LOOPBACK},
    world::World,
};
use xtask::lab::NetNs;

use super::services::{
    DSR_MAGLEV, DSR_ROUND_ROBIN, ELSEWHERE, Family, NAT_MAGLEV, NAT_ROUND_ROBIN, small_world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

/// How often a backend goes and comes.
const ROUNDS: usize = 4;

/// Packets that are sent again and again.
fn packets(service: u16, transport: Transport) -> Vec<Vec<u8>> {
    std::iter::repeat_with(|| Family::V4.packet(transport, service).build())
        .take(500)
        .collect()
}

/// Sends the packets over and over while `change` is called. What is forwarded must go to a MAC
/// address that `known` knows.
fn while_packets_run(
    world: &mut World,
    frames: &[Vec<u8>],
    known: impl Fn(&[u8]) -> bool + Sync,
    change: impl FnOnce(&mut World, &AtomicU64) -> Result<()>,
) -> Result<()> {
    let program = world.datapath().program_fd()?.try_clone_to_owned()?;
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let run = || -> Result<()> {
        while !over.load(Ordering::Relaxed) {
            for frame in frames {
                let out = prog_run::run(program.as_fd(), frame, LOOPBACK)?;
                if out.action == Action::Transmit {
                    ensure!(known(&out.frame[..6]), "sent to nobody's MAC address");
                }
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let runner = scope.spawn(run);
        let changed = change(world, &sent);
        over.store(true, Ordering::Relaxed);
        // First: a change waits in vain for a runner that has failed.
        runner
            .join()
            .map_err(|_panic| anyhow::anyhow!("the runner panicked"))??;
        changed
    })
}

/// Waits until packets have been sent since.
fn some_more(sent: &AtomicU64) -> Result<()> {
    let before = sent.load(Ordering::Relaxed);
    let more = || (sent.load(Ordering::Relaxed) > before + 20).then_some(());
    xtask::lab::wait_until(std::time::Duration::from_secs(30), "packets", more)?;
    Ok(())
}

#[test]
fn no_packet_meets_half_a_change() -> Result<()> {
    for (service, transport) in [
        (DSR_MAGLEV, ACK),
        (DSR_ROUND_ROBIN, SYN),
        (NAT_MAGLEV, SYN),
        (NAT_ROUND_ROBIN, Transport::Tcp(TCP_ACK)),
    ] {
        let mut world = small_world(service)?;
        let frames = packets(service, transport);
        let macs = macs(&world);
        let one_of_them = |mac: &[u8]| macs.iter().any(|known| known == mac);
        while_packets_run(&mut world, &frames, one_of_them, |world, sent| {
            let mut all = None;
            world.change(|desired| all = Some(backends(desired).clone()))?;
            let all = all.context("there are backends")?;
            for round in 0..ROUNDS {
                // One, both, the other, both again; weights in between.
                let kept = [round % 2, 1 - round % 2];
                world.change(|desired| *backends(desired) = vec![all[kept[0]]])?;
                some_more(sent)?;
                world.change(|desired| {
                    *backends(desired) = all.clone();
                    backends(desired)[kept[1]].weight = 7;
                })?;
                some_more(sent)?;
                world.change(|desired| *backends(desired) = all.clone())?;
            }
            Ok(())
        })?;
        let mut verdicts = world.datapath().verdicts()?;
        verdicts.retain(|verdict, count| *count > 0 && verdict.action() != Action::Transmit);
        ensure!(verdicts.is_empty(), "{service}: {verdicts:?}");
    }
    Ok(())
}

fn backends(desired: &mut Desired) -> &mut Vec<lb_user::core::plan::DesiredBackend> {
    &mut desired.services[0].backends
}

fn macs(world: &World) -> Vec<[u8; 6]> {
    let backends = world.image().backends.values();
    backends
        .filter_map(|backend| backend.next_hop.map(|hop| hop.mac))
        .collect()
}

#[test]
fn a_change_moves_no_flow_and_new_ones_go_as_the_table_says() -> Result<()> {
    let mut world = small_world(DSR_MAGLEV)?;
    let flows: Vec<Packet> = std::iter::repeat_with(|| Family::V4.packet(ACK, DSR_MAGLEV))
        .take(300)
        .collect();
    let mut before = Vec::new();
    for flow in &flows {
        before.push(world.next_hop(world.owner(flow)?)?);
    }
    for weights in [[1, 1], [1, 0], [3, 1], [0, 1], [1, 256], [1, 1]] {
        world.change(|desired| {
            for (backend, weight) in backends(desired).iter_mut().zip(weights) {
                backend.weight = weight;
            }
        })?;
        for (flow, hop) in flows.iter().zip(&before) {
            let out = world.send(flow)?;
            ensure!(out.answer.frame == flow.forwarded(*hop).build());
        }
        for _flow in 0..300 {
            let syn = Family::V4.packet(SYN, DSR_MAGLEV);
            let hop = world.next_hop(world.owner(&syn)?)?;
            let ack = syn.clone().with(|packet| packet.transport = ACK);
            for packet in [syn, ack] {
                let out = world.send(&packet)?;
                ensure!(out.answer.frame == packet.forwarded(hop).build());
            }
        }
    }
    Ok(())
}

#[test]
fn a_removed_service_is_not_ours_any_more() -> Result<()> {
    let mut world = small_world(DSR_MAGLEV)?;
    let flow = Family::V4.packet(ACK, DSR_MAGLEV);
    ensure!(world.send(&flow)?.verdict == Verdict::TxDsr);
    let mut services = Vec::new();
    world.change(|desired| services = std::mem::take(&mut desired.services))?;
    ensure!(world.send(&flow)?.verdict == Verdict::PassNotOurs);
    let piece = flow.clone().with(|packet| packet.fragment = 1);
    ensure!(world.send(&piece)?.verdict == Verdict::PassNotOurs);
    world.change(|desired| desired.services = services)?;
    ensure!(world.send(&flow)?.verdict == Verdict::TxDsr);
    Ok(())
}

#[test]
fn a_new_next_hop_is_used_by_flows_that_are_recorded() -> Result<()> {
    for service in [DSR_ROUND_ROBIN, NAT_ROUND_ROBIN] {
        let mut world = small_world(service)?;
        let flow = Family::V4.packet(SYN, service);
        world.send(&flow)?;
        let hop = NextHop {
            interface: ELSEWHERE,
            mac: [0x02, 9, 9, 9, 9, 9],
            source_mac: [0x02, 8, 8, 8, 8, 8],
        };
        world.change(|desired| {
            for backend in backends(desired) {
                backend.next_hop = Some(hop);
            }
        })?;
        let out = world.send(&flow.clone().with(|packet| packet.transport = ACK))?;
        ensure!(out.answer.action == Action::Redirect);
        ensure!(out.answer.frame[..12] == [hop.mac, hop.source_mac].concat());

        world.change(|desired| {
            for backend in backends(desired) {
                backend.next_hop = None;
            }
        })?;
        let out = world.send(&flow)?;
        ensure!(out.verdict == Verdict::DropNoNextHop, "{:?}", out.verdict);
        let counted = [BackendId(0), BackendId(1)].map(|id| world.traffic(id));
        let [one, two] = counted;
        ensure!(
            one?.packets + two?.packets == 2,
            "a drop was counted as forwarded"
        );
    }
    Ok(())
}

/// A client whose packets come in by another interface gets its replies there.
#[test]
fn replies_follow_the_client_to_another_interface() -> Result<()> {
    let netns = NetNs::new(format!("tg-{}-reply", std::process::id()))?;
    netns.ip(&[&format!(
        "link add uplink index {ELSEWHERE} type veth peer name far"
    )])?;
    let mut world = small_world(NAT_MAGLEV)?;
    world.change(|desired| backends(desired).truncate(1))?;
    let world = &world;
    netns.enter(|| {
        let syn = Family::V4.packet(SYN, NAT_MAGLEV);
        let out = world.run_on(ELSEWHERE, &syn.build())?;
        // The backend is on loopback, so that this is the other interface.
        ensure!(out.verdict == Verdict::RedirectNat, "{:?}", out.verdict);
        let port = super::case::nat_port(&syn, &out.answer.frame)?;
        let sent = super::case::translated(world, &syn, BackendId(0), port)?;
        let reply = sent.reply(world.next_hop(BackendId(0))?);
        ensure!(world.send(&reply)?.verdict == Verdict::RedirectNatReply);
        let same_way = world.run_on(ELSEWHERE, &reply.build())?;
        ensure!(same_way.verdict == Verdict::TxNatReply);

        let ack = syn.with(|packet| packet.transport = ACK);
        ensure!(world.send(&ack)?.verdict == Verdict::TxNat);
        ensure!(world.send(&reply)?.verdict == Verdict::TxNatReply);
        ensure!(world.run_on(ELSEWHERE, &reply.build())?.verdict == Verdict::RedirectNatReply);
        Ok(())
    })
}
