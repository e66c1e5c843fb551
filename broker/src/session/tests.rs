mod bytes;
mod ending;
mod kept;
mod moving;
mod shared;

use super::*;

/// A client that notes what it is sent.
#[derive(Default)]
struct Peer {
    published: Vec<Delivery>,
    acks: Vec<Ack>,
    is_full: bool,
    takes_nothing: bool,
}

impl Wire for Peer {
    fn has_room(&self) -> bool {
        !self.is_full
    }

    fn publish(&mut self, delivery: &Delivery, _now: Instant) -> bool {
        if !self.takes_nothing {
            self.published.push(delivery.clone());
        }
        !self.takes_nothing
    }

    fn ack(&mut self, ack: Ack) {
        self.acks.push(ack);
    }
}

impl Peer {
    fn payloads(&self) -> String {
        self.published
            .iter()
            .map(|delivery| char::from(delivery.message.payload[0]))
            .collect()
    }

    fn ids(&self) -> Vec<u16> {
        self.published
            .iter()
            .filter_map(|delivery| delivery.id)
            .map(PacketId::get)
            .collect()
    }
}

/// Room for so many messages and bytes of one client, and so many bytes of all.
fn room(messages: usize, bytes: usize, all: usize) -> Room {
    Room {
        messages,
        bytes,
        shelf: Shelf::new(Stock::new(all)),
    }
}

const HOUR: Duration = Duration::from_hours(1);

struct Scene {
    session: Session,
    now: Instant,
}

impl Scene {
    fn new(window: u16, queue: usize, expiry: Duration, will: Option<Will>) -> Self {
        Self::with_room(room(queue, usize::MAX, usize::MAX), window, expiry, will)
    }

    fn with_room(room: Room, window: u16, expiry: Duration, will: Option<Will>) -> Self {
        let mut session = Session::new(room);
        session.attach(Terms {
            window,
            receive: 2,
            expiry,
            will,
        });
        Self {
            session,
            now: Instant::now(),
        }
    }

    fn persistent(window: u16, queue: usize) -> Self {
        Self::new(window, queue, HOUR, None)
    }

    fn deliver(&mut self, payload: char, qos: Qos, peer: Option<&mut Peer>) -> Delivered {
        self.session
            .deliver(&message(payload, qos), grant(qos), peer, self.now)
    }

    fn ack(&mut self, kind: AckKind, id: u16, peer: &mut Peer) {
        let ack = Ack {
            kind,
            id: PacketId::new(id).unwrap(),
            reason: 0,
        };
        self.session.handle_ack(ack, peer, self.now);
    }

    fn reconnect(&mut self, window: u16) -> Peer {
        let mut peer = Peer::default();
        self.session.detach(Cause::Broken, self.now);
        self.session.attach(Terms {
            window,
            receive: 2,
            expiry: HOUR,
            will: None,
        });
        self.session.pump(&mut peer, self.now);
        peer
    }
}

fn message(payload: char, qos: Qos) -> Arc<Message> {
    Arc::new(Message {
        topic: "t".into(),
        payload: vec![payload as u8].into(),
        properties: Box::default(),
        qos,
        retain: false,
        expires: None,
        id: crate::message::MessageId::NONE,
    })
}

fn grant(qos: Qos) -> Grant {
    Grant {
        qos,
        retain: false,
        subscription_ids: Vec::new(),
        share: None,
    }
}

fn will(delay: u32) -> Option<Will> {
    Some(Will {
        message: message('w', AtMostOnce),
        expiry: None,
        delay,
    })
}

fn ack(kind: AckKind, id: u16, reason: u8) -> Ack {
    Ack {
        kind,
        id: PacketId::new(id).unwrap(),
        reason,
    }
}

use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};

#[test]
fn messages_beyond_the_window_wait_for_acknowledgements() {
    let mut scene = Scene::persistent(2, 10);
    let mut peer = Peer::default();
    for payload in 'a'..='d' {
        scene.deliver(payload, AtLeastOnce, Some(&mut peer));
    }
    assert_eq!(peer.payloads(), "ab");
    // Out of order, as clients may.
    scene.ack(AckKind::PubAck, 2, &mut peer);
    assert_eq!(peer.payloads(), "abc");
    scene.ack(AckKind::PubAck, 1, &mut peer);
    assert_eq!(peer.payloads(), "abcd");
    assert_eq!(peer.ids(), [1, 2, 3, 4]);
}

