//! When a peer is buried, and what waits for that.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    message::Qos,
    shares::{Room, Seat},
    topic::SharedFilter,
};

const GROUP: SharedFilter<'static> = SharedFilter {
    group: "g",
    filter: "t",
};

const END: ShardId = ShardId(2);

fn frame(sequence: u64) -> FrameId {
    let from = ShardId(0);
    FrameId { from, sequence }
}

fn begin(burial: &mut Burial, others: &[u16]) -> Instant {
    let now = Instant::now();
    let others = others.iter().copied().map(ShardId).collect();
    let patience = now + Duration::from_secs(6);
    burial.begin(7, Fate::Promoted, others, patience);
    now
}

#[test]
fn filters_of_a_lost_peer_stay_until_all_shards_have_its_sessions_and_all_others() {
    let shared = Shared::for_tests("", 3);
    let mut outbox = Outbox::new(END, 3, Arc::clone(&shared.lanes));
    let mut burial = Burial::default();
    let goes_there = || shared.routes.matching("t").contains(END);
    burial.change_route(Change::Added("t".into()), END, &shared);
    let now = begin(&mut burial, &[5, 6]);
    burial.tell(Word::Lost(Fate::Promoted), None, &mut outbox, 2);
    burial.change_route(Change::Removed("t".into()), END, &shared);
    burial.hear(ShardId(5));
    burial.confirm(ShardId(0), 1);
    burial.hear(ShardId(6));
    burial.finish(END, &mut outbox, &shared, now);
    assert!(goes_there() && burial.is_under_way());
    burial.confirm(ShardId(1), 1);
    burial.finish(END, &mut outbox, &shared, now);
    assert!(!goes_there() && !burial.is_under_way());
    burial.change_route(Change::Added("t".into()), END, &shared);
    burial.change_route(Change::Removed("t".into()), END, &shared);
    assert!(!goes_there());
    // Others are not waited for for ever.
    burial.change_route(Change::Added("t".into()), END, &shared);
    let now = begin(&mut burial, &[5]);
    burial.change_route(Change::Removed("t".into()), END, &shared);
    burial.tell(Word::Lost(Fate::Promoted), None, &mut outbox, 1);
    burial.confirm(ShardId(0), 1);
    burial.finish(END, &mut outbox, &shared, now);
    assert!(goes_there());
    burial.finish(END, &mut outbox, &shared, now + Duration::from_secs(7));
    assert!(!goes_there());
}

#[test]
fn grave_is_closed_when_all_shards_have_heard_and_before_all_is_safe() {
    let shared = Shared::for_tests("", 3);
    let mut outbox = Outbox::new(END, 3, Arc::clone(&shared.lanes));
    let mut burial = Burial::default();
    let now = begin(&mut burial, &[]);
    assert!(burial.is_under_way());
    burial.tell(Word::Lost(Fate::Promoted), None, &mut outbox, 2);
    burial.handle_taken(ShardId(0), 1);
    assert!(burial.is_under_way());
    burial.handle_taken(ShardId(1), 1);
    assert!(!burial.is_under_way());
    // Others hear of it when their copies could not be of more use.
    assert_eq!(burial.poll_buried(), None);
    burial.confirm(ShardId(0), 1);
    burial.confirm(ShardId(1), 1);
    burial.finish(END, &mut outbox, &shared, now);
    assert_eq!(burial.poll_buried(), Some(7));
}

#[test]
fn group_of_a_lost_peer_waits_for_new_members_until_it_is_buried() {
    let shared = Shared::for_tests("", 3);
    let mut outbox = Outbox::new(END, 3, Arc::clone(&shared.lanes));
    let mut burial = Burial::default();
    let room = Room {
        open: 1,
        ..Room::default()
    };
    let is_for_it = |qos| {
        let share = shared.shares.find(GROUP);
        let chosen = share.and_then(|share| shared.shares.choose(share, qos, 0));
        chosen.is_some_and(|(end, seat)| end == END && seat.session == Seat::NOBODY)
    };
    let name: Box<str> = GROUP.text().into();
    burial.change_route(Change::Group(name.clone(), room), END, &shared);
    assert!(is_for_it(Qos::AtMostOnce) && is_for_it(Qos::AtLeastOnce));
    let now = begin(&mut burial, &[5]);
    burial.tell(Word::Lost(Fate::Promoted), None, &mut outbox, 2);
    burial.change_route(Change::Removed(name), END, &shared);
    assert!(!is_for_it(Qos::AtMostOnce) && is_for_it(Qos::AtLeastOnce));
    // Of a peer that is lost twice, too.
    for _ in 0..2 {
        burial.park(frame(1), Bytes::from_static(b"messages"));
    }
    assert_eq!(burial.parked_bytes(), 8);
    burial.confirm(ShardId(0), 1);
    burial.confirm(ShardId(1), 1);
    burial.finish(END, &mut outbox, &shared, now);
    assert!(burial.awaited.is_empty() && is_for_it(Qos::AtLeastOnce));
    burial.hear(ShardId(5));
    burial.finish(END, &mut outbox, &shared, now);
    assert!(!is_for_it(Qos::AtLeastOnce));
    assert_eq!((burial.poll_done(), burial.parked_bytes()), (None, 0));
    // The shard that had sent it has found it a member.
    burial.confirm(ShardId(0), 1);
    assert_eq!(burial.poll_done(), Some((frame(1), Level::Safe)));
    assert!(burial.missing.is_empty());
}

