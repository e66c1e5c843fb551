//! Who gets what is for a group, here and on other nodes.

use super::*;
use crate::{
    lanes::{
        Confirmation, Level,
        frame::{HEADER, Writer},
    },
    metrics::Counters,
    receipts::Need,
    session::Wire,
    shard::{
        Shared,
        testing::{CLUSTER, GROUP},
    },
    shares::Room,
    testing,
};

#[test]
fn what_is_for_a_node_that_has_nobody_goes_on_to_others_and_not_for_ever() {
    let shared = Shared::for_tests(CLUSTER, 1);
    let counters = Arc::new(Counters::default());
    let metrics = crate::metrics::Metrics::new(vec![Arc::clone(&counters)]);
    let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), counters);
    let now = Instant::now();
    let message = message_of(0);
    let room = Room {
        open: 1,
        ..Room::default()
    };
    let (shares, node, third) = (&shared.shares, ShardId(1), ShardId(2));
    shares.set_room(GROUP, node, Some(room));
    let share = shares.find(GROUP).unwrap();
    for (hops, is_handed_on) in [(1, true), (2, true), (3, false)] {
        let seat = Seat {
            share,
            session: Seat::NOBODY,
            hops,
        };
        let mut needs = Needs::default();
        shard.deliver_to_seats(third, &[seat], &message, &mut needs, now);
        assert_eq!(needs.is_empty(), !is_handed_on, "{hops}");
        // Not until it is safe there.
        let receipt = shard.ledger.open(&needs);
        for need in needs.all() {
            let Need::Taken { to, sequence } = *need else {
                panic!("it waits for {need:?}");
            };
            assert_eq!(to, node);
            shard.handle_frame_confirmation(Confirmation {
                reader: to,
                sequence,
                level: Level::Taken,
            });
        }
        assert!(receipt.is_none_or(|receipt| receipt.is_complete()));
        shard.flush_lanes();
    }
    assert_eq!(metrics.get(Metric::DroppedShared), 1);
    // What a lost node was sent is for a member that is here by then.
    let (end, seat) = shares.choose(share, Qos::AtLeastOnce, 0).unwrap();
    assert_eq!(end, node);
    let mut writer = Writer::new(ShardId(0), 0);
    writer.push(&message, &[seat], now);
    let sent = writer.finish();
    let member = shard.join_for_tests("member", Qos::AtLeastOnce);
    let mut needs = Needs::default();
    shard.regroup(&sent[HEADER..], &mut needs, now);
    assert!(needs.is_empty() && member.output_len() > 0);
    shares.set_room(GROUP, node, None);
    assert_eq!(metrics.get(Metric::DroppedShared), 1);
}

#[test]
fn what_a_lost_node_was_to_be_the_last_to_get_may_still_go_to_another() {
    let shared = Shared::for_tests(CLUSTER, 1);
    let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), Arc::default());
    let now = Instant::now();
    let (shares, node) = (&shared.shares, ShardId(1));
    shares.set_room(GROUP, node, Some(ROOM));
    let seat = Seat {
        share: ShareId(shares.tag(shares.find(GROUP).unwrap()).unwrap()),
        session: Seat::NOBODY,
        hops: 3,
    };
    let mut writer = Writer::new(ShardId(0), 0);
    writer.push(&message_of(0), &[seat], now);
    let sent = writer.finish();
    let mut needs = Needs::default();
    shard.regroup(&sent[HEADER..], &mut needs, now);
    assert!(matches!(needs.all(), [Need::Frame { to, .. }] if *to == node));
}

