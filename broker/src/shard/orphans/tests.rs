use std::collections::BTreeSet;

use super::*;
use crate::{
    message::Qos,
    metrics::{Counters, Metric, Metrics},
    receipts::Need,
    routes::ShardId,
    session::Cause,
    shard::{Shared, testing::GROUP},
    shares::{Appetite, Presence},
    testing,
};

fn message() -> Arc<Message> {
    Arc::new(testing::message([], Qos::AtLeastOnce))
}

#[test]
fn what_a_member_leaves_behind_is_handed_on_some_each_turn() {
    const LEFT: usize = 2 * PLACED_PER_TURN + 1;
    let settings = format!("[limits]\nqueue_messages = {LEFT}\ninflight = 1");
    let shared = Shared::for_tests(&settings, 1);
    let counters = Arc::new(Counters::default());
    let metrics = Metrics::new(vec![Arc::clone(&counters)]);
    let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), counters);
    let now = Instant::now();
    let leaver = shard.join_for_tests("leaver", Qos::AtLeastOnce);
    for _ in 0..=LEFT {
        shard.publish(message(), None, &mut Needs::default(), now);
    }
    let _heir = shard.join_for_tests("heir", Qos::AtLeastOnce);
    let [leaver_key, heir_key] = ["leaver", "heir"].map(|id| shard.sessions.find(id).unwrap());
    let has = |shard: &mut Shard| {
        let session = &shard.sessions.get_mut(heir_key).unwrap().session;
        session.inflight_len() + session.queue_len()
    };
    shard.disconnect(leaver_key, &leaver, Cause::Broken, now);
    assert!(!shard.orphans.is_empty());
    assert_eq!(has(&mut shard), PLACED_PER_TURN);
    // Those that wait for their turn take as much room as before.
    assert_eq!(shared.stock.bytes(), LEFT * message().size());
    assert!(shard.place_orphans(now));
    assert_eq!(has(&mut shard), 2 * PLACED_PER_TURN);
    assert!(!shard.place_orphans(now));
    // The one in flight as well, as the session has ended.
    assert_eq!(has(&mut shard), LEFT + 1);
    assert!(shard.orphans.is_empty());
    assert_eq!(metrics.get(Metric::DroppedShared), 0);
}

#[test]
fn message_of_a_kept_member_stays_noted_until_its_next_one_has_it() {
    let shared = Shared::for_tests("", 2);
    let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), Arc::default());
    let now = Instant::now();
    let _parcels = shard.keep_for_tests();
    let journal = shard.account().unwrap().journal().clone();
    let is_done = |(_session, change): &(SessionId, Change)| matches!(change, Change::Done { .. });
    let dones = || {
        let changes = journal.take().unwrap_or_default();
        changes.into_iter().filter(is_done).count()
    };
    let link = shard.join_kept_for_tests("a", Qos::AtLeastOnce);
    let key = shard.sessions.find("a").unwrap();
    shard.disconnect(key, &link, Cause::Broken, now);
    let message = message();
    for _ in 0..2 {
        shard.publish(Arc::clone(&message), None, &mut Needs::default(), now);
    }
    // There is one on another shard when it leaves.
    let other = Presence::new(Appetite::Ready);
    let shares = &shared.shares;
    shares.join(GROUP, ShardId(1), 0, Qos::AtLeastOnce, &other);
    let left = BTreeSet::from([shard.leave_group(key, GROUP).unwrap()]);
    shard.hand_on(key, &left, now);
    assert_eq!(dones(), 0);
    let to = ShardId(1);
    for sequence in 0..3 {
        shard.handle_confirmation(Need::Frame { to, sequence });
    }
    assert_eq!(dones(), 2);
    assert!(shard.orphans.is_empty());
}

