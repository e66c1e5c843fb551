//! What a session notes of itself is all that is needed to make it again.

use std::{
    collections::BTreeMap,
    task::{Context, Waker},
};

use proptest::{collection::vec, prelude::*};

use super::{
    super::journal::{
        Change, Journal, Origin, Profile, Progress, Remains, Seq, SessionId, Since, Spread, State,
    },
    *,
};
use crate::replica::{
    Shadow, Step as Told,
    wire::{Reader, Writer},
};

const ID: SessionId = SessionId(7);

fn profile() -> Profile {
    Profile {
        client_id: "c".into(),
        user: Some("u".into()),
        is_assigned: false,
        grants: None,
        since: Since::default(),
    }
}

fn roomy(messages: usize) -> Room {
    room(messages, usize::MAX / 2, usize::MAX / 2)
}

fn terms(expiry: Duration, will: Option<Will>) -> Terms {
    Terms {
        window: 3,
        receive: 9,
        expiry,
        will,
    }
}

type Content = Option<(Arc<Message>, Grant)>;

/// What the notes amount to, put together in the simplest way.
#[derive(Default)]
struct Book {
    state: Option<State>,
    subscriptions: BTreeMap<Box<str>, Subscription>,
    messages: BTreeMap<Seq, (Progress, Content)>,
    received: BTreeMap<PacketId, Spread>,
}

impl Book {
    fn read(&mut self, journal: &Journal) {
        for (session, change) in journal.take().unwrap_or_default() {
            assert_eq!(session, ID);
            self.note(change);
        }
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::State(state) => self.state = Some(state),
            Change::Subscribed(filter, subscription) => {
                self.subscriptions.insert(filter, subscription);
            }
            Change::Unsubscribed(filter) => drop(self.subscriptions.remove(&filter)),
            Change::Taken {
                seq,
                message,
                grant,
                progress,
            } => {
                let before = self
                    .messages
                    .insert(seq, (progress, Some((message, grant))));
                assert_eq!(before, None, "a seq is given once");
            }
            Change::Published {
                seq,
                message,
                grant,
                id,
            } => {
                let published = (Progress::Published(id), Some((message, grant)));
                assert!(self.messages.insert(seq, published).is_some());
            }
            Change::Released { seq, id, .. } => {
                let released = (Progress::Released(id), None);
                assert!(self.messages.insert(seq, released).is_some());
            }
            Change::Done { seq, message } => {
                let (_progress, content) = self.messages.remove(&seq).unwrap();
                assert_eq!(message, content.map(|(message, _grant)| message));
            }
            Change::Received(id, spread) => drop(self.received.insert(id, spread)),
            Change::Spread(..) => panic!("shards note that"),
            Change::Completed(id) => assert!(self.received.remove(&id).is_some()),
            Change::Ended(remains) => self.end(remains),
        }
    }

    fn end(&mut self, remains: Remains) {
        let Remains {
            filters,
            messages,
            received,
        } = remains;
        assert!(filters.iter().eq(self.subscriptions.keys()));
        assert!(received.iter().eq(self.received.keys()));
        for (seq, message) in messages {
            self.note(Change::Done { seq, message });
        }
        assert_eq!(self.messages.len(), 0);
        *self = Self::default();
    }

    fn restore(&self, journal: Journal, now: Instant) -> Session {
        let state = self.state.clone().unwrap();
        let restored = Restored {
            session: ID,
            profile: Profile::clone(&state.profile),
            expiry: state.expiry,
            ends: state.ends,
            will: state.will,
            will_due: state.will_due,
            subscriptions: self.subscriptions.clone().into_iter().collect(),
            received: self.received.clone().into_iter().collect(),
            messages: Vec::new(),
        };
        let mut session = Session::restore(roomy(100), journal, restored, now);
        for (seq, (progress, content)) in &self.messages {
            session.restore_message(RestoredMessage {
                seq: *seq,
                progress: *progress,
                content: content.clone(),
                group: None,
            });
        }
        session
    }
}

