//! Sessions that cannot go on at once, and messages that wait with them.

use super::*;
use crate::{
    cluster::word::Granted,
    lanes::frame,
    session::journal::{Change, Journal},
    shard::testing::CLUSTER,
    testing,
};

/// Another node, beside the one that the session comes from.
const OTHER: Fellow = Fellow {
    end: ShardId(2),
    life: 1,
};

/// The only shard of a node with two others.
fn lone() -> Shard {
    let mut shard = Shard::new(ShardId(0), Shared::for_tests(CLUSTER, 1), Arc::default());
    judge_by(&shard, OPEN, "");
    shard.clustered.fellows.extend([FELLOW, OTHER]);
    let claims = &mut shard.clustered.claims;
    claims.handle_fellows(vec![FELLOW], Instant::now());
    shard
}

fn message(number: u64) -> Arc<Message> {
    Arc::new(Message {
        id: MessageId { run: 1, number },
        ..testing::message([1], Qos::AtLeastOnce)
    })
}

fn grant() -> Grant {
    Grant {
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_ids: Vec::new(),
        share: None,
    }
}

fn forward(shard: &mut Shard, number: u64) {
    let mut bytes = frame::Writer::new(ShardId(0), 0);
    bytes.push(&message(number), &[], Instant::now());
    let word = Word::Forward {
        client_id: "c",
        time: TIME,
        grant: Granted {
            qos: 1,
            retain: false,
            subscription_ids: Vec::new(),
            group: None,
        },
        message: &bytes.finish()[frame::HEADER..],
    };
    hear(shard, &word);
}

fn queue(shard: &mut Shard) -> usize {
    let key = shard.sessions.find("c").unwrap();
    shard.sessions.get_mut(key).unwrap().session.queue_len()
}

#[test]
fn session_that_stops_coming_stays_where_it_is_and_its_client_is_not_let_in_without_it() {
    let now = Instant::now();
    let steps = steps(now);
    let mut shard = lone();
    let patience = shard.clustered.patience;
    let terms = Terms {
        user: Some("u".into()),
        clean_start: false,
        is_entitled: true,
        has_session: false,
        is_bereft: false,
    };
    let (ticket, mut verdict) = oneshot::channel();
    let claims = &mut shard.clustered.claims;
    claims.claim("c", TIME, terms, ticket, now);
    arrive(&mut shard, &piece(&steps[..1], now), false);
    shard.handle_transit_timeout(now + patience / 2);
    assert!(verdict.try_recv().is_err());
    assert!(shard.clustered.arrivals.contains_key("c"));
    shard.handle_transit_timeout(Instant::now() + patience);
    assert_eq!(verdict.try_recv(), Ok(Err(Refusal::Stuck)));
    assert!(shard.clustered.arrivals.is_empty());
    // What comes now is too late, and no session.
    arrive(&mut shard, &piece(&steps[1..], now), true);
    assert_eq!(shard.sessions.find("c"), None);
}

#[test]
fn what_is_forwarded_for_a_session_that_waits_for_another_to_leave_comes_with_it() {
    let now = Instant::now();
    let mut shard = lone();
    let key = open(&mut shard, Some("u"));
    shard.depart(key, OTHER, BEFORE, now);
    assert!(!shard.send_pieces(now));
    arrive(&mut shard, &piece(&steps(now), now), true);
    assert!(shard.clustered.arrivals.contains_key("c"));
    let stock = Arc::clone(&shard.shared.stock);
    let before = stock.bytes();
    forward(&mut shard, 7);
    assert!(stock.bytes() > before);
    // It counts for the node, and may find no room there.
    stock.set_bound(0);
    forward(&mut shard, 6);
    assert_eq!(stock.refused(), 1);
    stock.set_bound(usize::MAX);
    let (client_id, time) = ("c", BEFORE);
    let installed = Word::Installed { client_id, time };
    shard.handle_word(OTHER.end, &installed.encode(), &mut Needs::default(), now);
    assert!(shard.clustered.arrivals.is_empty());
    assert_eq!(queue(&mut shard), 2);
    assert_eq!(stock.bytes(), 2 * message(7).size());
    // And what is forwarded from then on.
    forward(&mut shard, 8);
    forward(&mut shard, 7);
    assert_eq!(queue(&mut shard), 3);
}

/// The numbers under which messages were noted, and those that are noted no longer.
fn noted(journal: &Journal) -> (Vec<u64>, Vec<u64>) {
    let (mut taken, mut done) = (Vec::new(), Vec::new());
    for (_session, change) in journal.take().unwrap_or_default() {
        if let Change::Taken { seq, .. } = change {
            taken.push(seq.0);
        } else if let Change::Done { seq, .. } = change {
            done.push(seq.0);
        }
    }
    (taken, done)
}

#[test]
fn message_that_comes_both_ways_is_noted_once_and_in_its_place() {
    let now = Instant::now();
    let mut shard = lone();
    let _parcels = shard.keep_for_tests();
    arrive(&mut shard, &piece(&steps(now), now), true);
    let key = shard.sessions.find("c").unwrap();
    let journal = shard.account().unwrap().journal().clone();
    drop(journal.take());
    let deliver = |shard: &mut Shard, number| {
        shard.deliver_settling(key, &message(number), grant(), now);
        let (taken, done) = noted(&journal);
        assert!(done.is_empty());
        taken[0]
    };
    let [second, third] = [2, 3].map(|number| deliver(&mut shard, number));
    forward(&mut shard, 1);
    let (first, done) = noted(&journal);
    assert!(first[0] < second && second < third && done.is_empty());
    forward(&mut shard, 2);
    let (again, done) = noted(&journal);
    assert!(first[0] < again[0] && again[0] < third);
    assert_eq!(done, [second]);
    shard.stop_holding(key, now);
    assert_eq!(noted(&journal), (Vec::new(), Vec::new()));
    assert_eq!(queue(&mut shard), 4);
    assert!(deliver(&mut shard, 4) > third);
}
