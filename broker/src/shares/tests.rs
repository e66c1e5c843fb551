//! Members, and nodes with members, take turns.

use super::*;
use Appetite::{Away, Busy, Full, Ready};

const JOBS: SharedFilter<'static> = SharedFilter {
    group: "g",
    filter: "jobs/#",
};

/// A group whose members are the sessions 0, 1, … of alternating shards.
fn group(appetites: &[Appetite]) -> (Shares, ShareId, Vec<Arc<Presence>>) {
    let shares = Shares::default();
    let mut share = ShareId(0);
    let mut presences = Vec::new();
    for (session, appetite) in (0..).zip(appetites) {
        let presence = Presence::new(*appetite);
        let shard = ShardId(u16::try_from(session % 2).unwrap());
        share = shares.join(JOBS, shard, session, Qos::AtLeastOnce, &presence);
        presences.push(presence);
    }
    (shares, share, presences)
}

fn choose(shares: &Shares, share: ShareId, qos: Qos) -> Option<u32> {
    shares
        .choose(share, qos, 0)
        .map(|(_shard, seat)| seat.session)
}

fn turns(shares: &Shares, share: ShareId, count: usize) -> Vec<u32> {
    (0..count)
        .filter_map(|_turn| choose(shares, share, Qos::AtLeastOnce))
        .collect()
}

#[test]
fn members_take_turns_whatever_shard_they_are_on() {
    let (shares, share, _presences) = group(&[Ready; 3]);
    assert_eq!(turns(&shares, share, 7), [0, 1, 2, 0, 1, 2, 0]);
    let (shard, seat) = shares.choose(share, Qos::AtMostOnce, 0).unwrap();
    assert_eq!((shard, seat.session, seat.share), (ShardId(1), 1, share));
}

#[test]
fn those_that_can_take_more_go_first() {
    let (shares, share, presences) = group(&[Busy, Ready, Away, Full]);
    assert_eq!(turns(&shares, share, 4), [1; 4]);
    presences[1].set(Full);
    assert_eq!(turns(&shares, share, 4), [0; 4]);
    presences[0].set(Full);
    assert_eq!(turns(&shares, share, 4), [2; 4]);
    presences[2].set(Full);
    assert!(turns(&shares, share, 4).is_empty());
}

#[test]
fn large_group_is_not_looked_through_for_each_message_unless_it_must() {
    let mut appetites = vec![Busy; LOOKED_AT + 2];
    appetites.push(Ready);
    let (shares, share, presences) = group(&appetites);
    // The first look ends before the one that is ready, the third one reaches it.
    let ready = u32::try_from(LOOKED_AT + 2).unwrap();
    assert_eq!(turns(&shares, share, 4), [0, 1, 2, ready]);
    for presence in &presences[..LOOKED_AT + 2] {
        presence.set(Full);
    }
    assert_eq!(turns(&shares, share, 2), [ready; 2]);
}

#[test]
fn the_few_of_a_large_group_that_are_there_are_found_in_the_end() {
    let mut appetites = vec![Away; 3 * MOST_LOOKED_AT];
    let place = 2 * MOST_LOOKED_AT + 7;
    appetites[place] = Ready;
    let (shares, share, presences) = group(&appetites);
    let next = || choose(&shares, share, Qos::AtMostOnce);
    let there = u32::try_from(place).ok();
    // Each look ends after some, and the next one goes on behind them.
    assert_eq!([next(), next()], [None, None]);
    for _ in 0..10 {
        assert_eq!(next(), there);
    }
    presences[place].set(Away);
    for _ in 0..10 {
        assert_eq!(next(), None);
    }
}

#[test]
fn members_keep_their_places_when_others_leave() {
    let (shares, share, _presences) = group(&[Ready; 4]);
    for session in [0, 2] {
        assert_eq!(shares.leave(JOBS, ShardId(0), session), Some(share));
        assert_eq!(shares.leave(JOBS, ShardId(0), session), None);
    }
    let mut left = turns(&shares, share, 2);
    left.sort_unstable();
    assert_eq!(left, [1, 3]);
    // A seat is taken once, also when its member has moved.
    let presence = Presence::new(Full);
    shares.join(JOBS, ShardId(1), 3, Qos::AtLeastOnce, &presence);
    assert_eq!(turns(&shares, share, 2), [1, 1]);
}

#[test]
fn others_are_there_if_they_are_connected_and_take_messages() {
    let (shares, share, presences) = group(&[Ready, Away, Full]);
    let seat = (ShardId(0), 0);
    assert!(!shares.has_others(share, seat));
    assert!(shares.has_others(share, (ShardId(1), 1)));
    presences[2].set(Busy);
    assert!(shares.has_others(share, seat));
    assert!(!shares.has_others(ShareId(9), seat));
}

#[test]
fn qos0_does_not_wait_for_absent_members() {
    let (shares, share, _presences) = group(&[Away]);
    assert_eq!(choose(&shares, share, Qos::AtMostOnce), None);
    assert_eq!(choose(&shares, share, Qos::ExactlyOnce), Some(0));
    let absent = Presence::new(Away);
    shares.join(JOBS, ShardId(0), 0, Qos::AtMostOnce, &absent);
    assert_eq!(choose(&shares, share, Qos::ExactlyOnce), None);
}

