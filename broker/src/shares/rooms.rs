//! How much the members of a group can take on each node, and which node gets the next message.
//!
//! Nodes tell each other a few numbers of each group, and not who its members are: a message goes to
//! a node, and that knows best whom it is for. The numbers are some tenths of a second old, so they
//! are coarse: they say how many members there are, and a queue that comes and goes is not told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Appetite;
use crate::{
    message::Qos,
    routes::{ShardId, ShardSet},
};

/// From how many nodes to others a message may go. With numbers that are out of date it could
/// otherwise go round.
const MOST_HOPS: u8 = 3;

/// From how many nodes to others a message of another node has come at least.
pub const HANDED_ON: u8 = 1;

/// Beside that number: a member here has left the message behind, and others of this node come first.
pub const LEFT: u8 = 0x80;

/// How much more a member counts on a node where somebody has no queue. Who is slow for good gets a full
/// queue, and then nothing: more than that would make nodes unequal that all have much to do.
const BRISK: u64 = 2;

/// How much the members of one node can take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Members that are connected and take messages.
    pub open: u32,
    /// Members that are not connected, and messages wait for them.
    pub away: u32,
    /// Each of those that are connected has had a queue for a while.
    pub is_slow: bool,
}

/// Nodes that a message is not to go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Avoided {
    /// Where it has come from. It may go back if nobody else is known: who is away may be there.
    pub from: Option<ShardId>,
    /// Where too much waits.
    pub full: ShardSet,
}

/// Which members are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Open,
    Away,
    Either,
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// From how many nodes to others it has come.
    pub(super) hops: u8,
    /// Own members come first, even if it is published here.
    pub(super) prefers_own: bool,
    /// Nodes that it is not to go to.
    pub(super) avoided: ShardSet,
}

/// Whose members get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Own,
    Node(ShardId),
}

impl Room {
    /// Looks at which nobody was without a queue, before the node is said to be slow: under load queues
    /// come and go, and all nodes have the same.
    pub(super) const PATIENCE: u8 = 10;

    pub(super) fn add(&mut self, class: Option<Class>) {
        if let Some(count) = self.count(class) {
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn remove(&mut self, class: Option<Class>) {
        if let Some(count) = self.count(class) {
            *count = count.saturating_sub(1);
        }
    }

    fn count(&mut self, class: Option<Class>) -> Option<&mut u32> {
        Some(match class? {
            Class::Open => &mut self.open,
            Class::Away => &mut self.away,
            // Nobody is counted as that.
            Class::Either => return None,
        })
    }

    /// What is left of it when its node is lost: it comes last, for who has its sessions then.
    #[must_use]
    pub(super) fn lost(self) -> Self {
        Self {
            open: 0,
            away: self.open.saturating_add(self.away),
            is_slow: false,
        }
    }

    pub(super) fn forget(&mut self, class: Class) {
        match class {
            Class::Open => self.open = 0,
            Class::Away => self.away = 0,
            Class::Either => (self.open, self.away) = (0, 0),
        }
    }

    /// Whether others may go by what they were told: in a large group somebody comes and goes all the
    /// time.
    pub(crate) fn is_near(self, told: Self) -> bool {
        let is_near = |count: u32, told: u32| {
            (count == 0) == (told == 0) && count.abs_diff(told) <= told / 16
        };
        self.is_slow == told.is_slow
            && is_near(self.open, told.open)
            && is_near(self.away, told.away)
    }

    fn weight(self, class: Class) -> u64 {
        match class {
            Class::Open if self.is_slow => u64::from(self.open),
            Class::Open => BRISK * u64::from(self.open),
            Class::Away => u64::from(self.away),
            Class::Either => self.weight(Class::Open) + self.weight(Class::Away),
        }
    }
}

impl Avoided {
    pub(super) fn all(self) -> ShardSet {
        let mut all = self.full;
        if let Some(from) = self.from {
            all.insert(from);
        }
        all
    }
}

impl Way {
    /// The classes that are looked for, one after another.
    pub(super) fn classes(self, qos: Qos) -> &'static [Class] {
        if qos == Qos::AtMostOnce {
            // It waits for nobody.
            &[Class::Open]
        } else if self.hops + 1 == MOST_HOPS {
            // Where it goes it ends. Who was open a moment ago may be full, and who is away is not.
            &[Class::Either]
        } else {
            &[Class::Open, Class::Away]
        }
    }
}

impl Class {
    /// `None` of who takes nothing.
    pub(super) fn of(appetite: Appetite) -> Option<Self> {
        match appetite {
            Appetite::Ready | Appetite::Busy => Some(Self::Open),
            Appetite::Away => Some(Self::Away),
            Appetite::Full => None,
        }
    }

