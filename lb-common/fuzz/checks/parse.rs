//! Any bytes are a frame: parsing must not panic, and what it says must lie inside the frame.

use lb_common::{
    abi::{Ip, PROTOCOL_TCP},
    cursor::SliceCursor,
    flow::{HashKeys, slot},
    parse::{Family, Fragmentation, Network, Transport, ethernet},
};

/// Parses a frame; whether it was parsed to its end.
pub(crate) fn check(frame: &[u8]) -> bool {
    let mut cursor = SliceCursor::new(frame);
    let Some(family) = ethernet(&mut cursor) else {
        return false;
    };
    let Ok(network) = Network::parse(&mut cursor, family) else {
        return false;
    };
    let (source, destination) = addresses(&frame[network.offset..], family);
    assert_eq!((network.source, network.destination), (source, destination));
    let Ok(transport) = Transport::parse(&mut cursor, &network, family) else {
        return false;
    };
    assert!(transport.offset >= network.offset + 20);
    assert!(transport.end <= frame.len());
    if transport.fragmentation != Fragmentation::Later {
        let header = if transport.protocol == PROTOCOL_TCP {
            20
        } else {
            8
        };
        assert!(transport.payload >= transport.offset + header);
        assert!(transport.payload <= transport.end);
        let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        assert_eq!(transport.source_port, port(transport.offset));
        assert_eq!(transport.destination_port, port(transport.offset + 2));
    }
    let flow = transport.flow(&network);
    assert!(slot(HashKeys::from_seed([7; 16]).hash(&flow)) < lb_common::abi::SLOT_COUNT);
    true
}

/// Source and destination of a whole network header.
fn addresses(header: &[u8], family: Family) -> (Ip, Ip) {
    let v4 = |at: usize| Ip::from_v4(header[at..at + 4].try_into().expect("four bytes"));
    let v6 = |at: usize| Ip::new(header[at..at + 16].try_into().expect("sixteen bytes"));
    match family {
        Family::V4 => (v4(12), v4(16)),
        Family::V6 => (v6(8), v6(24)),
    }
}
