use std::time::Instant;

use super::*;
use crate::{
    codec::packet::PacketId,
    message::{MessageId, Qos},
    session::{Subscription, journal::Remains},
};

const ONE: SessionId = SessionId(1);
const TWO: SessionId = SessionId(2);

fn scribe() -> Scribe {
    Scribe::new(Arc::default(), BodyId(9))
}

fn message(payload: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: "t".into(),
        payload: payload.as_bytes().into(),
        properties: Box::default(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires: None,
        id: MessageId::NONE,
    })
}

fn taken(seq: u64, message: &Arc<Message>) -> Change {
    Change::Taken {
        seq: Seq(seq),
        message: Arc::clone(message),
        grant: Grant {
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_ids: Vec::new(),
            share: None,
        },
        progress: Progress::Waiting,
    }
}

fn done(seq: u64, message: &Arc<Message>) -> Change {
    Change::Done {
        seq: Seq(seq),
        message: Some(Arc::clone(message)),
    }
}

fn note(scribe: &mut Scribe, session: SessionId, change: Change) {
    scribe.note(session, change, Clock::at(Instant::now(), 0));
}

/// Which bodies the batch writes, and which it removes.
fn bodies(scribe: &Scribe) -> Vec<(u64, bool)> {
    let cells = scribe.batch().bodies.iter();
    cells.map(|(body, cell)| (body.0, cell.is_some())).collect()
}

#[test]
fn message_of_many_sessions_is_stored_once_and_goes_with_the_last() {
    let mut scribe = scribe();
    let message = message("x");
    note(&mut scribe, ONE, taken(1, &message));
    note(&mut scribe, TWO, taken(1, &message));
    assert_eq!(bodies(&scribe), [(10, true)]);
    assert_eq!(scribe.batch().entries.len(), 2);
    scribe.handle_written();
    note(&mut scribe, ONE, done(1, &message));
    assert_eq!(bodies(&scribe), []);
    note(&mut scribe, TWO, done(1, &message));
    assert_eq!(bodies(&scribe), [(10, false)]);
}

#[test]
fn what_comes_and_goes_between_two_writes_is_not_written() {
    let mut scribe = scribe();
    let message = message("x");
    note(&mut scribe, ONE, taken(1, &message));
    let id = PacketId::MIN;
    let published = Change::Published {
        seq: Seq(1),
        message: Arc::clone(&message),
        grant: Grant {
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_ids: Vec::new(),
            share: None,
        },
        id,
    };
    note(&mut scribe, ONE, published);
    note(&mut scribe, ONE, done(1, &message));
    assert!(scribe.batch().is_empty());
}

#[test]
fn what_a_failed_write_may_have_written_is_removed() {
    let mut scribe = scribe();
    let message = message("x");
    note(&mut scribe, ONE, taken(1, &message));
    scribe.handle_failure();
    note(&mut scribe, ONE, done(1, &message));
    assert_eq!(bodies(&scribe), [(10, false)]);
    assert_eq!(scribe.batch().entries.get(&(ONE, Seq(1))), Some(&None));
    scribe.handle_written();
    note(&mut scribe, ONE, taken(2, &message));
    note(&mut scribe, ONE, done(2, &message));
    assert!(scribe.batch().is_empty());
}

#[test]
fn client_that_has_a_message_needs_its_identifier_alone() {
    let mut scribe = scribe();
    let message = message("x");
    note(&mut scribe, ONE, taken(1, &message));
    scribe.handle_written();
    let released = Change::Released {
        seq: Seq(1),
        id: PacketId::MIN,
        message: Some(Arc::clone(&message)),
    };
    note(&mut scribe, ONE, released);
    assert_eq!(bodies(&scribe), [(10, false)]);
    let entry = scribe.batch().entries.get(&(ONE, Seq(1))).unwrap();
    let entry = record::decode_entry(entry.as_ref().unwrap()).unwrap();
    assert_eq!(entry.content, None);
}

#[test]
fn nothing_is_left_of_a_session_that_ended() {
    let mut scribe = scribe();
    let message = message("x");
    let subscription = Subscription {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };
    note(
        &mut scribe,
        ONE,
        Change::Subscribed("f".into(), subscription),
    );
    note(&mut scribe, ONE, taken(1, &message));
    note(
        &mut scribe,
        ONE,
        Change::Received(PacketId::MIN, Spread::Begun),
    );
    scribe.handle_written();
    let remains = Remains {
        filters: vec!["f".into()],
        messages: vec![(Seq(1), Some(message))],
        received: vec![PacketId::MIN],
    };
    note(&mut scribe, ONE, Change::Ended(remains));
    let Batch {
        sessions,
        subscriptions,
        entries,
        bodies,
        received,
        ..
    } = scribe.batch();
    assert_eq!(sessions.get(&ONE), Some(&None));
    assert_eq!(subscriptions.values().collect::<Vec<_>>(), [&None]);
    assert_eq!(entries.values().collect::<Vec<_>>(), [&None]);
    assert_eq!(bodies.values().collect::<Vec<_>>(), [&None]);
    assert_eq!(received.values().collect::<Vec<_>>(), [&None]);
}

#[test]
fn what_a_shard_says_of_a_message_that_is_over_is_not_stored() {
    let mut scribe = scribe();
    let id = PacketId::MIN;
    let taken = || Change::Spread(id, ShardId(1));
    let row = (ONE, id.get(), 1);
    note(&mut scribe, ONE, Change::Received(id, Spread::Begun));
    note(&mut scribe, ONE, taken());
    assert_eq!(scribe.batch().spread.get(&row), Some(&Some(Vec::new())));
    scribe.handle_written();
    let remains = Remains {
        received: vec![id],
        ..Remains::default()
    };
    note(&mut scribe, ONE, Change::Ended(remains));
    assert_eq!(scribe.batch().spread.get(&row), Some(&None));
    scribe.handle_written();
    note(&mut scribe, ONE, taken());
    assert!(scribe.batch().is_empty());
    for over in [Change::Completed(id), Change::Received(id, Spread::Done)] {
        note(&mut scribe, TWO, Change::Received(id, Spread::Begun));
        note(&mut scribe, TWO, over);
        note(&mut scribe, TWO, taken());
        assert!(scribe.batch().spread.is_empty());
    }
    assert!(scribe.spread.is_empty());
}
