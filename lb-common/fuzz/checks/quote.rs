//! Any bytes are an ICMP packet: reading what it quotes must not panic, nor reach beyond its end.

use lb_common::{
    cursor::SliceCursor,
    parse::{Family, Quote},
};

/// Reads a packet whose first two bytes are its length; whether it quotes a flow.
pub(crate) fn check(input: &[u8]) -> bool {
    let Some((end, bytes)) = input.split_first_chunk() else {
        return false;
    };
    let end = usize::from(u16::from_be_bytes(*end));
    let mut found = false;
    for family in [Family::V4, Family::V6] {
        let Ok(quote) = Quote::parse(&mut SliceCursor::new(bytes), family, end) else {
            continue;
        };
        assert!(quote.network == 8 && quote.transport >= quote.network + 20);
        assert!(quote.transport + 8 <= end.min(bytes.len()));
        assert_eq!(quote.flow.reversed().reversed(), quote.flow);
        found = true;
    }
    found
}
