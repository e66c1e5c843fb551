//! Which other node has a session's copy.
//!
//! The owner decides, so nodes need not agree. Rendezvous hashing: a node that comes takes from each
//! of the others its share, one that goes leaves its own to all of the others, and no session's copy
//! moves besides.

use crate::routes::ShardId;

/// Another node that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub place: Place,
    /// The hash of its name.
    pub node: u64,
}

/// Where a copy is: nothing of it is left when the peer is lost, also if it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The end of the lane to it.
    pub end: ShardId,
    /// Another number whenever it was lost.
    pub life: u64,
}

/// Where the copy of a client's session belongs; `None` if nobody is there.
pub fn place_of(client: u64, peers: &[Peer]) -> Option<Place> {
    let peer = peers.iter().max_by_key(|peer| mix(client ^ mix(peer.node)));
    peer.map(|peer| peer.place)
}

/// The end of Steele's SplitMix64: each bit of the number has its part in each of the result.
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> Peer {
        Peer {
            place: Place {
                end: ShardId(number),
                life: 1,
            },
            node: mix(u64::from(number)),
        }
    }

    #[test]
    fn copies_are_spread_evenly_and_only_those_of_a_node_that_goes_move() {
        let peers: Vec<_> = (0..4).map(peer).collect();
        let three = &peers[..3];
        let mut counts = [0; 4];
        for client in (0..40_000).map(mix) {
            let before = place_of(client, &peers).unwrap();
            counts[usize::from(before.end.0)] += 1;
            let after = place_of(client, three).unwrap();
            assert!(after == before || before.end == ShardId(3));
        }
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
        assert_eq!(place_of(1, &[]), None);
    }
}
