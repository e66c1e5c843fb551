//! One case: a frame, and what must become of it.

use anyhow::{Context, Result, bail, ensure};
use lb_common::{
    abi::{BackendId, Balance, NextHop},
    verdict::{Action, Verdict},
};
use tests::{packet::Packet, prog_run::LOOPBACK, world::World};

use super::services::{Family, NAT_PORTS};

/// A frame, and what must become of it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
    /// What must be counted, and by that which action answered.
    pub(crate) verdict: Verdict,
    /// What the frame was built from, if it is to come out rebuilt.
    pub(crate) packet: Option<Packet>,
}

impl Case {
    /// A packet that is well formed.
    pub(crate) fn packet(name: impl Into<String>, packet: &Packet, verdict: Verdict) -> Self {
        Self {
            name: name.into(),
            frame: packet.build(),
            verdict,
            packet: Some(packet.clone()),
        }
    }

    /// Bytes that are not forwarded.
    pub(crate) fn bytes(name: impl Into<String>, frame: Vec<u8>, verdict: Verdict) -> Self {
        Self {
            name: name.into(),
            frame,
            verdict,
            packet: None,
        }
    }

    /// Runs it.
    pub(crate) fn check(&self, world: &World) -> Result<()> {
        let outcome = world.run(&self.frame)?;
        ensure!(
            outcome.verdict == self.verdict,
            "{:?} instead of {:?}",
            outcome.verdict,
            self.verdict
        );
        let out = &outcome.answer.frame;
        match self.verdict.action() {
            Action::Drop => Ok(()),
            Action::Pass => same(out, &self.frame),
            Action::Transmit | Action::Redirect => same(out, &self.expected(world, out)?),
        }
    }

    /// The frame that must come out. What is the program's to choose is taken from `out`: the
    /// backend if it goes by turns, and the port of the balancer.
    fn expected(&self, world: &World, out: &[u8]) -> Result<Vec<u8>> {
        let packet = self.packet.as_ref().context("cannot be rebuilt")?;
        let backend = chosen_backend(world, packet, out)?;
        let hop = world.next_hop(backend)?;
        self.check_exit(hop)?;
        if matches!(self.verdict, Verdict::TxDsr | Verdict::RedirectDsr) {
            return Ok(packet.forwarded(hop).build());
        }
        Ok(translated(world, packet, backend, nat_port(packet, out)?)?.build())
    }

    /// Transmit goes back out of the interface of arrival, which is loopback in all cases.
    fn check_exit(&self, hop: NextHop) -> Result<()> {
        let transmit = self.verdict.action() == Action::Transmit;
        ensure!(
            transmit == (hop.interface == LOOPBACK),
            "{:?} for a backend at interface {}",
            self.verdict,
            hop.interface
        );
        Ok(())
    }
}

/// Runs cases, and reports all that fail.
pub(crate) fn check(world: &World, cases: &[Case]) -> Result<()> {
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let error = case.check(world).err()?;
            Some(format!("{}: {error:#}", case.name))
        })
        .collect();
    ensure!(
        failures.is_empty(),
        "{} of {} cases failed:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
    Ok(())
}

/// The backend that a packet's slot names, or whose turn it was.
pub(crate) fn chosen_backend(world: &World, packet: &Packet, out: &[u8]) -> Result<BackendId> {
    let (vip, port) = (packet.destination, packet.destination_port);
    let service = world.service(vip, port, packet.protocol())?;
    if matches!(service.balance, Balance::Maglev | Balance::Source) {
        return world.owner(packet);
    }
    let sent_to = world.backend_by_mac(&out[..6]);
    let backend = sent_to.context("sent to nobody's MAC address")?;
    ensure!(
        world.backends_of(service.id).contains(&backend),
        "sent to another service's backend"
    );
    Ok(backend)
}

/// The packet as a `nat` service sends it to a backend.
pub(crate) fn translated(
    world: &World,
    packet: &Packet,
    backend: BackendId,
    port: u16,
) -> Result<Packet> {
    let family = family_of(packet);
    let forwarded = packet.forwarded(world.next_hop(backend)?);
    Ok(forwarded.between((family.own(), port), world.address(backend)?))
}

pub(crate) fn family_of(packet: &Packet) -> Family {
    if packet.source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// The source port of what came out for a packet, which must be one of the pool's.
pub(crate) fn nat_port(packet: &Packet, out: &[u8]) -> Result<u16> {
    let at = packet.transport_offset();
    let Some(bytes) = out.get(at..).and_then(|rest| rest.first_chunk()) else {
        bail!("what came out has no ports");
    };
    let port = u16::from_be_bytes(*bytes);
    ensure!(
        (NAT_PORTS.0..=NAT_PORTS.1).contains(&port),
        "port {port} is none of the pool's"
    );
    Ok(port)
}

/// Compares two frames and points at the first difference.
pub(crate) fn same(out: &[u8], expected: &[u8]) -> Result<()> {
    ensure!(
        out.len() == expected.len(),
        "{} bytes instead of {}",
        out.len(),
        expected.len()
    );
    let differs = out.iter().zip(expected).position(|(a, b)| a != b);
    if let Some(at) = differs {
        bail!("differs at byte {at}:\n  out      {out:02x?}\n  expected {expected:02x?}");
    }
    Ok(())
}
