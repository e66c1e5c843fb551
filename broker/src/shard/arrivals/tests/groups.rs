//! Sessions that are in groups: what comes for these is for others, if the session does not take it.

use super::*;
use crate::{
    cluster::word::Granted,
    lanes::frame,
    shard::testing::CLUSTER,
    shares::{Room, Seat, ShareId},
};

/// Another node, beside the one that the session comes from.
const OTHER: ShardId = ShardId(2);

/// The session, as a member of the group that a message of it waits for.
fn member_steps(now: Instant) -> Vec<Step> {
    let mut steps = steps(now);
    if let Some(Step::Taken(RestoredMessage { group, .. })) = steps.last_mut() {
        *group = Some((GROUP.group.into(), GROUP.filter.into()));
    }
    let subscription = Subscription {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };
    steps.push(Step::Subscribed(GROUP.text().into(), subscription));
    steps
}

fn message() -> Arc<Message> {
    Arc::new(testing::message([1], Qos::AtLeastOnce))
}

/// Hears what the older node forwards for the group; the result is what that needs.
fn forward(shard: &mut Shard, share: ShareId) -> Needs {
    let now = Instant::now();
    let mut bytes = frame::Writer::new(ShardId(0), 0);
    bytes.push(&message(), &[], now);
    let word = Word::Forward {
        client_id: "c",
        time: TIME,
        grant: Granted {
            qos: 1,
            retain: false,
            subscription_ids: Vec::new(),
            group: shard.shared.shares.tag(share),
        },
        message: &bytes.finish()[frame::HEADER..],
    };
    let mut needs = Needs::default();
    shard.handle_word(FELLOW.end, &word.encode(), &mut needs, now);
    needs
}

fn queued(shard: &mut Shard, key: SessionKey) -> usize {
    shard.sessions.get_mut(key).unwrap().session.queue_len()
}

#[test]
fn what_is_forwarded_for_a_group_goes_to_another_member_if_the_session_has_left_it() {
    let now = Instant::now();
    let mut shard = shard();
    let other = shard.join_for_tests("other", Qos::AtLeastOnce);
    arrive(&mut shard, &piece(&member_steps(now), now), true);
    let share = shard.shared.shares.find(GROUP).unwrap();
    let key = shard.sessions.find("c").unwrap();
    assert!(forward(&mut shard, share).is_empty());
    assert_eq!((queued(&mut shard, key), other.output_len()), (2, 0));
    assert_eq!(shard.leave_group(key, GROUP), Some(share));
    assert!(forward(&mut shard, share).is_empty());
    assert_eq!(queued(&mut shard, key), 2);
    assert!(other.output_len() > 0);
}

#[test]
fn what_is_forwarded_for_a_group_goes_to_another_member_if_the_session_has_ended() {
    let now = Instant::now();
    let mut shard = shard();
    arrive(&mut shard, &piece(&member_steps(now), now), true);
    let share = shard.shared.shares.find(GROUP).unwrap();
    let other = shard.join_for_tests("other", Qos::AtLeastOnce);
    let key = shard.sessions.find("c").unwrap();
    assert_eq!(shard.clustered.tellings.len(), 0);
    shard.forget(key, Vec::new(), now);
    // Until the older node hears of it, the session is a member there.
    assert_eq!(shard.clustered.tellings.len(), 1);
    let before = other.output_len();
    forward(&mut shard, share);
    assert!(other.output_len() > before);
}

#[test]
fn what_an_older_session_had_of_its_group_is_for_others_if_it_has_no_heir() {
    let now = Instant::now();
    let mut shard = shard();
    let other = shard.join_for_tests("other", Qos::AtLeastOnce);
    let share = shard.shared.shares.find(GROUP).unwrap();
    let key = open(&mut shard, Some("v"));
    arrive(&mut shard, &piece(&member_steps(now), now), true);
    let waited = other.output_len();
    assert!(waited > 0);
    forward(&mut shard, share);
    assert_eq!(other.output_len(), 2 * waited);
    assert_eq!(queued(&mut shard, key), 0);
}

