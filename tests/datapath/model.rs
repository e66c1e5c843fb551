//! What the program must say of any frame, by the parser as it runs on hosts and the image.

use lb_common::{
    abi::{Forward, Ip, PROTOCOL_TCP, PROTOCOL_UDP, ServiceKey},
    cursor::SliceCursor,
    parse::{self, Fragmentation, Network, Reject, TCP_RST, Transport},
    verdict::Verdict,
};
use lb_user::core::image::{MapImage, ServiceImage};

/// The verdicts that are right for a frame: one, unless flow tables decide.
pub(crate) fn verdicts(image: &MapImage, frame: &[u8]) -> Vec<Verdict> {
    let mut cursor = SliceCursor::new(frame);
    let Some(family) = parse::ethernet(&mut cursor) else {
        return vec![Verdict::PassNotOurs];
    };
    let Ok(network) = Network::parse(&mut cursor, family) else {
        return vec![Verdict::PassMalformed];
    };
    let verdict = match Transport::parse(&mut cursor, &network, family) {
        Ok(transport) => return of_packet(image, &network, &transport),
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

fn of_packet(image: &MapImage, network: &Network, transport: &Transport) -> Vec<Verdict> {
    let flow = transport.flow(network);
    let later = transport.fragmentation == Fragmentation::Later;
    if later && is_vip(image, network.destination, transport.protocol) {
        return vec![Verdict::DropFragment];
    }
    match image.services.get(&flow.service()) {
        None => vec![Verdict::PassNotOurs],
        Some(_) if transport.fragmentation != Fragmentation::None => vec![Verdict::DropFragment],
        Some(_) if network.ttl <= 1 => vec![Verdict::TxTimeExceeded, Verdict::DropTtlExpired],
        Some(service) => of_service(image, service, transport),
    }
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

fn is_vip(image: &MapImage, vip: Ip, protocol: u8) -> bool {
    let of_vip = |key: &ServiceKey| (key.vip(), key.protocol()) == (vip, protocol);
    image.services.keys().any(of_vip)
}
