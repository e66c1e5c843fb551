//! Any bytes are an ICMP packet: reading what it quotes must not panic, nor reach beyond its end.

#![no_main]

use lb_common::{
    cursor::SliceCursor,
    parse::{Family, Quote},
};

libfuzzer_sys::fuzz_target!(|input: (u16, &[u8])| {
    let (end, bytes) = input;
    let end = usize::from(end);
    for family in [Family::V4, Family::V6] {
        let Ok(quote) = Quote::parse(&mut SliceCursor::new(bytes), family, end) else {
            continue;
        };
        assert!(quote.network == 8 && quote.transport >= quote.network + 20);
        assert!(quote.transport + 8 <= end.min(bytes.len()));
        assert_eq!(quote.flow.reversed().reversed(), quote.flow);
    }
});