#[test]
fn groups_end_with_their_last_member() {
    let (shares, share, _presences) = group(&[Ready; 2]);
    assert_eq!(shares.matching("jobs/1"), [share]);
    assert!(shares.matching("job").is_empty());
    assert_eq!(shares.leave(JOBS, ShardId(0), 0), Some(share));
    // A seat of another shard is another one.
    assert_eq!(shares.leave(JOBS, ShardId(0), 1), None);
    assert_eq!(turns(&shares, share, 2), [1, 1]);
    assert_eq!(shares.leave(JOBS, ShardId(1), 1), Some(share));
    assert!(shares.matching("jobs/1").is_empty());
    assert_eq!(shares.choose(share, Qos::AtMostOnce, 0), None);
    assert_eq!(shares.leave(JOBS, ShardId(1), 1), None);
    let ready = Presence::new(Ready);
    let next = shares.join(JOBS, ShardId(0), 0, Qos::AtMostOnce, &ready);
    assert_ne!(next, share);
}

#[test]
fn groups_of_one_filter_get_a_copy_each() {
    let (shares, share, presences) = group(&[Ready]);
    let other = SharedFilter {
        group: "h",
        filter: "jobs/#",
    };
    let other = shares.join(other, ShardId(0), 0, Qos::AtMostOnce, &presences[0]);
    let mut matching = shares.matching("jobs/1");
    matching.sort();
    assert_eq!(matching, [share, other]);
}

const NODE: ShardId = ShardId(7);

fn open(open: u32) -> Option<Room> {
    Some(Room {
        open,
        ..Room::default()
    })
}

/// How many of so many messages are for members of this node.
fn own(shares: &Shares, share: ShareId, hops: u8, count: usize) -> usize {
    let chosen = (0..count).filter_map(|_turn| shares.choose(share, Qos::AtLeastOnce, hops));
    chosen.filter(|(shard, _seat)| *shard != NODE).count()
}

#[test]
fn members_of_other_nodes_get_as_much_as_those_of_this_one() {
    let (shares, share, _presences) = group(&[Ready, Busy, Ready]);
    shares.set_room(JOBS, NODE, open(9));
    let count = own(&shares, share, 0, 1000);
    assert!(count.abs_diff(250) < 20, "{count}");
    let chosen = (0..10).find_map(|_turn| {
        let chosen = shares.choose(share, Qos::AtMostOnce, 0);
        chosen.filter(|(end, _seat)| *end == NODE)
    });
    let (_end, seat) = chosen.unwrap();
    assert_eq!((seat.session, seat.hops), (Seat::NOBODY, 1));
    assert_eq!(shares.find_tagged(seat.share, "jobs/1"), Some(share));
    // What another group has of its tag is nothing of it.
    assert_eq!(shares.find_tagged(seat.share, "t"), None);
    shares.set_room(JOBS, NODE, None);
    assert_eq!(own(&shares, share, 0, 9), 9);
}

#[test]
fn members_that_are_there_come_before_absent_ones_wherever_they_are() {
    let (shares, share, presences) = group(&[Ready, Full]);
    shares.set_room(JOBS, NODE, open(1));
    assert!((1..1000).contains(&own(&shares, share, 0, 1000)));
    // The last look is out of date.
    presences[0].set(Away);
    assert_eq!(own(&shares, share, 0, 100), 0);
    // That of the other node may be as well: who has got a message keeps it.
    for hops in [1, 2] {
        assert_eq!(own(&shares, share, hops, 100), 100);
        assert!(shares.choose(share, Qos::AtMostOnce, hops).unwrap().0 == NODE);
    }
    let away = Room {
        away: 1,
        ..Room::default()
    };
    shares.set_room(JOBS, NODE, Some(away));
    assert_eq!(shares.look(&mut None).len(), 1);
    let count = own(&shares, share, 0, 1000);
    assert!(count.abs_diff(500) < 20, "{count}");
    assert_eq!(shares.choose(share, Qos::AtMostOnce, 0), None);
    // A message of another node's goes no further than it must.
    assert_eq!(own(&shares, share, 1, 100), 100);
    shares.leave(JOBS, ShardId(0), 0);
    assert_eq!(own(&shares, share, 1, 100), 0);
    assert_eq!(shares.choose(share, Qos::AtLeastOnce, 3), None);
}

#[test]
fn group_is_there_as_long_as_any_node_has_members_of_it() {
    let (shares, share, _presences) = group(&[Ready]);
    shares.set_room(JOBS, NODE, open(1));
    assert_eq!(shares.leave(JOBS, ShardId(0), 0), Some(share));
    assert_eq!(shares.leave(JOBS, ShardId(0), 0), None);
    assert_eq!(shares.matching("jobs/1"), [share]);
    assert_eq!(shares.room(JOBS), None);
    shares.lose_room(JOBS, NODE);
    assert_eq!(shares.choose(share, Qos::AtMostOnce, 0), None);
    assert_eq!(own(&shares, share, 0, 10), 0);
    shares.set_room(JOBS, NODE, None);
    assert!(shares.matching("jobs/1").is_empty());
    assert_eq!(shares.nodes(), Shares::default().nodes());
}