#[derive(Clone, Debug)]
enum Step {
    Deliver(u8),
    /// The client answers something that it was sent.
    Answer(usize),
    Fill(bool),
    Refuse(bool),
    Receive(u16),
    Complete(u16),
    Subscribe(u8),
    Unsubscribe(u8),
    Reconnect,
    Leave,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u8).prop_map(Step::Deliver),
        6 => any::<usize>().prop_map(Step::Answer),
        1 => any::<bool>().prop_map(Step::Fill),
        1 => any::<bool>().prop_map(Step::Refuse),
        1 => (1..4_u16).prop_map(Step::Receive),
        1 => (1..4_u16).prop_map(Step::Complete),
        1 => (0..3_u8).prop_map(Step::Subscribe),
        1 => (0..3_u8).prop_map(Step::Unsubscribe),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Leave),
    ]
}

/// A session and its client, step by step.
struct Life {
    session: Session,
    peer: Option<Peer>,
    now: Instant,
}

impl Life {
    fn take(&mut self, step: &Step) {
        let now = self.now;
        let filter = |number: u8| format!("f/{number}");
        match (step, &mut self.peer) {
            (Step::Deliver(qos), peer) => {
                let qos = Qos::from_bits(*qos).unwrap();
                let message = message('m', qos);
                self.session
                    .deliver(&message, grant(qos), peer.as_mut(), now);
            }
            (Step::Answer(which), Some(peer)) => {
                let Some(delivery) = pick(&peer.published, *which) else {
                    return;
                };
                let Some(id) = delivery.id else { return };
                let kind = match (delivery.qos, which % 2) {
                    (AtLeastOnce, _) => AckKind::PubAck,
                    (_, 0) => AckKind::PubRec,
                    (_, _) => AckKind::PubComp,
                };
                let reason = 0;
                self.session.handle_ack(Ack { kind, id, reason }, peer, now);
            }
            (Step::Fill(is_full), Some(peer)) => peer.is_full = *is_full,
            (Step::Refuse(takes_nothing), Some(peer)) => peer.takes_nothing = *takes_nothing,
            (Step::Receive(id), Some(_)) => {
                let _ = self.session.handle_publish(ExactlyOnce, PacketId::new(*id));
            }
            (Step::Complete(id), Some(peer)) => {
                let ack = ack(AckKind::PubRel, *id, 0);
                self.session.handle_ack(ack, peer, now);
            }
            (Step::Subscribe(number), _) => {
                let subscription = Subscription {
                    qos: ExactlyOnce,
                    no_local: false,
                    retain_as_published: false,
                    id: Some(u32::from(*number)),
                };
                self.session.subscribe(&filter(*number), subscription);
            }
            (Step::Unsubscribe(number), _) => drop(self.session.unsubscribe(&filter(*number))),
            (Step::Reconnect, _) => {
                self.session.detach(Cause::Broken, now);
                self.session.attach(terms(HOUR, None));
                let mut peer = Peer::default();
                self.session.pump(&mut peer, now);
                self.peer = Some(peer);
            }
            (Step::Leave, peer) => {
                if peer.take().is_some() {
                    self.session.detach(Cause::Goodbye, now);
                }
            }
            (_, None) => {}
        }
    }
}

fn pick(published: &[Delivery], which: usize) -> Option<&Delivery> {
    published.get(which.checked_rem(published.len())?)
}

/// All that a client with an endless window is sent when it comes back.
fn comeback(mut session: Session, now: Instant) -> (Vec<Delivery>, Vec<Ack>) {
    session.detach(Cause::Broken, now);
    session.attach(Terms {
        window: u16::MAX,
        ..terms(HOUR, None)
    });
    let mut peer = Peer::default();
    session.pump(&mut peer, now);
    // What was never sent has no identifier yet, and may get another.
    for delivery in peer.published.iter_mut().filter(|delivery| !delivery.dup) {
        delivery.id = None;
    }
    (peer.published, peer.acks)
}

/// Tells another node's shadow, as bytes.
fn tell(shadow: &mut Shadow, steps: impl IntoIterator<Item = Told>, now: Instant) {
    let mut writer = Writer::new(now);
    steps.into_iter().for_each(|step| writer.push(&step));
    for step in Reader::new(&writer.take(), now) {
        let (_whose, step) = step.unwrap();
        assert!(shadow.apply(step));
    }
}