#[test]
fn rows_of_a_session_that_is_over_go_with_the_last_message_that_others_get_of_it() {
    let shared = Shared::for_tests("", 2);
    let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), Arc::default());
    let now = Instant::now();
    let _parcels = shard.keep_for_tests();
    let journal = shard.account().unwrap().journal().clone();
    let noted = || journal.take().unwrap_or_default();
    let link = shard.join_kept_for_tests("a", Qos::AtLeastOnce);
    let key = shard.sessions.find("a").unwrap();
    shard.disconnect(key, &link, Cause::Broken, now);
    for _ in 0..2 {
        shard.publish(message(), None, &mut Needs::default(), now);
    }
    let (session, _taken) = noted().pop().unwrap();
    let other = Presence::new(Appetite::Ready);
    let shares = &shared.shares;
    shares.join(GROUP, ShardId(1), 0, Qos::AtLeastOnce, &other);
    let entry = shard.sessions.get_mut(key).unwrap();
    let aftermath = entry.session.end(now);
    shard.settle(key, aftermath, Vec::new(), now);
    // The last word on its row is that there is an estate.
    let last_words = noted().into_iter().filter_map(|(_session, change)| {
        if let Change::State(state) = &change {
            return Some(Some(state.expiry));
        }
        matches!(change, Change::Ended(_)).then_some(None)
    });
    let states: Vec<_> = last_words.collect();
    assert_eq!(states, [None, Some(Duration::ZERO)]);
    let to = ShardId(1);
    shard.handle_confirmation(Need::Frame { to, sequence: 1 });
    let last = noted();
    assert_eq!(last.len(), 3);
    assert_eq!(last[2], (session, Change::Ended(Remains::default())));
    assert!(shard.orphans.estates.is_empty());
}

#[test]
fn what_waits_for_a_kept_member_stays_when_nobody_else_is_there() {
    let shared = Shared::for_tests("[limits]\ninflight = 1", 2);
    let mut shard = Shard::new(ShardId(0), Arc::clone(&shared), Arc::default());
    let now = Instant::now();
    let _parcels = shard.keep_for_tests();
    let journal = shard.account().unwrap().journal().clone();
    let link = shard.join_kept_for_tests("a", Qos::AtLeastOnce);
    let key = shard.sessions.find("a").unwrap();
    for _ in 0..3 {
        shard.publish(message(), None, &mut Needs::default(), now);
    }
    let other = Presence::new(Appetite::Away);
    let shares = &shared.shares;
    shares.join(GROUP, ShardId(1), 0, Qos::AtLeastOnce, &other);
    drop(journal.take());
    shard.disconnect(key, &link, Cause::Broken, now);
    let is_state = |(_session, change): &(SessionId, Change)| matches!(change, Change::State(_));
    assert!(journal.take().unwrap().iter().all(is_state));
    assert!(shard.orphans.is_empty());
    // Somebody is, the next time.
    other.set(Appetite::Busy);
    let link = shard.join_kept_for_tests("a", Qos::AtLeastOnce);
    shard.disconnect(key, &link, Cause::Broken, now);
    assert_eq!(shard.orphans.under_way.len(), 2);
}

#[test]
fn what_waits_for_a_member_stays_while_others_wait_for_their_turn_in_masses() {
    for are_many in [false, true] {
        let shared = Shared::for_tests("[limits]\ninflight = 1", 1);
        let mut shard = Shard::new(ShardId(0), shared, Arc::default());
        let now = Instant::now();
        let link = shard.join_kept_for_tests("a", Qos::AtLeastOnce);
        for _ in 0..3 {
            shard.publish(message(), None, &mut Needs::default(), now);
        }
        let _other = shard.join_kept_for_tests("b", Qos::AtLeastOnce);
        let [a, b] = ["a", "b"].map(|id| shard.sessions.find(id).unwrap());
        let message = message();
        let share = shard.shared.shares.find(GROUP).unwrap();
        let orphan = || Orphan {
            share,
            message: Arc::clone(&message),
            noted: None,
            place: None,
        };
        if are_many {
            let many = std::iter::repeat_with(orphan).take(MOST_WAITING);
            shard.orphans.waiting.extend(many);
        }
        shard.disconnect(a, &link, Cause::Broken, now);
        let waiting = |shard: &mut Shard, key| {
            let entry = shard.sessions.get_mut(key).unwrap();
            entry.session.queue_len()
        };
        let expected = if are_many { (2, 0) } else { (0, 1) };
        assert_eq!((waiting(&mut shard, a), waiting(&mut shard, b)), expected);
    }
}
