//! Challenges to the sources of SYNs, and their answers.
//!
//! A SYN may carry any source address. Who is really there is found out without keeping state: the
//! SYN is answered with a SYN-ACK that acknowledges a number which no client has sent, a cookie. A
//! client that did send the SYN answers an acknowledgement out of place with a RST whose sequence
//! number is that same number (RFC 9293, 3.10.7.3, first); nobody else knows it.

use crate::{
    abi::{FlowKey, Ip, PROTOCOL_TCP, Tick},
    checksum::fold,
    parse::{TCP_ACK, TCP_SYN},
};

/// Length of a TCP header without options.
pub const HEADER: usize = 20;

/// How long a source that has answered may connect: long enough for a client to try again, short
/// enough that an address says little about who had it before.
const ANSWERED_TICKS: u32 = 60;

/// Cookies change every 16 ticks; the last ones are good as well, so an answer has 17 s at least.
const EPOCH_SHIFT: u32 = 4;

/// The bit that is not the cookie's: see [`Key::challenge`].
const FREE_BIT: u32 = 1 << 31;

/// Whether a source that answered at a tick may still connect.
#[inline(always)]
#[must_use]
pub const fn is_fresh(answered: Tick, now: Tick) -> bool {
    now.0.wrapping_sub(answered.0) < ANSWERED_TICKS
}

/// The secret of the cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Key([u64; 2]);

impl Key {
    /// The key of a seed. It may be another hash's too: [SipHash] does not tell its key.
    ///
    /// [SipHash]: https://www.aumasson.jp/siphash/siphash.pdf
    #[must_use]
    pub const fn from_seed(seed: [u8; 16]) -> Self {
        let seed = u128::from_le_bytes(seed);
        Self([seed as u64, (seed >> 64) as u64])
    }

    /// The initial value of the program's constant, which the loader always replaces.
    #[must_use]
    pub const fn zero() -> Self {
        Self([0, 0])
    }

    /// The acknowledgement number that challenges a SYN with sequence number `initial`.
    ///
    /// It must not be one that the client takes for good, which are those right behind `initial`: a
    /// bit that the cookie leaves free keeps it far away.
    #[inline(always)]
    #[must_use]
    pub fn challenge(&self, flow: &FlowKey, initial: u32, now: Tick) -> u32 {
        let cookie = self.cookie(flow, now.0 >> EPOCH_SHIFT);
        let distance = cookie.wrapping_sub(initial);
        let is_near = !(1 << 30..3 << 30).contains(&distance);
        if is_near { cookie ^ FREE_BIT } else { cookie }
    }

    /// Whether a RST with sequence number `sequence` answers a challenge.
    #[inline(always)]
    #[must_use]
    pub fn is_answer(&self, flow: &FlowKey, sequence: u32, now: Tick) -> bool {
        let epoch = now.0 >> EPOCH_SHIFT;
        let differs = |epoch| (self.cookie(flow, epoch) ^ sequence) & !FREE_BIT;
        differs(epoch) == 0 || differs(epoch.wrapping_sub(1)) == 0
    }

    #[inline(always)]
    fn cookie(&self, flow: &FlowKey, epoch: u32) -> u32 {
        let ([a, b, c, d], [e, f, g, h]) = (flow.source().words(), flow.destination().words());
        let ports = pair(
            u32::from(flow.source_port()),
            u32::from(flow.destination_port()),
        );
        let mut state = SipHash::new(self.0);
        state.write(pair(a, b));
        state.write(pair(c, d));
        state.write(pair(e, f));
        state.write(pair(g, h));
        state.write(ports);
        state.write(u64::from(epoch));
        state.finish(48) as u32 & !FREE_BIT
    }
}

