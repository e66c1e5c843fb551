//! Internet checksum arithmetic (RFC 1071), and its incremental update (RFC 1624).
//!
//! Rewriting a header must not read the payload again: the new checksum follows from the old one
//! and from the words that changed.

use crate::abi::Ip;

/// The difference that replacing some words makes to a checksum.
///
/// Sums in one's complement: `!old + new` for each replaced word (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// No difference.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Accounts for a 16-bit word, as it stands in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: [u8; 2], new: [u8; 2]) -> Self {
        let (old, new) = (!u16::from_be_bytes(old), u16::from_be_bytes(new));
        Self(self.0 + old as u64 + new as u64)
    }

    /// Accounts for an IPv4 address or another 32-bit field.
    #[inline(always)]
    #[must_use]
    pub const fn double(self, old: [u8; 4], new: [u8; 4]) -> Self {
        self.memory(u32::from_ne_bytes(old), u32::from_ne_bytes(new))
    }

    /// Accounts for an IPv6 address, or an IPv4 one in its mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, old: Ip, new: Ip) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (old.words(), new.words());
        self.memory(a, e).memory(b, f).memory(c, g).memory(d, h)
    }

    /// Accounts for a 32-bit field.
    #[inline(always)]
    const fn memory(self, old: u32, new: u32) -> Self {
        let (old, new) = (!u32::from_be(old), u32::from_be(new));
        let halves = (old >> 16) as u64 + (old & 0xffff) as u64;
        Self(self.0 + halves + (new >> 16) as u64 + (new & 0xffff) as u64)
    }

    /// Both differences.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after the change, in packet order.
    #[inline(always)]
    #[must_use]
    pub fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let sum = u64::from(!u16::from_be_bytes(checksum)) + self.0;
        (!fold(sum)).to_be_bytes()
    }
}

/// Folds a sum of 16-bit words to 16 bits, end-around carry included.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Sums `bytes` as 16-bit words onto `sum`, for whole headers on hosts.
#[must_use]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words.fold(sum, |sum, word| {
        let low = word.get(1).copied().unwrap_or(0);
        sum + u64::from(u16::from_be_bytes([word[0], low]))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Delta, add, fold};
    use crate::abi::Ip;

    fn checksum(bytes: &[u8]) -> [u8; 2] {
        (!fold(add(0, bytes))).to_be_bytes()
    }

    #[test]
    fn matches_the_example_of_rfc_1071() {
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(add(0, &words)), 0xddf2);
    }

    proptest! {
        #[test]
        fn an_incremental_update_equals_a_fresh_sum(
            mut bytes in proptest::collection::vec(any::<u8>(), 40..80),
            address in any::<[u8; 16]>(),
            port in any::<[u8; 2]>(),
        ) {
            // A word that no change touches keeps the sum away from the one ambiguity of one's
            // complement, where every word is zero.
            bytes[0] = 0x45;
            let before = checksum(&bytes);
            let old: [u8; 16] = bytes[8..24].try_into().unwrap();
            let old_port = [bytes[24], bytes[25]];
            bytes[8..24].copy_from_slice(&address);
            bytes[24..26].copy_from_slice(&port);
            let delta = Delta::new().address(Ip::new(old), Ip::new(address)).word(old_port, port);
            prop_assert_eq!(delta.apply(before), checksum(&bytes));
        }

        #[test]
        fn a_double_is_two_words(old in any::<[u8; 4]>(), new in any::<[u8; 4]>(), sum in any::<[u8; 2]>()) {
            let words = Delta::new().word([old[0], old[1]], [new[0], new[1]])
                .word([old[2], old[3]], [new[2], new[3]]);
            prop_assert_eq!(Delta::new().double(old, new).apply(sum), words.apply(sum));
        }
    }
}