#[test]
fn groups_of_a_lost_peer_find_members_no_faster_than_shards_take_them() {
    const BYTES: usize = 1024 * 1024;
    const FRAMES: u64 = 8;
    let shared = Shared::for_tests("", 3);
    let mut outbox = Outbox::new(END, 3, Arc::clone(&shared.lanes));
    let mut burial = Burial::default();
    for number in 0..FRAMES {
        burial.park(frame(number), Bytes::from(vec![0; BYTES]));
    }
    assert!(burial.finish(END, &mut outbox, &shared, Instant::now()));
    assert!(outbox.is_congested());
    let left = burial.parked_bytes();
    assert!(left > 0 && left < 7 * BYTES, "{left}");
    // Nothing more has room.
    burial.finish(END, &mut outbox, &shared, Instant::now());
    assert_eq!(burial.parked_bytes(), left);
}

#[test]
fn filter_that_the_peer_has_again_is_not_removed() {
    let shared = Shared::for_tests("", 2);
    let mut outbox = Outbox::new(END, 2, Arc::clone(&shared.lanes));
    let mut burial = Burial::default();
    burial.change_route(Change::Added("t".into()), END, &shared);
    let now = begin(&mut burial, &[]);
    burial.change_route(Change::Removed("t".into()), END, &shared);
    burial.change_route(Change::Added("t".into()), END, &shared);
    burial.tell(Word::Lost(Fate::Promoted), None, &mut outbox, 1);
    burial.confirm(ShardId(0), 1);
    burial.finish(END, &mut outbox, &shared, now);
    assert!(shared.routes.matching("t").contains(END));
}

#[test]
fn what_is_for_the_place_of_a_lost_peer_is_for_whoever_is_there_by_now_too() {
    let shared = Shared::for_tests("", 2);
    let mut outbox = Outbox::new(END, 2, Arc::clone(&shared.lanes));
    let mut burial = Burial::default();
    let now = begin(&mut burial, &[5]);
    burial.tell(Word::Lost(Fate::Promoted), None, &mut outbox, 1);
    burial.confirm(ShardId(0), 1);
    assert!(burial.has_heirs(now));
    let word = Word::Orphans {
        of: END,
        messages: b"messages",
    };
    // Whoever is the last.
    for (number, is_peer_last, level) in [
        (1, true, Level::Safe),
        (2, false, Level::Safe),
        (3, true, Level::Passed),
        (4, false, Level::Passed),
    ] {
        burial.share(frame(number));
        burial.hold(frame(number));
        burial.tell(word, Some(frame(number)), &mut outbox, 1);
        for is_peer in [!is_peer_last, is_peer_last] {
            assert_eq!(burial.poll_done(), None);
            if is_peer {
                assert!(burial.handle_shared(frame(number), level));
            } else {
                burial.confirm(ShardId(0), 1);
            }
        }
        // A copy that it is told of is not there before it was taken.
        assert_eq!(burial.poll_done(), Some((frame(number), level)));
        assert!(!burial.handle_shared(frame(number), Level::Safe));
    }
    assert!(burial.passed.is_empty());
    assert!(!burial.has_heirs(now + Duration::from_secs(7)));
}

#[test]
fn who_has_its_sessions_still_has_no_heirs() {
    let shared = Shared::for_tests("", 2);
    let mut outbox = Outbox::new(END, 2, Arc::clone(&shared.lanes));
    let mut burial = Burial::default();
    let now = Instant::now();
    let patience = Duration::from_secs(6);
    let lose = |burial: &mut Burial, fate, now| {
        burial.begin(7, fate, BTreeSet::new(), now + patience);
    };
    lose(&mut burial, Fate::Dropped, now);
    burial.note_loss();
    assert!(!burial.has_heirs(now));
    // What others had of an earlier loss they have all the same.
    lose(&mut burial, Fate::Promoted, now);
    lose(&mut burial, Fate::Dropped, now);
    let late = now + patience;
    assert!(burial.has_heirs(now) && burial.has_heirs(late));
    for _ in 1..=4 {
        burial.tell(Word::Lost(Fate::Dropped), None, &mut outbox, 1);
        burial.confirm(ShardId(0), 1);
    }
    assert!(burial.has_heirs(now) && !burial.has_heirs(late));
    burial.finish(END, &mut outbox, &shared, late);
    lose(&mut burial, Fate::Dropped, late);
    assert!(!burial.has_heirs(late));
}

#[test]
fn frame_is_done_when_all_shards_and_other_nodes_have_its_messages() {
    let shared = Shared::for_tests("", 2);
    let mut outbox = Outbox::new(END, 2, Arc::clone(&shared.lanes));
    let mut burial = Burial::default();
    for number in 1..=2 {
        let word = Word::Orphans {
            of: END,
            messages: b"messages",
        };
        burial.hold(frame(number));
        if number == 1 {
            assert_eq!(burial.expect(frame(1), ShardId(5)), 1);
            burial.confirm(ShardId(5), 1);
            assert_eq!(burial.poll_done(), None);
        }
        burial.tell(word, Some(frame(number)), &mut outbox, 2);
    }
    burial.confirm(ShardId(0), 1);
    assert_eq!(burial.poll_done(), None);
    burial.confirm(ShardId(1), 1);
    let done = std::iter::from_fn(|| burial.poll_done());
    let mut done: Vec<_> = done.map(|(frame, _level)| frame).collect();
    done.sort();
    assert_eq!(done, [frame(1), frame(2)]);
    assert!(burial.awaited.is_empty() && burial.missing.is_empty());
}