#[inline(always)]
const fn pair(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

/// SipHash-2-4 (Aumasson, Bernstein, INDOCRYPT 2012) over whole words.
struct SipHash([u64; 4]);

impl SipHash {
    #[inline(always)]
    const fn new([low, high]: [u64; 2]) -> Self {
        Self([
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    const fn write(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    /// `length` is that of all input, in bytes: it stands in the last word.
    #[inline(always)]
    const fn finish(mut self, length: u64) -> u64 {
        self.write(length << 56);
        self.0[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.round();
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }

    #[inline(always)]
    const fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }
}

/// The header of a SYN-ACK to the sender of a SYN of `flow`, checksum included.
#[inline(always)]
#[must_use]
pub fn syn_ack(flow: &FlowKey, acknowledged: u32) -> [u8; HEADER] {
    let ([a, b], [c, d]) = (
        flow.destination_port().to_be_bytes(),
        flow.source_port().to_be_bytes(),
    );
    let [e, f, g, h] = acknowledged.to_be_bytes();
    let flags = TCP_SYN | TCP_ACK;
    // The pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1). What the mapped form of IPv4 addresses adds
    // is a word of ones each, which is zero in one's complement.
    let sum = addresses(flow.source())
        + addresses(flow.destination())
        + PROTOCOL_TCP as u64
        + HEADER as u64
        + flow.destination_port() as u64
        + flow.source_port() as u64
        + (acknowledged >> 16) as u64
        + (acknowledged & 0xffff) as u64
        + u64::from(u16::from_be_bytes([LENGTH, flags]))
        + WINDOW as u64;
    let [i, j] = (!fold(sum)).to_be_bytes();
    let [k, l] = WINDOW.to_be_bytes();
    [
        a, b, c, d, 0, 0, 0, 0, e, f, g, h, LENGTH, flags, k, l, i, j, 0, 0,
    ]
}

/// Five words, in the upper half of its byte.
const LENGTH: u8 = 5 << 4;
/// Never used, as the connection never is.
const WINDOW: u16 = 0xffff;

#[inline(always)]
fn addresses(address: Ip) -> u64 {
    let half = |word: u32| {
        let word = u32::from_be(word);
        (word >> 16) as u64 + (word & 0xffff) as u64
    };
    let [a, b, c, d] = address.words();
    half(a) + half(b) + half(c) + half(d)
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use proptest::prelude::*;

    use super::{HEADER, Key, SipHash, is_fresh, syn_ack};
    use crate::{
        abi::{FlowKey, Ip, PROTOCOL_TCP, Tick},
        checksum::{add, fold},
    };

    const KEY: Key = Key::from_seed(*b"a seed for tests");

    fn flow(client: IpAddr, port: u16) -> FlowKey {
        let vip: IpAddr = if client.is_ipv4() {
            [172, 16, 40, 24].into()
        } else {
            "fd00:40::24".parse().unwrap()
        };
        FlowKey::new(Ip::from(client), Ip::from(vip), port, 1883, PROTOCOL_TCP)
    }

    fn a_flow() -> FlowKey {
        flow([192, 0, 2, 1].into(), 40_000)
    }

    #[test]
    fn the_hash_matches_the_vectors_of_its_authors() {
        // The key 00 01 .. 0f, and the inputs of 0 and 8 bytes.
        let key: [u8; 16] = core::array::from_fn(|at| at as u8);
        let state = || SipHash::new(Key::from_seed(key).0);
        assert_eq!(state().finish(0), 0x726f_db47_dd0e_0e31);
        let mut eight = state();
        eight.write(u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(eight.finish(8), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn an_answer_is_good_for_two_epochs() {
        let start = Tick(16 * 100);
        let cookie = KEY.challenge(&a_flow(), 7, start);
        for (ticks, good) in [(0, true), (15, true), (31, true), (32, false), (500, false)] {
            let now = Tick(start.0 + ticks);
            assert_eq!(KEY.is_answer(&a_flow(), cookie, now), good, "{ticks}");
        }
        assert!(!KEY.is_answer(&a_flow(), cookie, Tick(start.0 - 1)));
    }

    #[test]
    fn an_answered_source_is_forgotten_after_a_minute() {
        assert!(is_fresh(Tick(100), Tick(100)) && is_fresh(Tick(100), Tick(159)));
        assert!(!is_fresh(Tick(100), Tick(160)) && !is_fresh(Tick(100), Tick(99)));
    }

    proptest! {
        #[test]
        fn only_who_was_challenged_knows_the_answer(
            client: IpAddr, other: IpAddr, ports: [u16; 2], initial: u32, tick: u32, wrong: u32,
        ) {
            let (flow, now) = (flow(client, ports[0]), Tick(tick));
            let cookie = KEY.challenge(&flow, initial, now);
            prop_assert!(KEY.is_answer(&flow, cookie, now));
            let strange = super::tests::flow(other, ports[1]);
            prop_assert!(strange == flow || !KEY.is_answer(&strange, cookie, now));
            prop_assert!((wrong ^ cookie) << 1 == 0 || !KEY.is_answer(&flow, wrong, now));
            let another = Key::from_seed(*b"another seed ...");
            prop_assert!(!another.is_answer(&flow, cookie, now));
        }

        #[test]
        fn no_client_takes_the_cookie_for_an_acknowledgement(initial: u32, tick: u32) {
            let cookie = KEY.challenge(&a_flow(), initial, Tick(tick));
            let distance = cookie.wrapping_sub(initial);
            prop_assert!((1 << 30..3 << 30).contains(&distance));
        }

        #[test]
        fn the_checksum_is_right(client: IpAddr, port: u16, acknowledged: u32) {
            let flow = flow(client, port);
            let header = syn_ack(&flow, acknowledged);
            let pseudo = u64::from(PROTOCOL_TCP) + HEADER as u64;
            let octets = |ip: Ip| if ip.is_v4() { ip.v4_octets().to_vec() } else { ip.octets().to_vec() };
            let sum = add(add(pseudo, &octets(flow.source())), &octets(flow.destination()));
            prop_assert_eq!(fold(add(sum, &header)), 0xffff);
        }
    }
}