proptest! {
    #[test]
    fn session_made_again_of_its_notes_sends_the_same(steps in vec(steps(), 0..60)) {
        let journal = Journal::default();
        let mut book = Book::default();
        let mut session = Session::new(roomy(100));
        session.keep(profile(), || (journal.clone(), ID));
        session.attach(terms(HOUR, None));
        let mut life = Life { session, peer: Some(Peer::default()), now: Instant::now() };
        for step in &steps {
            life.take(step);
        }
        book.read(&journal);
        let now = life.now;
        let restored = book.restore(Journal::default(), now);
        let filters = |session: &Session| -> Vec<_> {
            let all = session.subscriptions_after(None);
            all.map(|(filter, subscription)| (filter.to_owned(), *subscription)).collect()
        };
        prop_assert_eq!(filters(&restored), filters(&life.session));
        let received = |session: &Session| session.received.keys().copied().collect::<Vec<_>>();
        prop_assert_eq!(received(&restored), received(&life.session));
        prop_assert_eq!(comeback(restored, now), comeback(life.session, now));
        // The rest of its life ends well too.
        book.read(&journal);
    }

    #[test]
    fn session_that_another_node_was_told_of_is_the_same_there(
        steps in vec(steps(), 0..60),
        cut in 0..60_usize,
    ) {
        let journal = Journal::default();
        let mut session = Session::new(roomy(100));
        session.keep(profile(), || (journal.clone(), ID));
        session.attach(terms(HOUR, None));
        let mut life = Life { session, peer: Some(Peer::default()), now: Instant::now() };
        let mut shadow = Shadow::default();
        let cut = cut.min(steps.len());
        for step in &steps[..cut] {
            life.take(step);
        }
        // Whoever comes to it late is told all of it first.
        journal.take();
        tell(&mut shadow, Told::whole(life.session.snapshot().unwrap(), |_share| None), life.now);
        for step in &steps[cut..] {
            life.take(step);
        }
        let changes = journal.take().unwrap_or_default();
        let noted = changes.iter().filter_map(|(_session, change)| Told::of(change, |_| None));
        tell(&mut shadow, noted, life.now);
        let mut whole = Shadow::default();
        tell(&mut whole, Told::whole(life.session.snapshot().unwrap(), |_share| None), life.now);
        prop_assert_eq!(&shadow, &whole);
        let mut restored = shadow.into_restored(ID).unwrap();
        let messages = std::mem::take(&mut restored.messages);
        let mut there = Session::restore(roomy(100), Journal::default(), restored, life.now);
        messages.into_iter().for_each(|message| there.restore_message(message));
        prop_assert_eq!(comeback(there, life.now), comeback(life.session, life.now));
    }

    #[test]
    fn session_that_ends_names_all_that_was_noted(steps in vec(steps(), 0..60)) {
        let journal = Journal::default();
        let mut session = Session::new(roomy(100));
        session.keep(profile(), || (journal.clone(), ID));
        session.attach(terms(HOUR, None));
        let mut life = Life { session, peer: Some(Peer::default()), now: Instant::now() };
        for step in &steps {
            life.take(step);
        }
        let mut shadow = Shadow::default();
        tell(&mut shadow, Told::whole(life.session.snapshot().unwrap(), |_share| None), life.now);
        life.session.keep_no_longer();
        prop_assert!(life.session.snapshot().is_none());
        prop_assert!(!shadow.apply(Told::Ended));
        prop_assert_eq!(shadow, Shadow::default());
        let mut book = Book::default();
        book.read(&journal);
        prop_assert!(book.state.is_none());
        life.take(&Step::Deliver(1));
        prop_assert!(journal.take().is_none());
    }
}

#[test]
fn client_that_was_connected_has_lost_its_connection() {
    let journal = Journal::default();
    let now = Instant::now();
    let mut session = Session::new(roomy(1));
    session.keep(profile(), || (journal.clone(), ID));
    session.attach(terms(HOUR, will(60)));
    let mut book = Book::default();
    book.read(&journal);
    let later = now + HOUR;
    let mut restored = book.restore(journal.clone(), later);
    assert_eq!(restored.ends(), Some(later + HOUR));
    assert_eq!(
        restored.next_deadline(),
        Some(later + Duration::from_secs(60))
    );
    let aftermath = restored.handle_timeout(later + Duration::from_secs(60));
    assert!(aftermath.will.is_some() && !aftermath.ended);
    // The will is not published twice.
    book.read(&journal);
    let again = book.restore(journal, later);
    assert_eq!(again.next_deadline(), Some(later + HOUR));
}

