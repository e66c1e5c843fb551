//! What NAT sends from.

use super::{Ip, NAT_SOURCES};

/// The addresses and ports that NAT sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NatPool {
    v4: [Ip; NAT_SOURCES],
    v6: [Ip; NAT_SOURCES],
    v4_count: u32,
    v6_count: u32,
    first_port: u32,
    port_count: u32,
}

impl NatPool {
    /// A pool without addresses.
    pub const EMPTY: Self = Self {
        v4: [Ip::from_words([0; 4]); NAT_SOURCES],
        v6: [Ip::from_words([0; 4]); NAT_SOURCES],
        v4_count: 0,
        v6_count: 0,
        first_port: 0,
        port_count: 0,
    };

    /// A pool of `sources` (at most [`NAT_SOURCES`] of each family are used) and a range of ports.
    #[must_use]
    pub fn new(sources: &[Ip], first_port: u16, last_port: u16) -> Self {
        let mut pool = Self {
            first_port: u32::from(first_port),
            port_count: u32::from(last_port.saturating_sub(first_port)) + 1,
            ..Self::EMPTY
        };
        for source in sources {
            let (places, count) = if source.is_v4() {
                (&mut pool.v4, &mut pool.v4_count)
            } else {
                (&mut pool.v6, &mut pool.v6_count)
            };
            if let Some(place) = places.get_mut(*count as usize) {
                *place = *source;
                *count += 1;
            }
        }
        pool
    }

    /// How many source addresses there are for destinations of a family.
    #[inline(always)]
    #[must_use]
    pub const fn source_count(&self, v4: bool) -> u32 {
        if v4 { self.v4_count } else { self.v6_count }
    }

    /// A source address by its number, which wraps.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self, v4: bool, number: u8) -> &Ip {
        let at = number as usize % NAT_SOURCES;
        if v4 { &self.v4[at] } else { &self.v6[at] }
    }

    /// First port of the range.
    #[inline(always)]
    #[must_use]
    pub const fn first_port(&self) -> u32 {
        self.first_port
    }

    /// Length of the range.
    #[inline(always)]
    #[must_use]
    pub const fn port_count(&self) -> u32 {
        self.port_count
    }
}
