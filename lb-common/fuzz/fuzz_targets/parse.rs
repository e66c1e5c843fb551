//! Any bytes are a frame: parsing must not panic, and what it says must lie inside the frame.

#![no_main]

use lb_common::{
    abi::PROTOCOL_TCP,
    cursor::SliceCursor,
    flow::{HashKeys, slot},
    parse::{Fragmentation, Network, Transport, ethernet},
};

libfuzzer_sys::fuzz_target!(|frame: &[u8]| {
    let mut cursor = SliceCursor::new(frame);
    let Some(family) = ethernet(&mut cursor) else {
        return;
    };
    let Ok(network) = Network::parse(&mut cursor, family) else {
        return;
    };
    let Ok(transport) = Transport::parse(&mut cursor, &network, family) else {
        return;
    };
    assert!(transport.offset >= network.offset + 20);
    if transport.fragmentation != Fragmentation::Later {
        let header = if transport.protocol == PROTOCOL_TCP {
            20
        } else {
            8
        };
        assert!(transport.offset + header <= frame.len());
    }
    let flow = transport.flow(&network);
    assert!(slot(HashKeys::from_seed([7; 16]).hash(&flow)) < lb_common::abi::SLOT_COUNT);
});
