use proptest::prelude::*;

use super::{NoQuote, Quote};
use crate::{
    abi::{FlowKey, Ip, PROTOCOL_TCP, PROTOCOL_UDP},
    cursor::SliceCursor,
    parse::Family,
};

const VIP: [u8; 4] = [172, 16, 40, 24];
const CLIENT: [u8; 4] = [172, 16, 40, 100];
const PORTS: [u8; 8] = [0x07, 0x5b, 0x9c, 0x40, 0, 0, 0, 1];

fn error(kind: u8, quote: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], quote].concat()
}

fn v4(words: u8, fragment: u16, protocol: u8) -> Vec<u8> {
    let mut header = vec![0x40 | words, 0, 0x05, 0xdc, 0, 1];
    header.extend(fragment.to_be_bytes());
    header.extend([1, protocol, 0, 0]);
    header.extend(VIP);
    header.extend(CLIENT);
    header.resize(usize::from(words) * 4, 1);
    header
}

fn v6(next: u8) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0x05, 0xdc, next, 1];
    header.extend([0xfd; 16]);
    header.extend([0xfe; 16]);
    header
}

fn parse(family: Family, packet: &[u8]) -> Result<Quote, NoQuote> {
    Quote::parse(&mut SliceCursor::new(packet), family, packet.len())
}

#[test]
fn a_quote_gives_the_flow_that_it_is_of() {
    let quote = [v4(5, 0x4000, PROTOCOL_TCP), PORTS.to_vec()].concat();
    let flow = FlowKey::new(
        Ip::from_v4(VIP),
        Ip::from_v4(CLIENT),
        1883,
        40_000,
        PROTOCOL_TCP,
    );
    let whole = Quote {
        flow,
        network: 8,
        transport: 28,
    };
    assert_eq!(parse(Family::V4, &error(3, &quote)), Ok(whole));
    let quote = [v6(PROTOCOL_UDP), PORTS.to_vec()].concat();
    let parsed = parse(Family::V6, &error(2, &quote)).unwrap();
    assert_eq!(parsed.transport, 48);
    assert_eq!(parsed.flow.source(), Ip::new([0xfd; 16]));
    assert_eq!(parsed.flow.destination_port(), 40_000);
}

#[test]
fn options_and_extension_headers_are_walked_over() {
    let quote = [v4(8, 0, PROTOCOL_UDP), PORTS.to_vec()].concat();
    let parsed = parse(Family::V4, &error(11, &quote)).unwrap();
    assert_eq!((parsed.transport, parsed.flow.source_port()), (40, 1883));
    // A first fragment, with its ports.
    let fragment = [PROTOCOL_UDP, 0, 0, 1, 0, 0, 0, 9];
    let quote = [v6(44), fragment.to_vec(), PORTS.to_vec()].concat();
    let parsed = parse(Family::V6, &error(1, &quote)).unwrap();
    assert_eq!((parsed.transport, parsed.flow.source_port()), (56, 1883));
}

#[test]
fn what_has_no_ports_is_unreadable() {
    let later = [v4(5, 0x0010, PROTOCOL_UDP), PORTS.to_vec()].concat();
    let mut version = [v4(5, 0, PROTOCOL_UDP), PORTS.to_vec()].concat();
    version[0] = 0x65;
    let short = [v4(4, 0, PROTOCOL_UDP), PORTS.to_vec()].concat();
    for quote in [later, version, short] {
        assert_eq!(
            parse(Family::V4, &error(3, &quote)),
            Err(NoQuote::Unreadable)
        );
    }
    let whole = error(3, &[v4(5, 0, PROTOCOL_TCP), PORTS.to_vec()].concat());
    for length in 8..whole.len() {
        let cut = parse(Family::V4, &whole[..length]);
        assert_eq!(cut, Err(NoQuote::Unreadable), "{length}");
        // In the frame, but behind the end of the packet.
        let padded = Quote::parse(&mut SliceCursor::new(&whole), Family::V4, length);
        assert_eq!(padded, Err(NoQuote::Unreadable), "{length}");
    }
}

#[test]
fn only_errors_about_flows_count() {
    let quote = [v4(5, 0, 1), PORTS.to_vec()].concat();
    assert_eq!(
        parse(Family::V4, &error(3, &quote)),
        Err(NoQuote::OtherProtocol)
    );
    let quote = [v4(5, 0, PROTOCOL_TCP), PORTS.to_vec()].concat();
    for kind in [0, 4, 5, 8, 13] {
        assert_eq!(
            parse(Family::V4, &error(kind, &quote)),
            Err(NoQuote::NoError)
        );
    }
    let quote = [v6(PROTOCOL_TCP), PORTS.to_vec()].concat();
    for kind in [0, 5, 128, 135] {
        assert_eq!(
            parse(Family::V6, &error(kind, &quote)),
            Err(NoQuote::NoError)
        );
    }
    assert_eq!(parse(Family::V4, &[3; 7]), Err(NoQuote::NoError));
}

proptest! {
    #[test]
    fn any_bytes_are_read_within_their_end(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        kind in 1_u8..13,
        first in proptest::sample::select(vec![0x45_u8, 0x46, 0x60]),
        protocol in proptest::sample::select(vec![6_u8, 17, 44, 60]),
        end in 0_usize..140,
    ) {
        let mut bytes = [vec![kind, 0, 0, 0, 0, 0, 0, 0, first], bytes].concat();
        for at in [14, 17] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = protocol;
            }
        }
        for family in [Family::V4, Family::V6] {
            if let Ok(quote) = Quote::parse(&mut SliceCursor::new(&bytes), family, end) {
                prop_assert!(quote.network == 8 && quote.transport >= 28);
                prop_assert!(quote.transport + 8 <= end.min(bytes.len()));
            }
        }
    }
}