#[test]
fn groups_of_one_tag_are_told_apart_by_their_filters() {
    const TAG: u64 = 7;
    let shares = Shares::default();
    let open = |filter| {
        let name = Name::from(SharedFilter { group: "g", filter });
        shares.book.write().unwrap().open(name, TAG)
    };
    let (first, second) = (open("first"), open("second/+"));
    let find = |topic| shares.find_tagged(ShareId(TAG), topic);
    assert_eq!(find("first"), Some(first));
    assert_eq!(find("second/x"), Some(second));
    assert_eq!(find("third"), None);
    // The other one stays.
    let name = shares.book.read().unwrap().names[&first].clone();
    shares.book.write().unwrap().close_if_empty(first, &name);
    assert_eq!(find("first"), None);
    assert_eq!(find("second/x"), Some(second));
    let other = ShareId(TAG + 1);
    assert_eq!(shares.find_tagged(other, "second/x"), None);
}

#[test]
fn own_members_come_first_where_that_is_wanted() {
    let shares = Shares::new(true);
    let presence = Presence::new(Busy);
    let share = shares.join(JOBS, ShardId(0), 0, Qos::AtLeastOnce, &presence);
    shares.set_room(JOBS, NODE, open(9));
    assert_eq!(own(&shares, share, 0, 100), 100);
    presence.set(Full);
    assert_eq!(own(&shares, share, 0, 100), 0);
}

#[test]
fn look_sees_what_members_can_take_and_who_is_slow_for_long() {
    let (shares, _share, presences) = group(&[Ready, Busy, Away, Full]);
    let room = |open, away, is_slow| {
        Some(Room {
            open,
            away,
            is_slow,
        })
    };
    assert_eq!(shares.room(JOBS), room(2, 1, false));
    assert!(shares.look(&mut None).is_empty());
    presences[3].set(Busy);
    let jobs: (Box<str>, Box<str>) = ("g".into(), "jobs/#".into());
    assert_eq!(shares.look(&mut None), [jobs]);
    assert_eq!(shares.room(JOBS), room(3, 1, false));
    presences[0].set(Busy);
    let looks = (0..20).find(|_look| !shares.look(&mut None).is_empty());
    assert!(looks.is_some_and(|looks| looks > 5), "{looks:?}");
    assert_eq!(shares.room(JOBS), room(3, 1, true));
    presences[1].set(Ready);
    shares.look(&mut None);
    assert_eq!(shares.room(JOBS), room(3, 1, false));
}

#[test]
fn who_leaves_takes_along_what_it_was_counted_as() {
    let (shares, _share, presences) = group(&[Ready, Full]);
    presences[1].set(Ready);
    shares.leave(JOBS, ShardId(1), 1);
    assert_eq!(shares.room(JOBS), open(1));
    // Of two that change places, too.
    shares.join(JOBS, ShardId(1), 1, Qos::AtLeastOnce, &presences[1]);
    presences[0].set(Away);
    assert_eq!(shares.look(&mut None).len(), 1);
    presences[0].set(Ready);
    presences[1].set(Away);
    assert_eq!(shares.look(&mut None).len(), 1);
    shares.leave(JOBS, ShardId(1), 1);
    assert_eq!(shares.room(JOBS), open(1));
    // Nor is one that only takes another QoS counted twice.
    shares.join(JOBS, ShardId(0), 0, Qos::ExactlyOnce, &presences[0]);
    assert_eq!(shares.room(JOBS), open(1));
}

#[test]
fn member_that_joins_during_a_look_is_not_forgotten() {
    let (shares, _share, presences) = group(&[Ready]);
    presences[0].set(Away);
    let seen = shares.look_behind(&mut None);
    shares.join(JOBS, ShardId(1), 1, Qos::AtLeastOnce, &Presence::new(Ready));
    assert_eq!(shares.take_in(&seen).len(), 1);
    let room = Room {
        open: 1,
        away: 1,
        is_slow: false,
    };
    assert_eq!(shares.room(JOBS), Some(room));
}

#[test]
fn look_at_many_groups_goes_on_where_the_last_one_ended() {
    let shares = Shares::default();
    let presence = Presence::new(Ready);
    for number in 0..LOOK {
        let group = SharedFilter {
            group: &number.to_string(),
            filter: "t",
        };
        shares.join(group, ShardId(0), 0, Qos::AtLeastOnce, &presence);
    }
    presence.set(Away);
    let mut place = None;
    let first = shares.look(&mut place).len();
    assert!(place.is_some());
    assert_eq!(first + shares.look(&mut place).len(), LOOK);
    // There may be more behind the last one that there was time for.
    assert!(shares.look(&mut place).is_empty());
    assert_eq!(place, None);
}
