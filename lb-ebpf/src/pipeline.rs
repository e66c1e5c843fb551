//! The stages a packet goes through, in order; the first that ends its way returns the verdict.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{BackendId, FlowKey, PROTOCOL_TCP, PROTOCOL_UDP, Service, ServiceKey},
    parse::{self, Family, Fragmentation, Network, Reject, Transport},
    verdict::Verdict,
};

use crate::{
    conntrack::{self, Signal},
    forward::{self, Arrival},
    maps, nat,
    packet::Frame,
    rewrite,
    select::{self, Target},
};

/// A parsed packet on its way.
struct Packet<'a> {
    context: &'a XdpContext,
    frame: Frame,
    family: Family,
    network: Network,
    transport: Transport,
    flow: FlowKey,
}

/// Parses the frame, finds its service, and sends it on.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let frame = Frame::new(context);
    let mut cursor = frame.cursor();
    let family = parse::ethernet(&mut cursor).ok_or(Verdict::PassNotOurs)?;
    let network = Network::parse(&mut cursor, family).map_err(|_damaged| Verdict::PassMalformed)?;
    let transport = Transport::parse(&mut cursor, &network, family)
        .map_err(|reject| rejected(reject, &network))?;
    let flow = transport.flow(&network);
    let packet = Packet {
        context,
        frame,
        family,
        network,
        transport,
        flow,
    };
    match maps::service(&packet.flow.service()) {
        Some(service) => packet.to_service(&service),
        None => packet.to_host(),
    }
}

/// A packet for a VIP must not reach the host's own TCP, not even a damaged one.
#[inline(always)]
fn rejected(reject: Reject, network: &Network) -> Verdict {
    match reject {
        Reject::OtherProtocol => Verdict::PassNotOurs,
        Reject::BadNetwork => Verdict::PassMalformed,
        Reject::BadTransport => {
            let marked = |protocol| {
                maps::service(&ServiceKey::marker(network.destination, protocol)).is_some()
            };
            if marked(PROTOCOL_TCP) || marked(PROTOCOL_UDP) {
                Verdict::DropMalformed
            } else {
                Verdict::PassMalformed
            }
        }
    }
}