#[test]
fn what_is_handed_on_goes_back_if_nobody_else_is_known_and_not_to_where_too_much_waits() {
    const BYTES: usize = 64 * 1024;
    let shared = Shared::for_tests(CLUSTER, 1);
    let counters = Arc::new(Counters::default());
    let metrics = crate::metrics::Metrics::new(vec![Arc::clone(&counters)]);
    let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), counters);
    let now = Instant::now();
    let (shares, node, third) = (&shared.shares, ShardId(1), ShardId(2));
    shares.set_room(GROUP, node, Some(ROOM));
    shares.set_room(GROUP, third, Some(ROOM));
    let share = shares.find(GROUP).unwrap();
    let mut deliver_on = |from, hops| {
        let seat = Seat {
            share,
            session: Seat::NOBODY,
            hops,
        };
        let mut needs = Needs::default();
        shard.deliver_to_seats(from, &[seat], &message_of(BYTES), &mut needs, now);
        (needs.is_empty(), shard.outbox.waiting(node))
    };
    for _ in 0..10 {
        assert_eq!(deliver_on(node, 2), (false, 0));
    }
    // Who was away there may take it; but it goes no further.
    shares.set_room(GROUP, third, None);
    let (is_dropped, waiting) = deliver_on(node, 2);
    assert!(!is_dropped && waiting > BYTES);
    assert_eq!(metrics.get(Metric::DroppedShared), 0);
    assert_eq!(deliver_on(node, 3), (true, waiting));
    assert_eq!(metrics.get(Metric::DroppedShared), 1);
    let mut deliver = |from| deliver_on(from, 2);
    for _ in 0..MOST_HANDED_ON / BYTES + 2 {
        deliver(third);
    }
    let (is_dropped, waiting) = deliver(third);
    assert!(is_dropped && waiting < MOST_HANDED_ON + 2 * BYTES);
    assert!(metrics.get(Metric::DroppedShared) > 1);
}

#[test]
fn what_a_member_here_leaves_waits_until_it_is_safe_elsewhere() {
    let shared = Shared::for_tests(CLUSTER, 1);
    let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), Arc::default());
    let now = Instant::now();
    let (shares, node) = (&shared.shares, ShardId(1));
    shares.set_room(GROUP, node, Some(ROOM));
    let share = shares.find(GROUP).unwrap();
    let message = message_of(0);
    let mut needs = Needs::default();
    shard.dispatch_left(&[share], &message, &mut needs, now);
    assert!(matches!(needs.all(), [Need::Frame { to, .. }] if *to == node));
    // By way of another shard, whose member is gone.
    let seat = Seat {
        share,
        session: 7,
        hops: LEFT,
    };
    let mut needs = Needs::default();
    shard.deliver_to_seats(ShardId(0), &[seat], &message, &mut needs, now);
    assert!(matches!(needs.all(), [Need::Frame { to, .. }] if *to == node));
}

const ROOM: Room = Room {
    open: 1,
    away: 0,
    is_slow: false,
};

fn message_of(bytes: usize) -> Arc<Message> {
    Arc::new(testing::message(vec![0; bytes], Qos::AtLeastOnce))
}

#[test]
fn message_that_one_member_has_no_room_for_goes_to_another() {
    let shared = Shared::for_tests("[limits]\nqueue_messages = 0", 1);
    let counters = Arc::new(Counters::default());
    let metrics = crate::metrics::Metrics::new(vec![Arc::clone(&counters)]);
    let mut shard = Shard::new(ShardId(0), shared, counters);
    let members = ["a", "b"].map(|client_id| shard.join_for_tests(client_id, Qos::AtMostOnce));
    let message = Arc::new(testing::message(vec![0; 512 * 1024], Qos::AtMostOnce));
    let publish = |shard: &mut Shard| {
        let needs = &mut Needs::default();
        shard.publish(Arc::clone(&message), None, needs, Instant::now())
    };
    for _ in &members {
        publish(&mut shard);
    }
    assert!(members.iter().all(|link| !(&&**link).has_room()));
    let [_unread, reader] = &members;
    // Whosever turn it is, the one that reads gets the next.
    for _ in 0..3 {
        drop(reader.take_output());
        publish(&mut shard);
        assert!(reader.output_len() > message.payload.len());
    }
    assert_eq!(metrics.get(Metric::DroppedQueue), 0);
    assert_eq!(metrics.get(Metric::DroppedShared), 0);
    // With both full it is lost, and the group knows.
    publish(&mut shard);
    assert_eq!(metrics.get(Metric::DroppedShared), 1);
}
