//! Why adverts are refused, what is odd about others, and how often.

use super::label::labelled;

labelled! {
    /// Why an advert was refused. A refused advert changes nothing but a counter.
    Refusal {
        /// TTL or Hop Limit is not 255: it came through a router (RFC 9568, 5.1.1.3, 5.1.2.3).
        Hops = "hops",
        /// The version is neither 2 nor 3, or 2 over IPv6, or not the one that is configured.
        Version = "version",
        /// It is no advert (RFC 9568, 5.2.2).
        Type = "type",
        /// It is shorter or longer than its version and count say (RFC 9568, 7.1).
        Length = "length",
        /// It has no addresses (RFC 9568, 5.2.5).
        Count = "count",
        /// The sum is wrong in every dialect (RFC 9568, 5.2.8; RFC 3768, 5.3.8).
        Checksum = "checksum",
        /// The interval is zero (RFC 9568, 7.1 with erratum 8301).
        NoInterval = "no_interval",
        /// IPv6, and the first address is not link-local (RFC 9568, 7.1 with erratum 8300).
        NoLinkLocal = "no_link_local",
        /// Nobody here has the VRID on this interface, or it is 0 (RFC 9568, 7.1).
        Vrid = "vrid",
        /// IPv4 where IPv6 is configured, or the reverse.
        Family = "family",
        /// An unknown kind of authentication, or not the one configured (RFC 2338, 7.1).
        AuthType = "auth_type",
        /// The password is not ours (RFC 2338, 7.1).
        AuthMismatch = "auth_mismatch",
        /// VRRPv2, and its interval is not ours (RFC 3768, 7.1).
        IntervalMismatch = "interval_mismatch",
        /// The source is no host's address: 0.0.0.0, ::, loopback, multicast or broadcast.
        NoSource = "no_source",
        /// The source is our own address: a loop, or somebody else has it too.
        OwnAddress = "own_address",
        /// Unicast, and the source is none of the peers.
        Stranger = "stranger",
        /// The addresses are not ours, and the settings say that this matters.
        Addresses = "addresses",
    }
}

labelled! {
    /// What is odd about an advert that was not refused: something is configured wrong somewhere.
    Remark {
        /// Its addresses are not ours (RFC 9568, 7.1).
        AddressesDiffer = "addresses_differ",
        /// VRRPv3, and its interval is not ours (RFC 9568, 7.1).
        IntervalDiffers = "interval_differs",
        /// It comes from an address owner, and so do ours (RFC 9568, 7.1 with erratum 8298).
        TwoOwners = "two_owners",
    }
}

/// How often each of them came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; Refusal::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub fn count(&mut self, refusal: Refusal) {
        let count = &mut self.0[refusal as usize];
        *count = count.wrapping_add(1);
    }

    /// How often it came.
    #[must_use]
    pub const fn of(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize]
    }

    /// All counts, with the zeros.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.iter().copied().zip(self.0)
    }
}

/// How often there was something to remark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks([u64; Remark::ALL.len()]);

impl Remarks {
    /// Counts one.
    pub fn count(&mut self, remark: Remark) {
        let count = &mut self.0[remark as usize];
        *count = count.wrapping_add(1);
    }

    /// How often it came.
    #[must_use]
    pub const fn of(&self, remark: Remark) -> u64 {
        self.0[remark as usize]
    }

    /// All counts, with the zeros.
    pub fn iter(&self) -> impl Iterator<Item = (Remark, u64)> {
        Remark::ALL.iter().copied().zip(self.0)
    }
}