impl Packet<'_> {
    #[inline(always)]
    fn to_service(mut self, service: &Service) -> Result<Verdict, Verdict> {
        let outcome = if service.is_marker() {
            // Only a later fragment or port 0 finds a marker.
            return Err(match self.transport.fragmentation {
                Fragmentation::Later => Verdict::DropFragment,
                Fragmentation::None | Fragmentation::First => Verdict::PassNotOurs,
            });
        } else if !matches!(self.transport.fragmentation, Fragmentation::None) {
            Err(Verdict::DropFragment)
        } else if rewrite::is_expired(&self.network) {
            // Before a flow is recorded for it.
            Err(Verdict::DropTtlExpired)
        } else if service.is_nat() {
            self.translate(service)
        } else if service.is_round_robin() {
            self.track(service)
                .and_then(|(target, first)| self.route(&target, first))
        } else {
            // Stateless: the slot decides for every packet.
            let first = self.signal().starts;
            select::by_slot(service, &self.flow).and_then(|target| self.route(&target, first))
        };
        if outcome.is_err() {
            maps::count_service(service.id(), |traffic| traffic.dropped += 1);
        }
        outcome
    }

    /// Tracked: the first packet's backend keeps the flow. Also says whether this is the first.
    #[inline(always)]
    fn track(&self, service: &Service) -> Result<(Target, bool), Verdict> {
        let signal = self.signal();
        let now = maps::now();
        if let Some(known) = conntrack::find(service, &self.flow, signal) {
            if conntrack::touch(&known, signal, now)
                && conntrack::establish(&self.flow, &known).is_none()
            {
                self.count_untracked(&known.target);
            }
            return Ok((known.target, false));
        }
        let target = self.choose(service, signal)?;
        if !self.is_first(signal) {
            // Its slot gives the same answer to every packet, without a record that a flood of
            // forged packets could fill the table with.
            return Ok((target, false));
        }
        let record = conntrack::new_flow(&target, now);
        maps::remove_flow(maps::Stage::Established, &self.flow);
        if maps::insert_flow(maps::Stage::HalfOpen, &self.flow, &record).is_none() {
            self.count_untracked(&target);
        }
        Ok((target, true))
    }

    /// The backend of a flow that is not recorded.
    ///
    /// One that did not start here was lost with an earlier table: its slot is the only thing that
    /// all nodes agree on.
    #[inline(always)]
    fn choose(&self, service: &Service, signal: Signal) -> Result<Target, Verdict> {
        if service.is_round_robin() && self.is_first(signal) {
            select::by_turn(service)
        } else {
            select::by_slot(service, &self.flow)
        }
    }

    /// Sends the packet as it is, to the backend's MAC address.
    #[inline(always)]
    fn route(&mut self, target: &Target, first: bool) -> Result<Verdict, Verdict> {
        let next_hop = target.backend.next_hop().ok_or(Verdict::DropNoNextHop)?;
        rewrite::age(&mut self.frame, &self.network, self.family)?;
        self.count(target, first);
        forward::send(self.context, &mut self.frame, next_hop, forward::DSR)
    }

    /// Sends the packet in the balancer's name.
    #[inline(always)]
    fn translate(&mut self, service: &Service) -> Result<Verdict, Verdict> {
        let signal = self.signal();
        let now = maps::now();
        let pool = maps::nat_pool().ok_or(Verdict::DropNatNoSource)?;
        let scratch = maps::scratch().ok_or(Verdict::DropInternal)?;
        let arrival = self.arrival()?;
        let (target, translation, first) = if let Some(known) =
            conntrack::find(service, &self.flow, signal)
                .filter(|known| nat::is_whole(pool, &self.flow, known, scratch))
        {
            let translation = nat::known(pool, &self.flow, &known, &arrival, scratch);
            if conntrack::touch(&known, signal, now)
                && nat::establish(&translation, &self.flow, &known, scratch).is_none()
            {
                self.count_untracked(&known.target);
            }
            (known.target, translation, false)
        } else if signal.rst {
            return Err(Verdict::DropNatUnknownFlow);
        } else {
            // A flow lost with an earlier table gets a backend too: that one's RST tells the
            // client to connect again at once.
            let target = self.choose(service, signal)?;
            let translation = nat::start(pool, &self.flow, &target, &arrival, now, scratch)?;
            (target, translation, self.is_first(signal))
        };
        let next_hop = target.backend.next_hop().ok_or(Verdict::DropNoNextHop)?;
        rewrite::age(&mut self.frame, &self.network, self.family)?;
        self.count(&target, first);
        let ends = translation.ends(&target);
        rewrite::ends(
            &mut self.frame,
            &self.network,
            &self.transport,
            self.family,
            &ends,
        )?;
        forward::send(self.context, &mut self.frame, next_hop, forward::NAT)
    }

    /// Not for a service: a backend's reply to a translated flow, or the host's own.
    #[inline(always)]
    fn to_host(mut self) -> Result<Verdict, Verdict> {
        let pool = maps::nat_pool().ok_or(Verdict::PassNotOurs)?;
        let port = u32::from(self.flow.destination_port());
        if port.wrapping_sub(pool.first_port()) >= pool.port_count() {
            return Err(Verdict::PassNotOurs);
        }
        let reply = &mut maps::scratch().ok_or(Verdict::DropInternal)?.reply;
        // A record moves from the second table to the first, inserted before it is removed: between
        // the two looks it can be missed, hence the third.
        let stage = if maps::load_reply(maps::Stage::Established, &self.flow, reply).is_some() {
            maps::Stage::Established
        } else if maps::load_reply(maps::Stage::HalfOpen, &self.flow, reply).is_some() {
            maps::Stage::HalfOpen
        } else {
            maps::load_reply(maps::Stage::Established, &self.flow, reply)
                .ok_or(Verdict::PassNotOurs)?;
            maps::Stage::Established
        };
        if !matches!(self.transport.fragmentation, Fragmentation::None) {
            return Err(Verdict::DropFragment);
        }
        let length = self.frame.length();
        maps::count_backend(BackendId(reply.backend), |traffic| {
            traffic.reply_packets += 1;
            traffic.reply_bytes += length;
        });
        let client = nat::client_key(reply, self.flow.protocol());
        let signal = self.signal();
        conntrack::backend_closed(&client, signal, maps::now());
        if signal.rst {
            nat::refused(stage, &client, &self.flow);
        }
        rewrite::age(&mut self.frame, &self.network, self.family)?;
        let ends = nat::reply_ends(reply);
        rewrite::ends(
            &mut self.frame,
            &self.network,
            &self.transport,
            self.family,
            &ends,
        )?;
        forward::send(
            self.context,
            &mut self.frame,
            reply.next_hop,
            forward::NAT_REPLY,
        )
    }

    #[inline(always)]
    fn arrival(&mut self) -> Result<Arrival, Verdict> {
        forward::arrival(self.context, &mut self.frame).ok_or(Verdict::DropInternal)
    }

    #[inline(always)]
    fn signal(&self) -> Signal {
        Signal::new(self.flow.protocol(), self.transport.tcp_flags)
    }

    /// Whether an unknown flow starts with this packet: UDP has no sign of it but being unknown.
    #[inline(always)]
    fn is_first(&self, signal: Signal) -> bool {
        signal.starts || self.flow.protocol() == PROTOCOL_UDP
    }

    #[inline(always)]
    fn count(&self, target: &Target, first: bool) {
        let length = self.frame.length();
        maps::count_backend(target.id, |traffic| {
            traffic.packets += 1;
            traffic.bytes += length;
            traffic.new_connections += u64::from(first);
        });
    }

    #[inline(always)]
    fn count_untracked(&self, target: &Target) {
        maps::count_backend(target.id, |traffic| traffic.untracked += 1);
    }
}