#[test]
fn qos0_passes_a_full_window_but_keeps_its_own_order() {
    let mut scene = Scene::persistent(1, 10);
    let mut peer = Peer::default();
    scene.deliver('a', AtLeastOnce, Some(&mut peer));
    scene.deliver('b', AtLeastOnce, Some(&mut peer));
    scene.deliver('c', AtMostOnce, Some(&mut peer));
    assert_eq!(peer.payloads(), "ac");
    peer.is_full = true;
    scene.deliver('d', AtMostOnce, Some(&mut peer));
    peer.is_full = false;
    assert_eq!(
        scene.deliver('e', AtMostOnce, Some(&mut peer)),
        Delivered::Queued
    );
    scene.ack(AckKind::PubAck, 1, &mut peer);
    assert_eq!(peer.payloads(), "acbde");
}

#[test]
fn queue_is_bounded_and_the_newest_is_dropped() {
    let mut scene = Scene::persistent(1, 2);
    let mut peer = Peer::default();
    let fates: Vec<_> = ('a'..='d')
        .map(|payload| scene.deliver(payload, AtLeastOnce, Some(&mut peer)))
        .collect();
    use Delivered::{Full, Queued, Sent};
    assert_eq!(fates, [Sent, Queued, Queued, Full]);
}

#[test]
fn absent_client_gets_what_was_queued_and_no_qos0() {
    let mut scene = Scene::persistent(10, 10);
    scene.session.detach(Cause::Broken, scene.now);
    assert_eq!(scene.deliver('a', AtMostOnce, None), Delivered::Skipped);
    assert_eq!(scene.deliver('b', AtLeastOnce, None), Delivered::Queued);
    assert_eq!(scene.deliver('c', ExactlyOnce, None), Delivered::Queued);
    let peer = scene.reconnect(10);
    assert_eq!(peer.payloads(), "bc");
    assert!(peer.published.iter().all(|delivery| !delivery.dup));
}

#[test]
fn unacknowledged_messages_are_sent_again_with_dup_and_their_ids() {
    let mut scene = Scene::persistent(10, 10);
    let mut peer = Peer::default();
    scene.deliver('a', AtLeastOnce, Some(&mut peer));
    scene.deliver('b', ExactlyOnce, Some(&mut peer));
    scene.deliver('c', ExactlyOnce, Some(&mut peer));
    scene.ack(AckKind::PubRec, 3, &mut peer);
    let peer = scene.reconnect(10);
    assert_eq!(peer.payloads(), "ab");
    assert_eq!(peer.ids(), [1, 2]);
    assert!(peer.published.iter().all(|delivery| delivery.dup));
    assert_eq!(peer.acks, [ack(AckKind::PubRel, 3, 0)]);
}

#[test]
fn messages_are_sent_again_within_window_and_room_and_before_new_ones() {
    let mut scene = Scene::persistent(10, 10);
    let mut peer = Peer::default();
    for payload in 'a'..='e' {
        scene.deliver(payload, AtLeastOnce, Some(&mut peer));
    }
    let mut peer = scene.reconnect(2);
    assert_eq!(peer.payloads(), "ab");
    assert_eq!(
        scene.deliver('f', AtLeastOnce, Some(&mut peer)),
        Delivered::Queued
    );
    // One that was received before the connection broke, and is not sent again.
    scene.ack(AckKind::PubAck, 4, &mut peer);
    assert_eq!(peer.payloads(), "ab");
    peer.is_full = true;
    scene.ack(AckKind::PubAck, 1, &mut peer);
    assert_eq!(peer.payloads(), "ab");
    peer.is_full = false;
    scene.session.pump(&mut peer, scene.now);
    assert_eq!(peer.payloads(), "abc");
    for id in [2, 3, 5, 6] {
        scene.ack(AckKind::PubAck, id, &mut peer);
    }
    assert_eq!(peer.payloads(), "abcef");
    assert_eq!(peer.ids(), [1, 2, 3, 5, 6]);
}