    pub(super) fn admits(self, appetite: Appetite) -> bool {
        match self {
            Self::Open => appetite < Appetite::Away,
            Self::Away | Self::Either => appetite < Appetite::Full,
        }
    }
}

/// Which node gets the message of this turn: in a group of many members on many nodes, each member gets
/// as much as any other. `None` when nobody has members of this class.
pub(super) fn pick(
    own: Room,
    others: &BTreeMap<ShardId, Room>,
    class: Class,
    way: Way,
    turn: u64,
) -> Option<Side> {
    let own = own.weight(class);
    if own > 0 && (way.prefers_own || way.hops > 0) {
        return Some(Side::Own);
    }
    let may_go = |node: ShardId| way.hops < MOST_HOPS && !way.avoided.contains(node);
    let others = others.iter().filter(|(node, _room)| may_go(**node));
    let others = others.map(|(node, room)| (*node, room.weight(class)));
    let whole = own + others.clone().map(|(_node, weight)| weight).sum::<u64>();
    if whole == 0 {
        return None;
    }
    let mut place = spread(turn, whole);
    if place < own {
        return Some(Side::Own);
    }
    place -= own;
    for (node, weight) in others {
        if place < weight {
            return Some(Side::Node(node));
        }
        place -= weight;
    }
    None
}

/// A place below `whole` for each turn. Turns are spread as evenly as they can be, however many there
/// were: they go round a circle in steps of the golden ratio.
fn spread(turn: u64, whole: u64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let point = turn.wrapping_mul(STEP);
    let place = (u128::from(point) * u128::from(whole)) >> 64;
    // Below `whole`, as the point is below 2^64.
    u64::try_from(place).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const PUBLISHED: Way = Way {
        hops: 0,
        prefers_own: false,
        avoided: ShardSet::NONE,
    };

    fn open(open: u32) -> Room {
        Room {
            open,
            ..Room::default()
        }
    }

    fn nodes(rooms: &[Room]) -> BTreeMap<ShardId, Room> {
        (7..).map(ShardId).zip(rooms.iter().copied()).collect()
    }

    /// How many of so many messages each node gets, this one first.
    fn count(own: Room, others: &[Room], turns: u64) -> Vec<u64> {
        let others = nodes(others);
        let mut counts = vec![0; others.len() + 1];
        for turn in 0..turns {
            match pick(own, &others, Class::Open, PUBLISHED, turn) {
                Some(Side::Own) => counts[0] += 1,
                Some(Side::Node(ShardId(node))) => counts[usize::from(node) - 6] += 1,
                None => {}
            }
        }
        counts
    }

    #[test]
    fn who_has_a_queue_all_the_time_gets_less_than_others() {
        let slow = Room {
            is_slow: true,
            ..open(2)
        };
        let counts = count(open(2), &[slow], 1000);
        assert!(counts[0].abs_diff(667) < 20 && counts[0] + counts[1] == 1000);
        let counts = count(slow, &[slow], 1000);
        assert!(counts[0].abs_diff(500) < 20);
    }

    #[test]
    fn own_members_come_first_where_that_is_wanted_or_the_message_has_come_from_a_node() {
        let others = nodes(&[open(9)]);
        let local = Way {
            prefers_own: true,
            ..PUBLISHED
        };
        let handed_on = Way {
            hops: 1,
            ..PUBLISHED
        };
        for way in [local, handed_on] {
            for turn in 0..100 {
                let pick = |own| pick(own, &others, Class::Open, way, turn);
                assert_eq!(pick(open(1)), Some(Side::Own));
                assert_eq!(pick(open(0)), Some(Side::Node(ShardId(7))));
            }
        }
    }

    #[test]
    fn message_that_has_come_far_goes_no_further() {
        let others = nodes(&[open(9)]);
        let far = Way {
            hops: MOST_HOPS,
            ..PUBLISHED
        };
        assert_eq!(pick(open(0), &others, Class::Open, far, 0), None);
        assert_eq!(pick(open(1), &others, Class::Open, far, 0), Some(Side::Own));
    }

    #[test]
    fn where_a_message_ends_who_is_away_is_as_good_as_who_was_there() {
        let away = Room {
            away: 9,
            ..Room::default()
        };
        let others = nodes(&[open(9), away]);
        let goes_to = |hops, avoided| {
            let way = Way {
                hops,
                avoided,
                ..PUBLISHED
            };
            let picked = (0..100).filter_map(|turn| {
                let mut classes = way.classes(Qos::AtLeastOnce).iter();
                classes.find_map(|class| pick(open(0), &others, *class, way, turn))
            });
            let picked: Vec<_> = picked.collect();
            [7, 8].map(|node| picked.contains(&Side::Node(ShardId(node))))
        };
        assert_eq!(goes_to(1, ShardSet::NONE), [true, false]);
        assert_eq!(goes_to(MOST_HOPS - 1, ShardSet::NONE), [true, true]);
        // Where it has come from, it need not go.
        let mut first = ShardSet::NONE;
        first.insert(ShardId(7));
        assert_eq!(goes_to(1, first), [false, true]);
    }

    #[test]
    fn members_of_a_lost_node_are_as_good_as_away() {
        let lost = Room { away: 2, ..open(3) }.lost();
        let others = nodes(&[lost]);
        let pick = |class| pick(open(0), &others, class, PUBLISHED, 0);
        assert_eq!(pick(Class::Open), None);
        assert_eq!(pick(Class::Away), Some(Side::Node(ShardId(7))));
    }

    #[test]
    fn small_change_of_a_large_group_need_not_be_told() {
        for (count, told, is_near) in [
            (1, 1, true),
            (2, 1, false),
            (0, 1, false),
            (1, 0, false),
            (0, 40, false),
            (104, 100, true),
            (110, 100, false),
        ] {
            assert_eq!(open(count).is_near(open(told)), is_near, "{count} {told}");
        }
        let slow = Room {
            is_slow: true,
            ..open(1)
        };
        assert!(!slow.is_near(open(1)));
    }

    proptest! {
        #[test]
        fn message_is_handed_on_a_few_times_whatever_nodes_believe_of_each_other(
            beliefs in vec(vec(0_u32..3, 4), 4),
            turn in any::<u64>(),
        ) {
            // Nobody has a member.
            let (mut at, mut hops) = (0, 0);
            loop {
                let believed = (0..).map(ShardId).zip(beliefs[at].iter().copied().map(open));
                let believed = believed.filter(|(node, _room)| usize::from(node.0) != at);
                let way = Way { hops, ..PUBLISHED };
                let side = pick(open(0), &believed.collect(), Class::Open, way, turn);
                let Some(Side::Node(next)) = side else {
                    prop_assert_eq!(side, None);
                    break;
                };
                at = usize::from(next.0);
                hops += 1;
                prop_assert!(hops <= MOST_HOPS);
            }
        }

        #[test]
        fn each_member_gets_as_much_as_any_other(
            own in 0_u32..50,
            others in vec(0_u32..50, 1..15),
            turns in 1_u64..5000,
        ) {
            let rooms: Vec<_> = others.iter().copied().map(open).collect();
            let counts = count(open(own), &rooms, turns);
            let members: Vec<_> = std::iter::once(own).chain(others).map(u64::from).collect();
            let whole: u64 = members.iter().sum();
            prop_assert_eq!(counts.iter().sum::<u64>(), if whole == 0 { 0 } else { turns });
            for (count, members) in counts.into_iter().zip(members) {
                let even = (turns * members).checked_div(whole).unwrap_or(0);
                prop_assert!(count.abs_diff(even) <= 32);
            }
        }
    }
}
