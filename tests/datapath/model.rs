//! What the program must say of any frame, by the parser as it runs on hosts and the image.

use lb_common::{
    abi::{Forward, Ip, PROTOCOL_TCP, PROTOCOL_UDP, ServiceKey},
    cursor::SliceCursor,
    parse::{
        self, Fragmentation, Network, NoQuote, Quote, Reject, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
        Transport,
    },
    verdict::Verdict,
};
use lb_user::core::image::{MapImage, ServiceImage};

/// The verdicts that are right for a frame: one, unless flow tables decide.
pub(crate) fn verdicts(image: &MapImage, frame: &[u8]) -> Vec<Verdict> {
    let mut cursor = SliceCursor::new(frame);
    let is_others = |mac| image.own_mac.is_others(mac);
    if frame.first_chunk().is_none_or(is_others) {
        return vec![Verdict::PassNotOurs];
    }
    let Some(family) = parse::ethernet(&mut cursor) else {
        return vec![Verdict::PassNotOurs];
    };
    let Ok(network) = Network::parse(&mut cursor, family) else {
        return vec![Verdict::PassMalformed];
    };
    let verdict = match Transport::parse(&mut cursor, &network, family) {
        Ok(transport) => return of_packet(image, &network, &transport),
        Err(Reject::Icmp) => {
            return match Quote::parse(&mut cursor, family, network.end) {
                Ok(quote) => of_quote(image, &network, &quote),
                Err(reason) => of_no_flow(image, &network, reason),
            };
        }
        Err(Reject::OtherProtocol) => Verdict::PassNotOurs,
        Err(Reject::BadNetwork) => Verdict::PassMalformed,
        Err(Reject::BadTransport) => {
            let vip = network.destination;
            if is_vip(image, vip, PROTOCOL_TCP) || is_vip(image, vip, PROTOCOL_UDP) {
                Verdict::DropMalformed
            } else {
                Verdict::PassMalformed
            }
        }
    };
    vec![verdict]
}

/// Whether a frame is a fragment without ports.
pub(crate) fn is_later_piece(frame: &[u8]) -> bool {
    let mut cursor = SliceCursor::new(frame);
    let transport = parse::ethernet(&mut cursor).and_then(|family| {
        let network = Network::parse(&mut cursor, family).ok()?;
        Transport::parse(&mut cursor, &network, family).ok()
    });
    transport.is_some_and(|transport| transport.fragmentation == Fragmentation::Later)
}

fn of_packet(image: &MapImage, network: &Network, transport: &Transport) -> Vec<Verdict> {
    let flow = transport.flow(network);
    let later = transport.fragmentation == Fragmentation::Later;
    if later && is_vip(image, network.destination, transport.protocol) {
        // Unless another packet was its first piece.
        return [
            vec![Verdict::DropFragment, Verdict::DropTtlExpired],
            image
                .services
                .values()
                .flat_map(|service| of_service(image, service, transport))
                .collect(),
        ]
        .concat();
    }
    match image.services.get(&flow.service()) {
        None => vec![Verdict::PassNotOurs],
        Some(_) if !later && is_of_no_connection(transport) => vec![Verdict::DropMalformed],
        Some(_) if network.ttl <= 1 => vec![Verdict::TxTimeExceeded, Verdict::DropTtlExpired],
        Some(service) => of_service(image, service, transport),
    }
}

/// Neither an ACK nor a RST, nor a SYN and no more.
fn is_of_no_connection(transport: &Transport) -> bool {
    let flags = transport.tcp_flags;
    transport.protocol == PROTOCOL_TCP
        && flags & (TCP_ACK | TCP_RST) == 0
        && flags & (TCP_SYN | TCP_FIN) != TCP_SYN
}

fn of_service(image: &MapImage, service: &ServiceImage, transport: &Transport) -> Vec<Verdict> {
    let mut backends = image.backends.values();
    let has_next_hop =
        backends.any(|backend| backend.service == service.id && backend.next_hop.is_some());
    let mut verdicts = match (service.table.slots.is_empty(), service.forward) {
        (true, _) => vec![Verdict::DropNoBackend],
        (false, _) if !has_next_hop => vec![Verdict::DropNoNextHop],
        (false, Forward::Dsr) => vec![Verdict::TxDsr, Verdict::RedirectDsr],
        (false, Forward::Nat) => vec![Verdict::TxNat, Verdict::RedirectNat],
        (false, Forward::Tunnel) => vec![Verdict::TxTunnel, Verdict::RedirectTunnel],
    };
    if service.forward == Forward::Nat && transport.tcp_flags & TCP_RST != 0 {
        verdicts.push(Verdict::DropNatUnknownFlow);
    }
    verdicts
}

fn of_no_flow(image: &MapImage, network: &Network, reason: NoQuote) -> Vec<Verdict> {
    let vip = network.destination;
    let to_vip = is_vip(image, vip, PROTOCOL_TCP) || is_vip(image, vip, PROTOCOL_UDP);
    vec![match reason {
        NoQuote::Unreadable if to_vip => Verdict::DropIcmpUnknownFlow,
        NoQuote::Unreadable | NoQuote::NoError | NoQuote::OtherProtocol => Verdict::PassNotOurs,
    }]
}

fn of_quote(image: &MapImage, network: &Network, quote: &Quote) -> Vec<Verdict> {
    let flow = quote.flow.reversed();
    if flow.destination() != network.destination {
        return of_no_flow(image, network, NoQuote::Unreadable);
    }
    if flow.destination_port() == 0 && is_vip(image, flow.destination(), flow.protocol()) {
        return vec![Verdict::DropIcmpUnknownFlow];
    }
    let Some(service) = image.services.get(&flow.service()) else {
        return vec![
            Verdict::PassNotOurs,
            Verdict::TxIcmpReply,
            Verdict::RedirectIcmpReply,
            Verdict::DropTtlExpired,
        ];
    };
    let mut backends = image.backends.values();
    let has_next_hop =
        backends.any(|backend| backend.service == service.id && backend.next_hop.is_some());
    let sent = [Verdict::TxIcmp, Verdict::RedirectIcmp];
    match (service.forward, service.table.slots.is_empty()) {
        (Forward::Nat, _) => [
            sent.to_vec(),
            vec![Verdict::DropIcmpUnknownFlow, Verdict::DropTtlExpired],
        ]
        .concat(),
        (Forward::Dsr | Forward::Tunnel, true) => vec![Verdict::DropNoBackend],
        (Forward::Dsr | Forward::Tunnel, false) if !has_next_hop => vec![Verdict::DropNoNextHop],
        (Forward::Dsr | Forward::Tunnel, false) if network.ttl <= 1 => {
            vec![Verdict::DropTtlExpired]
        }
        (Forward::Dsr, false) => sent.to_vec(),
        (Forward::Tunnel, false) => vec![Verdict::TxTunnel, Verdict::RedirectTunnel],
    }
}

fn is_vip(image: &MapImage, vip: Ip, protocol: u8) -> bool {
    let of_vip = |key: &ServiceKey| (key.vip(), key.protocol()) == (vip, protocol);
    image.services.keys().any(of_vip)
}
