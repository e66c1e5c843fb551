//! Flows that one node records go on at another, to which they are told.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_common::{
    abi::{FlowKey, Tick},
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use lb_user::{
    core::sync::{
        Item, Message, Now,
        names::{Names, Refused},
        record::{Key, Record},
        source::Source,
    },
    io::datapath::{Recorded, Recorder, now},
};
use tests::{
    packet::{Packet, Transport},
    world::World,
};

use super::conversation::Flow;
use super::services::{DSR_ROUND_ROBIN, Family, NAT_ROUND_ROBIN, desired_small};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const HOUR: Duration = Duration::from_secs(3600);
const FLOWS: usize = 16;

/// A node that records, and one whose backends have other ids.
struct Pair {
    here: World,
    there: World,
    recorder: Recorder,
    source: Source,
}

impl Pair {
    fn new(service: u16) -> Result<Self> {
        let here = World::new(desired_small(service))?;
        let mut desired = desired_small(service);
        for service in &mut desired.services {
            service.backends.reverse();
        }
        let mut there = World::new(desired)?;
        let recorder = there.datapath_mut().take_recorder();
        let mut source = Source::new(1);
        source.sender.link(None);
        Ok(Self {
            here,
            there,
            recorder: recorder.context("the recorder was taken")?,
            source,
        })
    }

    /// Has the second node record what the first one does; says how much was taken in, and refused.
    fn tell(&mut self) -> Result<(usize, Vec<Refused>)> {
        let vips = [Family::V4.vip()].into();
        let walk = self.here.walk_for(HOUR, &vips)?;
        self.source.begin_walk(walk, Duration::ZERO);
        while self.source.is_walking() {
            self.source.continue_walk();
        }
        let names = Names::new(self.there.image(), vips);
        let (mut taken, mut refused) = (0, Vec::new());
        let clock = Now {
            at: Duration::ZERO,
            tick: now(),
        };
        while let Some(message) = self.source.sender.poll(clock) {
            let (Message::Items { number, .. }
            | Message::Begin { number, .. }
            | Message::End { number }) = message
            else {
                continue;
            };
            if let Message::Items {
                now: sent, items, ..
            } = message
            {
                for item in items {
                    match item {
                        Item::Put(Key::Flow(name), Record::Flow(record)) => {
                            match names.flow(&name, &record, (Tick(sent), now())) {
                                Ok(local) => {
                                    let key = FlowKey::from(&name);
                                    let done = self.recorder.record(&key, &local)?;
                                    ensure!(done == Recorded::Done);
                                    taken += 1;
                                }
                                Err(reason) => refused.push(reason),
                            }
                        }
                        Item::Remove(Key::Flow(name)) => {
                            self.recorder.forget(&FlowKey::from(&name))?;
                        }
                        Item::Put(..) | Item::Remove(_) => {}
                    }
                }
            }
            self.source.sender.handle_ack(number, Duration::ZERO);
        }
        Ok((taken, refused))
    }
}

fn data(syn: &Packet) -> Packet {
    syn.clone().with(|packet| {
        packet.transport = ACK;
        packet.payload = b"data".to_vec();
    })
}

/// The address of the backend that gets a packet.
fn backend(world: &World, packet: &Packet) -> Result<IpAddr> {
    let out = world.send(packet)?;
    let id = world.backend_by_mac(&out.answer.frame[..6]);
    let id = id.with_context(|| format!("{:?}: sent to nobody", out.verdict))?;
    Ok(world.address(id)?.0)
}

#[test]
fn flows_of_round_robin_go_on_at_the_other_node() -> Result<()> {
    let mut pair = Pair::new(DSR_ROUND_ROBIN)?;
    let syns: Vec<Packet> = (0..FLOWS)
        .map(|_| Family::V4.packet(SYN, DSR_ROUND_ROBIN))
        .collect();
    let mut backends = Vec::new();
    for syn in &syns {
        backends.push(backend(&pair.here, syn)?);
        backend(&pair.here, &data(syn))?;
    }
    ensure!(backends.iter().any(|it| *it != backends[0]));
    ensure!(pair.tell()? == (FLOWS, vec![]));
    for (syn, expected) in syns.iter().zip(&backends) {
        ensure!(backend(&pair.there, &data(syn))? == *expected);
    }
    // The other node's sweep counts them, and takes none away.
    let counts = pair.there.sweep(HOUR)?;
    ensure!(
        counts.tracked == FLOWS as u64 && counts.removed == 0,
        "{counts:?}"
    );
    Ok(())
}

#[test]
fn translations_go_on_at_the_other_node_in_both_directions() -> Result<()> {
    let mut pair = Pair::new(NAT_ROUND_ROBIN)?;
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        let flow = Flow::begin(&pair.here, &Family::V4.packet(SYN, NAT_ROUND_ROBIN))?;
        flow.send(&pair.here, &flow.next(ACK))?;
        flows.push(flow);
    }
    ensure!(pair.tell()? == (FLOWS, vec![]));
    // No reply is an orphan there.
    ensure!(pair.there.sweep(HOUR)?.tracked == FLOWS as u64);
    for flow in &mut flows {
        let address = pair.here.address(flow.backend)?;
        let ids = pair.there.image().backends.iter();
        let mut ids = ids.filter(|(_, it)| (IpAddr::from(it.address), it.port) == address);
        flow.backend = *ids.next().context("no such backend")?.0;
        // The client has sent nothing there so far.
        let reply = flow.reply(&pair.there, ACK)?;
        let out = pair.there.send(&reply)?;
        ensure!(out.verdict == Verdict::TxNatReply, "{:?}", out.verdict);
        ensure!(out.answer.frame[..6] == flow.first.source_mac);
        flow.send(&pair.there, &flow.next(ACK))?;
        flow.answer(&pair.there, ACK)?;
    }
    Ok(())
}

#[test]
fn what_is_taken_back_is_forgotten_with_its_port() -> Result<()> {
    let mut pair = Pair::new(NAT_ROUND_ROBIN)?;
    let flow = Flow::begin(&pair.here, &Family::V4.packet(SYN, NAT_ROUND_ROBIN))?;
    flow.send(&pair.here, &flow.next(ACK))?;
    ensure!(pair.tell()?.0 == 1);
    let reply = flow.reply(&pair.here, ACK)?;
    ensure!(pair.there.send(&reply)?.verdict == Verdict::TxNatReply);
    let services = pair.there.image().services.keys().copied().collect();
    ensure!(pair.recorder.retain(&services, |_| true, |_| true)? == 0);
    // It is this node's own meanwhile.
    ensure!(pair.recorder.retain(&services, |_| false, |_| false)? == 0);
    ensure!(pair.there.send(&reply)?.verdict == Verdict::TxNatReply);
    ensure!(pair.recorder.retain(&services, |_| false, |_| true)? == 1);
    ensure!(pair.there.sweep(HOUR)?.tracked == 0);
    ensure!(pair.there.send(&reply)?.verdict == Verdict::PassNotOurs);
    Ok(())
}