#[test]
fn qos2_to_the_client_runs_through_all_four_packets() {
    let mut scene = Scene::persistent(1, 10);
    let mut peer = Peer::default();
    scene.deliver('a', ExactlyOnce, Some(&mut peer));
    scene.deliver('b', ExactlyOnce, Some(&mut peer));
    scene.ack(AckKind::PubRec, 1, &mut peer);
    // The window is free only when the flight is over.
    assert_eq!(peer.payloads(), "a");
    scene.ack(AckKind::PubComp, 1, &mut peer);
    assert_eq!(peer.payloads(), "ab");
    assert_eq!(peer.acks, [ack(AckKind::PubRel, 1, 0)]);
}

#[test]
fn acknowledgements_of_the_wrong_kind_change_nothing() {
    let mut scene = Scene::persistent(1, 10);
    let mut peer = Peer::default();
    scene.deliver('a', ExactlyOnce, Some(&mut peer));
    scene.deliver('b', AtLeastOnce, Some(&mut peer));
    scene.ack(AckKind::PubAck, 1, &mut peer);
    scene.ack(AckKind::PubComp, 1, &mut peer);
    scene.ack(AckKind::PubAck, 7, &mut peer);
    assert_eq!(peer.payloads(), "a");
}

#[test]
fn refused_qos2_message_frees_its_place() {
    let mut scene = Scene::persistent(1, 10);
    let mut peer = Peer::default();
    scene.deliver('a', ExactlyOnce, Some(&mut peer));
    scene.deliver('b', ExactlyOnce, Some(&mut peer));
    let refusal = ack(AckKind::PubRec, 1, reason::FAILURE);
    scene.session.handle_ack(refusal, &mut peer, scene.now);
    assert_eq!(peer.payloads(), "ab");
    assert!(peer.acks.is_empty());
}

#[test]
fn pubrec_for_an_unknown_message_is_answered() {
    let mut scene = Scene::persistent(1, 10);
    let mut peer = Peer::default();
    scene.ack(AckKind::PubRec, 9, &mut peer);
    assert_eq!(
        peer.acks,
        [ack(AckKind::PubRel, 9, reason::PACKET_ID_NOT_FOUND)]
    );
}

#[test]
fn qos2_from_the_client_is_passed_on_once() {
    let mut scene = Scene::persistent(1, 10);
    let mut peer = Peer::default();
    let id = PacketId::new(5);
    assert_eq!(scene.session.handle_publish(ExactlyOnce, id), Ok(true));
    assert_eq!(scene.session.handle_publish(ExactlyOnce, id), Ok(false));
    scene.ack(AckKind::PubRel, 5, &mut peer);
    scene.ack(AckKind::PubRel, 5, &mut peer);
    assert_eq!(
        peer.acks,
        [
            ack(AckKind::PubComp, 5, 0),
            ack(AckKind::PubComp, 5, reason::PACKET_ID_NOT_FOUND)
        ]
    );
    assert_eq!(scene.session.handle_publish(ExactlyOnce, id), Ok(true));
}

#[test]
fn half_delivered_qos2_messages_are_bounded_and_outlive_the_connection() {
    let mut scene = Scene::persistent(1, 10);
    for id in 1..=2 {
        assert_eq!(
            scene.session.handle_publish(ExactlyOnce, PacketId::new(id)),
            Ok(true)
        );
    }
    scene.reconnect(1);
    assert_eq!(
        scene.session.handle_publish(ExactlyOnce, PacketId::new(2)),
        Ok(false)
    );
    // The quota is the connection's, not that of the one which created the session.
    scene.session.attach(Terms {
        window: 1,
        receive: 3,
        expiry: HOUR,
        will: None,
    });
    let mut publish = |id| scene.session.handle_publish(ExactlyOnce, PacketId::new(id));
    for id in 3..=5 {
        assert_eq!(publish(id), Ok(true));
    }
    assert_eq!(publish(6), Err(ReceiveMaximumExceeded));
}

#[test]
fn message_longer_than_the_client_takes_is_dropped_without_a_flight() {
    let mut scene = Scene::persistent(1, 10);
    let mut peer = Peer {
        takes_nothing: true,
        ..Peer::default()
    };
    assert_eq!(
        scene.deliver('a', AtLeastOnce, Some(&mut peer)),
        Delivered::TooLong
    );
    peer.takes_nothing = false;
    assert_eq!(
        scene.deliver('b', AtLeastOnce, Some(&mut peer)),
        Delivered::Sent
    );
}

