//! What the packet benchmark tells its generator of frames; never part of the product.

/// More than there can be flows, so that it does not divide their number.
const PRIME: u32 = 0x9e37_79b1;

/// What the generator is to make.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Order {
    interface: u32,
    flows: u32,
    step: u32,
    head: [u8; 26],
    destination: [u8; 4],
    flags: u8,
    padding: u8,
    checksum: [u8; 2],
    more_padding: [u8; 2],
}

impl Order {
    /// Frames to send out of `interface`, of `flows` flows, at most 2^31, in turns that a prefetcher
    /// cannot guess: each flow has one in a round.
    ///
    /// `head` is the frame up to the IPv4 source address, `destination` the VIP, `flags` TCP's.
    #[must_use]
    pub const fn new(
        interface: u32,
        flows: u32,
        head: [u8; 26],
        destination: [u8; 4],
        flags: u8,
    ) -> Self {
        Self {
            interface,
            flows,
            step: if flows == 0 { 0 } else { PRIME % flows },
            head,
            destination,
            flags,
            padding: 0,
            checksum: [0; 2],
            more_padding: [0; 2],
        }
    }

    /// The same with TCP's checksum as it is for [`Self::FIRST_SOURCE`] and [`Self::FIRST_PORT`], for which
    /// the head's own must be right, too: a flood is for hosts that look at them.
    #[must_use]
    pub const fn with_checksum(mut self, checksum: [u8; 2]) -> Self {
        self.checksum = checksum;
        self
    }

    /// The lowest source address of a frame.
    pub const FIRST_SOURCE: [u8; 4] = [10, 0, 0, 0];

    /// The lowest source port of a frame, as it stands there.
    pub const FIRST_PORT: [u8; 2] = [0x80, 0];

    /// TCP's checksum for the lowest source address and port.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(&self) -> [u8; 2] {
        self.checksum
    }

    /// Where the frames go.
    #[inline(always)]
    #[must_use]
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// How many flows, at least one.
    #[inline(always)]
    #[must_use]
    pub const fn flows(&self) -> u32 {
        if self.flows == 0 { 1 } else { self.flows }
    }

    /// From a frame's flow to the next frame's. It has no divisor in common with the number of flows.
    #[inline(always)]
    #[must_use]
    pub const fn step(&self) -> u32 {
        self.step
    }

    /// First bytes of the frame, up to the IPv4 source address.
    #[inline(always)]
    #[must_use]
    pub const fn head(&self) -> &[u8; 26] {
        &self.head
    }

    /// IPv4 destination.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> &[u8; 4] {
        &self.destination
    }

    /// TCP flags.
    #[inline(always)]
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags
    }
}
