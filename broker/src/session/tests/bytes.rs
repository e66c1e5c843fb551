//! Bounds in bytes.

use super::*;

fn long(payload: char, bytes: usize) -> Arc<Message> {
    let mut message = Message::clone(&message(payload, AtLeastOnce));
    message.payload = vec![payload as u8; bytes].into();
    Arc::new(message)
}

impl Scene {
    fn bounded(window: u16, bytes: usize, all: usize) -> Self {
        Self::with_room(room(100, bytes, all), window, HOUR, None)
    }

    fn deliver_long(&mut self, payload: char, bytes: usize, peer: Option<&mut Peer>) -> Delivered {
        let (message, grant) = (long(payload, bytes), grant(AtLeastOnce));
        self.session.deliver(&message, grant, peer, self.now)
    }
}

#[test]
fn queue_takes_no_more_than_its_bytes() {
    let mut scene = Scene::bounded(0, 1000, usize::MAX);
    assert_eq!(scene.deliver_long('a', 400, None), Delivered::Queued);
    assert_eq!(scene.deliver_long('b', 400, None), Delivered::Queued);
    assert!(scene.session.is_nearly_full());
    assert_eq!(scene.deliver_long('c', 400, None), Delivered::Full);
    assert_eq!(scene.deliver_long('d', 100, None), Delivered::Queued);
    assert_eq!(scene.session.queue_len(), 3);
}

#[test]
fn one_message_waits_however_long_it_is() {
    let mut scene = Scene::bounded(0, 1000, usize::MAX);
    assert_eq!(scene.deliver_long('a', 5000, None), Delivered::Queued);
    assert_eq!(scene.session.appetite(false), Appetite::Full);
    assert_eq!(scene.deliver_long('b', 0, None), Delivered::Full);
}

#[test]
fn unacknowledged_bytes_close_the_window() {
    let mut scene = Scene::bounded(100, 1000, usize::MAX);
    let mut peer = Peer::default();
    for payload in ['a', 'b', 'c', 'd'] {
        scene.deliver_long(payload, 600, Some(&mut peer));
    }
    // The second one closes it.
    assert_eq!(peer.payloads(), "ab");
    assert_eq!(scene.session.queue_len(), 1);
    scene.ack(AckKind::PubAck, 1, &mut peer);
    assert_eq!(peer.payloads(), "abc");
    scene.ack(AckKind::PubAck, 2, &mut peer);
    scene.ack(AckKind::PubAck, 3, &mut peer);
    for payload in ['e', 'f'] {
        scene.deliver_long(payload, 600, Some(&mut peer));
    }
    assert_eq!(peer.payloads(), "abcef");
}

#[test]
fn all_that_is_in_flight_is_sent_again_however_long() {
    let mut scene = Scene::bounded(100, 1000, usize::MAX);
    let mut peer = Peer::default();
    for payload in ['a', 'b', 'c'] {
        scene.deliver_long(payload, 600, Some(&mut peer));
    }
    scene.session.detach(Cause::Broken, scene.now);
    scene.session.attach(Terms {
        window: 100,
        receive: 2,
        expiry: HOUR,
        will: None,
    });
    let mut peer = Peer::default();
    scene.session.pump(&mut peer, scene.now);
    assert_eq!(peer.payloads(), "ab");
    scene.ack(AckKind::PubAck, 1, &mut peer);
    scene.ack(AckKind::PubAck, 2, &mut peer);
    assert_eq!(peer.payloads(), "abc");
}

#[test]
fn released_messages_hold_no_bytes() {
    let mut scene = Scene::bounded(100, 1000, usize::MAX);
    let mut peer = Peer::default();
    for (payload, id) in ['a', 'b', 'c'].into_iter().zip(1..) {
        let (message, grant) = (long(payload, 1200), grant(ExactlyOnce));
        let message = Arc::new(Message {
            qos: ExactlyOnce,
            ..Message::clone(&message)
        });
        scene
            .session
            .deliver(&message, grant, Some(&mut peer), scene.now);
        assert_eq!(peer.ids().last(), Some(&id));
        scene.ack(AckKind::PubRec, id, &mut peer);
    }
    assert_eq!(scene.session.inflight_len(), 3);
}

#[test]
fn all_queues_together_take_no_more_than_their_bytes() {
    let room = room(100, 10_000, 1000);
    let mut scenes = [(); 3].map(|()| Scene::with_room(room.clone(), 1, HOUR, None));
    let shared = long('a', 600);
    for scene in &mut scenes {
        let grant = grant(AtLeastOnce);
        let delivered = scene
            .session
            .deliver(&shared, grant, None::<&mut Peer>, scene.now);
        assert_eq!(delivered, Delivered::Queued);
    }
    let [first, second, third] = &mut scenes;
    assert_eq!(first.deliver_long('b', 600, None), Delivered::Full);
    // What can be sent need not wait.
    let mut peer = Peer::default();
    let sent = first.deliver_long('b', 600, Some(&mut peer));
    assert_eq!(sent, Delivered::Full, "it would overtake");
    // It is there until nobody waits for it: sent, dropped with its session, or handed on.
    first.session.pump(&mut peer, first.now);
    assert_eq!(peer.payloads(), "a");
    assert_eq!(second.deliver_long('b', 600, None), Delivered::Full);
    second.session = Session::new(room);
    third.session.pump(&mut peer, third.now);
    assert_eq!(second.deliver_long('b', 600, None), Delivered::Queued);
    second.session.detach(Cause::Broken, second.now);
    second.session.wind_up();
    assert_eq!(first.deliver_long('c', 600, None), Delivered::Full);
}

#[test]
fn subscriptions_weigh_what_their_filters_do() {
    let mut session = Session::new(room(1, 1, 1));
    let subscription = Subscription {
        qos: AtMostOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };
    session.subscribe("a/b", subscription);
    let one = session.subscription_bytes();
    assert!(one > 2 * 1024);
    session.subscribe("a/b", subscription);
    assert_eq!(session.subscription_bytes(), one);
    session.subscribe("a/b/c", subscription);
    assert!(session.subscription_bytes() > 2 * one);
    session.unsubscribe("a/b");
    session.unsubscribe("a/b");
    session.unsubscribe("a/b/c");
    assert_eq!(session.subscription_bytes(), 0);
}
