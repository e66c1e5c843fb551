//! What tunnels send from.

use super::Ip;

/// The outer source addresses of tunnels: the bits of a mask vary by flow, so that the receiver's
/// NIC spreads the flows over its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TunnelSources {
    v4: Ip,
    v6: Ip,
    v4_mask: u32,
    v6_mask: u32,
    has_v4: u32,
    has_v6: u32,
}

impl TunnelSources {
    /// No address.
    pub const EMPTY: Self = Self {
        v4: Ip::from_words([0; 4]),
        v6: Ip::from_words([0; 4]),
        v4_mask: 0,
        v6_mask: 0,
        has_v4: 0,
        has_v6: 0,
    };

    /// The same sources, with `address` for receivers of its family; the lowest `free_bits` of it,
    /// at most 32, vary.
    #[must_use]
    pub const fn with(self, address: Ip, free_bits: u32) -> Self {
        let mask = if free_bits >= 32 {
            u32::MAX
        } else {
            (1 << free_bits) - 1
        };
        if address.is_v4() {
            Self {
                v4: address,
                v4_mask: mask.to_be(),
                has_v4: 1,
                ..self
            }
        } else {
            Self {
                v6: address,
                v6_mask: mask.to_be(),
                has_v6: 1,
                ..self
            }
        }
    }

    /// The source of a flow's packets to a receiver, if there is one of its family.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self, v4: bool, hash: u32) -> Option<Ip> {
        let (base, mask, has) = if v4 {
            (&self.v4, self.v4_mask, self.has_v4)
        } else {
            (&self.v6, self.v6_mask, self.has_v6)
        };
        if has == 0 {
            return None;
        }
        let [a, b, c, d] = base.words();
        Some(Ip::from_words([a, b, c, (d & !mask) | (hash & mask)]))
    }
}
