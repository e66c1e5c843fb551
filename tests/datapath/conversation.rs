//! A translated flow from a test's point of view: what it sends, and what must arrive.

use anyhow::{Result, ensure};
use lb_common::{
    abi::{BackendId, NextHop},
    verdict::Verdict,
};
use tests::{
    packet::{Packet, Transport},
    prog_run::LOOPBACK,
    world::World,
};

use super::case::{chosen_backend, nat_port, same, translated};

/// A flow that has begun.
pub(crate) struct Flow {
    pub(crate) first: Packet,
    pub(crate) backend: BackendId,
    pub(crate) port: u16,
}

impl Flow {
    /// Sends the first packet.
    pub(crate) fn begin(world: &World, first: &Packet) -> Result<Self> {
        let out = world.send(first)?;
        ensure!(
            matches!(out.verdict, Verdict::TxNat | Verdict::RedirectNat),
            "{:?}",
            out.verdict
        );
        let backend = chosen_backend(world, first, &out.answer.frame)?;
        let port = nat_port(first, &out.answer.frame)?;
        let flow = Self {
            first: first.clone(),
            backend,
            port,
        };
        same(&out.answer.frame, &flow.outward(world, first)?)?;
        Ok(flow)
    }

    /// Another packet from the client.
    pub(crate) fn next(&self, transport: Transport) -> Packet {
        self.first.clone().with(|packet| {
            packet.transport = transport;
            packet.payload = b"more".to_vec();
        })
    }

    /// What the backend must get for it.
    pub(crate) fn outward(&self, world: &World, packet: &Packet) -> Result<Vec<u8>> {
        Ok(translated(world, packet, self.backend, self.port)?.build())
    }

    /// Sends a packet of the client's, which must take the way of the first.
    pub(crate) fn send(&self, world: &World, packet: &Packet) -> Result<()> {
        let out = world.send(packet)?;
        same(&out.answer.frame, &self.outward(world, packet)?)
    }

    /// The backend's answer as it comes from the wire.
    pub(crate) fn reply(&self, world: &World, transport: Transport) -> Result<Packet> {
        let hop = world.next_hop(self.backend)?;
        let sent = translated(world, &self.first, self.backend, self.port)?;
        Ok(sent.reply(hop).with(|packet| packet.transport = transport))
    }

    /// What the client must get for it.
    pub(crate) fn inward(&self, reply: &Packet) -> Packet {
        let way_back = NextHop {
            interface: LOOPBACK,
            mac: self.first.source_mac,
            source_mac: self.first.destination_mac,
        };
        let (first, client) = (&self.first, self.first.source);
        reply.forwarded(way_back).between(
            (first.destination, first.destination_port),
            (client, first.source_port),
        )
    }

    /// Sends an answer, which must reach the client.
    pub(crate) fn answer(&self, world: &World, transport: Transport) -> Result<()> {
        let reply = self.reply(world, transport)?;
        let out = world.send(&reply)?;
        ensure!(out.verdict == Verdict::TxNatReply, "{:?}", out.verdict);
        same(&out.answer.frame, &self.inward(&reply).build())
    }
}