#[test]
fn expired_messages_are_not_sent() {
    let mut scene = Scene::persistent(1, 10);
    scene.session.detach(Cause::Broken, scene.now);
    let mut fleeting = Message::clone(&message('a', AtLeastOnce));
    fleeting.expires = Some(scene.now + Duration::from_secs(5));
    let none: Option<&mut Peer> = None;
    scene
        .session
        .deliver(&Arc::new(fleeting), grant(AtLeastOnce), none, scene.now);
    scene.deliver('b', AtLeastOnce, None);
    scene.now += Duration::from_secs(5);
    assert_eq!(scene.reconnect(10).payloads(), "b");
}

#[test]
fn full_output_keeps_messages_in_the_queue_until_it_drains() {
    let mut scene = Scene::persistent(10, 10);
    let mut peer = Peer {
        is_full: true,
        ..Peer::default()
    };
    scene.deliver('a', AtMostOnce, Some(&mut peer));
    scene.deliver('b', AtLeastOnce, Some(&mut peer));
    assert_eq!(peer.payloads(), "");
    peer.is_full = false;
    scene.session.pump(&mut peer, scene.now);
    assert_eq!(peer.payloads(), "ab");
}

impl Scene {
    fn subscribe(&mut self, filter: &str) {
        let subscription = Subscription {
            qos: ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            id: None,
        };
        self.session.subscribe(filter, subscription);
        self.session.greet(filter);
    }

    /// Answers greetings with endless pages of two until the session wants no more.
    fn feed(&mut self, peer: &mut Peer) -> usize {
        let mut pages = 0;
        while self.session.next_greeting().is_some() {
            pages += 1;
            let page = vec![message('r', AtLeastOnce), message('r', AtLeastOnce)];
            let next = Some("more".into());
            self.session.handle_retained(page, next, peer, self.now);
        }
        pages
    }
}

#[test]
fn retained_messages_are_not_lost_to_the_queue_bound_and_have_one_of_their_own() {
    let mut scene = Scene::persistent(10, 0);
    let mut peer = Peer::default();
    scene.subscribe("a");
    scene.subscribe("b");
    assert_eq!(scene.feed(&mut peer), (10 + GREETING_BOUND).div_ceil(2));
    assert_eq!(peer.published.len(), 10);
    assert_eq!(scene.session.queue_len(), GREETING_BOUND);
    for id in 1..=2 {
        scene.ack(AckKind::PubAck, id, &mut peer);
    }
    assert_eq!(scene.feed(&mut peer), 1);
    let mut peer = scene.reconnect(100);
    assert!(peer.published.len() > GREETING_BOUND);
    scene.feed(&mut peer);
    assert_eq!(peer.published.len(), 100);
}

#[test]
fn greetings_go_on_where_they_were_and_end_with_their_subscription() {
    let mut scene = Scene::persistent(10, 10);
    let mut peer = Peer::default();
    scene.subscribe("a");
    scene.subscribe("b");
    let mut reply = |scene: &mut Scene, next: Option<&str>| {
        let page = vec![message('r', AtMostOnce)];
        let next = next.map(Into::into);
        scene
            .session
            .handle_retained(page, next, &mut peer, scene.now);
    };
    reply(&mut scene, Some("x"));
    let greeting = |filter, after| Some(Greeting { filter, after });
    assert_eq!(scene.session.next_greeting(), greeting("a", Some("x")));
    reply(&mut scene, None);
    assert_eq!(scene.session.next_greeting(), greeting("b", None));
    scene.session.unsubscribe("b");
    assert_eq!(scene.session.next_greeting(), None);
    assert_eq!(peer.payloads(), "rr");
}

#[test]
fn packet_ids_wrap_around_those_in_flight() {
    let mut scene = Scene::persistent(2, 10);
    let mut peer = Peer::default();
    scene.deliver('a', AtLeastOnce, Some(&mut peer));
    for id in 2..=u16::MAX {
        scene.deliver('b', AtLeastOnce, Some(&mut peer));
        scene.ack(AckKind::PubAck, id, &mut peer);
    }
    scene.deliver('c', AtLeastOnce, Some(&mut peer));
    assert_eq!(peer.ids().last(), Some(&2));
}