#[test]
fn what_comes_back_from_where_a_session_has_gone_is_not_forwarded_to_it_once_more() {
    let now = Instant::now();
    let mut shard = Shard::new(ShardId(0), Shared::for_tests(CLUSTER, 1), Arc::default());
    shard.clustered.fellows.push(FELLOW);
    let link = shard.join_kept_for_tests("c", Qos::AtLeastOnce);
    let key = shard.sessions.find("c").unwrap();
    shard.disconnect(key, &link, Cause::Broken, now);
    shard.depart(key, FELLOW, TIME, now);
    while shard.send_pieces(now) {}
    let (client_id, time) = ("c", TIME);
    hear(&mut shard, &Word::Installed { client_id, time });
    assert!(shard.sessions.get_mut(key).unwrap().is_ghost());
    let shared = Arc::clone(&shard.shared);
    let share = shared.shares.find(GROUP).unwrap();
    let deliver = |shard: &mut Shard, hops| {
        let seat = Seat {
            share,
            session: key.number(),
            hops,
        };
        let mut needs = Needs::default();
        shard.deliver_to_seats(FELLOW.end, &[seat], &message(), &mut needs, now);
        let to = needs.all().iter().map(|need| match need {
            Need::Frame { to, .. } | Need::Taken { to, .. } => *to,
            Need::Parcel(_) => panic!("it waits for {need:?}"),
        });
        shard.flush_lanes();
        to.collect::<Vec<_>>()
    };
    let room = Room {
        away: 1,
        ..Room::default()
    };
    shared.shares.set_room(GROUP, OTHER, Some(room));
    // The first time it is.
    assert_eq!(deliver(&mut shard, 1), [FELLOW.end]);
    // It is the only one here, and others may have somebody.
    assert_eq!(deliver(&mut shard, 2), [OTHER]);
    let other = shard.join_for_tests("other", Qos::AtLeastOnce);
    assert_eq!(deliver(&mut shard, 3), []);
    assert!(other.output_len() > 0);
}

#[test]
fn what_is_forwarded_for_a_group_goes_back_only_if_nobody_else_may_take_it() {
    let mut shard = Shard::new(ShardId(0), Shared::for_tests(CLUSTER, 1), Arc::default());
    shard.clustered.fellows.push(FELLOW);
    let away = Room {
        away: 1,
        ..Room::default()
    };
    let shared = Arc::clone(&shard.shared);
    // There the session is a member still, and was open a moment ago.
    let open = Room { open: 9, ..away };
    shared.shares.set_room(GROUP, FELLOW.end, Some(open));
    shared.shares.set_room(GROUP, OTHER, Some(away));
    let share = shared.shares.find(GROUP).unwrap();
    let goes_to = |shard: &mut Shard| match forward(shard, share).all() {
        [Need::Taken { to, .. }] => *to,
        needs => panic!("it waits for {needs:?}"),
    };
    for _ in 0..10 {
        assert_eq!(goes_to(&mut shard), OTHER);
        shard.flush_lanes();
    }
    shared.shares.set_room(GROUP, OTHER, None);
    assert_eq!(goes_to(&mut shard), FELLOW.end);
    shard.flush_lanes();
    // Who is here comes before all.
    let here = shard.join_for_tests("other", Qos::AtLeastOnce);
    assert!(forward(&mut shard, share).is_empty());
    assert!(here.output_len() > 0);
}

#[test]
fn what_is_forwarded_for_a_group_waits_for_the_node_that_it_is_handed_on_to() {
    let now = Instant::now();
    let mut shard = Shard::new(ShardId(0), Shared::for_tests(CLUSTER, 1), Arc::default());
    judge_by(&shard, OPEN, "");
    shard.clustered.fellows.push(FELLOW);
    arrive(&mut shard, &piece(&member_steps(now), now), true);
    let room = Room {
        open: 1,
        ..Room::default()
    };
    let shared = Arc::clone(&shard.shared);
    shared.shares.set_room(GROUP, OTHER, Some(room));
    let share = shared.shares.find(GROUP).unwrap();
    let key = shard.sessions.find("c").unwrap();
    assert_eq!(shard.leave_group(key, GROUP), Some(share));
    let needs = forward(&mut shard, share);
    let [need @ Need::Taken { to: OTHER, .. }] = needs.all() else {
        panic!("it waits for the other node, and for nothing else: {needs:?}");
    };
    let receipt = shard.ledger.open(&needs).unwrap();
    assert!(!receipt.is_complete());
    shard.handle_confirmation(*need);
    assert!(receipt.is_complete());
}