#[test]
fn absent_session_ends_in_its_time_whatever_the_clock_was_at() {
    let journal = Journal::default();
    let now = Instant::now();
    let mut session = Session::new(roomy(1));
    session.keep(profile(), || (journal.clone(), ID));
    session.attach(terms(HOUR, will(60)));
    session.detach(Cause::Broken, now);
    let mut book = Book::default();
    book.read(&journal);
    // By a clock that stood at 1970, the end is far away.
    let state = book.state.as_mut().unwrap();
    for due in [&mut state.ends, &mut state.will_due] {
        *due.as_mut().unwrap() += HOUR * 24 * 365 * 50;
    }
    let restored = book.restore(journal.clone(), now);
    assert_eq!(restored.ends(), Some(now + HOUR));
    assert_eq!(
        restored.next_deadline(),
        Some(now + Duration::from_secs(60))
    );
}

#[test]
fn message_that_was_received_is_known_by_its_origin_when_its_session_is_kept_no_longer() {
    let journal = Journal::default();
    let now = Instant::now();
    let id = PacketId::MIN;
    let mut session = Session::new(roomy(1));
    session.keep(profile(), || (journal.clone(), ID));
    session.attach(terms(HOUR, None));
    assert!(session.handle_publish(ExactlyOnce, Some(id)).unwrap());
    let mut book = Book::default();
    book.read(&journal);
    let mut restored = book.restore(journal, now);
    restored.keep_no_longer();
    restored.attach(terms(Duration::ZERO, None));
    assert!(!restored.handle_publish(ExactlyOnce, Some(id)).unwrap());
    let origin = Origin { session: ID, id };
    let inherited = restored.inherited(Some(id)).unwrap();
    assert_eq!((inherited.origin, inherited.is_here), (origin, true));
}

#[test]
fn message_that_may_not_be_with_all_is_passed_on_anew_where_the_session_goes() {
    let journal = Journal::default();
    let now = Instant::now();
    let id = PacketId::MIN;
    let mut session = Session::new(roomy(1));
    session.keep(profile(), || (journal.clone(), ID));
    session.attach(terms(HOUR, None));
    assert!(session.handle_publish(ExactlyOnce, Some(id)).unwrap());
    let mut book = Book::default();
    book.read(&journal);
    let mut restored = book.restore(journal.clone(), now);
    let received = |session: &Session| {
        let (portion, _next) = session.portion(profile(), &Place::Start, 1000);
        portion.received
    };
    assert_eq!(received(&restored), [(id, Spread::Unplaced)]);

    let other = PacketId::MAX;
    let number = SessionId(8);
    let mut moved = Session::new(roomy(1));
    moved.keep(profile(), || (Journal::default(), number));
    moved.take_over_received(id, Spread::Unplaced);
    moved.take_over_received(other, Spread::Done);
    moved.attach(terms(HOUR, None));
    for id in [id, other] {
        assert!(!moved.handle_publish(ExactlyOnce, Some(id)).unwrap());
    }
    let inherited = moved.inherited(Some(id)).unwrap();
    let origin = Origin {
        session: number,
        id,
    };
    assert_eq!((inherited.origin, inherited.is_here), (origin, false));
    assert_eq!(moved.inherited(Some(other)), None);

    // Once it was repeated here, everybody has it.
    restored.await_receipt(id, &None);
    assert_eq!(received(&restored), [(id, Spread::Done)]);
}

#[test]
fn kept_session_ends_neither_with_the_node_nor_its_delayed_will() {
    let journal = Journal::default();
    let now = Instant::now();
    for kept in [true, false] {
        let mut session = Session::new(roomy(1));
        if kept {
            session.keep(profile(), || (journal.clone(), ID));
        }
        session.attach(terms(HOUR, will(60)));
        assert_eq!(session.last_will(now), None);
        let aftermath = session.detach(Cause::Shutdown, now);
        assert_eq!((aftermath.ended, aftermath.will), (!kept, None));
        let due = kept.then_some(now + Duration::from_secs(60));
        assert_eq!(session.next_deadline().filter(|_| kept), due);
    }
}

#[test]
fn reader_hears_of_the_first_change() {
    let journal = Journal::default();
    let mut session = Session::new(roomy(1));
    session.keep(profile(), || (journal.clone(), ID));
    let context = Context::from_waker(Waker::noop());
    assert!(journal.poll_wanted(&context).is_pending());
    session.attach(terms(HOUR, None));
    assert!(journal.poll_wanted(&context).is_ready());
    assert!(journal.bytes() > 0);
    assert_eq!(journal.take().map(|changes| changes.len()), Some(1));
    assert_eq!((journal.bytes(), journal.take().is_none()), (0, true));
}
