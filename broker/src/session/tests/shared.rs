//! Messages that a session gets for a group, and gives back when it leaves.

use super::*;

const GROUP: ShareId = ShareId(1);
const OTHER: ShareId = ShareId(2);

fn share(scene: &mut Scene, payload: char, qos: Qos, share: ShareId, peer: Option<&mut Peer>) {
    let grant = Grant {
        share: Some(share),
        ..grant(qos)
    };
    scene
        .session
        .deliver(&message(payload, qos), grant, peer, scene.now);
}

fn told(orphans: Vec<Orphan>) -> Vec<(ShareId, char)> {
    orphans
        .into_iter()
        .map(|orphan| (orphan.share, char::from(orphan.message.payload[0])))
        .collect()
}

#[test]
fn unsent_messages_of_a_group_are_given_back_in_order() {
    let mut scene = Scene::persistent(1, 10);
    let mut peer = Peer::default();
    share(&mut scene, 'a', AtLeastOnce, GROUP, Some(&mut peer));
    share(&mut scene, 'b', AtLeastOnce, GROUP, Some(&mut peer));
    scene.deliver('c', AtLeastOnce, Some(&mut peer));
    share(&mut scene, 'd', ExactlyOnce, OTHER, Some(&mut peer));
    share(&mut scene, 'e', ExactlyOnce, GROUP, Some(&mut peer));
    let orphans = told(scene.session.reclaim_unsent(Some(&[GROUP].into())));
    assert_eq!(orphans, [(GROUP, 'b'), (GROUP, 'e')]);
    assert_eq!(told(scene.session.reclaim_unsent(None)), [(OTHER, 'd')]);
    scene.ack(AckKind::PubAck, 1, &mut peer);
    assert_eq!(peer.payloads(), "ac");
}

#[test]
fn session_that_ends_gives_back_what_was_not_acknowledged_but_no_qos2_that_was_sent() {
    let mut scene = Scene::persistent(3, 10);
    let mut peer = Peer::default();
    share(&mut scene, 'a', AtLeastOnce, GROUP, Some(&mut peer));
    share(&mut scene, 'b', ExactlyOnce, GROUP, Some(&mut peer));
    scene.deliver('c', AtLeastOnce, Some(&mut peer));
    share(&mut scene, 'd', ExactlyOnce, GROUP, Some(&mut peer));
    assert_eq!(peer.payloads(), "abc");
    let orphans = told(scene.session.wind_up().1);
    assert_eq!(orphans, [(GROUP, 'a'), (GROUP, 'd')]);
}

#[test]
fn counts_of_the_queue_survive_what_is_given_back() {
    let mut scene = Scene::persistent(1, 10);
    let mut peer = Peer {
        is_full: true,
        ..Peer::default()
    };
    share(&mut scene, 'a', AtMostOnce, GROUP, Some(&mut peer));
    scene.deliver('b', AtMostOnce, Some(&mut peer));
    assert_eq!(told(scene.session.reclaim_unsent(None)), [(GROUP, 'a')]);
    peer.is_full = false;
    scene.session.pump(&mut peer, scene.now);
    // Nothing of QoS 0 is before this one.
    assert_eq!(
        scene.deliver('c', AtMostOnce, Some(&mut peer)),
        Delivered::Sent
    );
    assert_eq!(peer.payloads(), "bc");
}

#[test]
fn appetite_follows_window_queue_and_connection() {
    let mut scene = Scene::persistent(1, 1);
    let mut peer = Peer::default();
    assert_eq!(scene.session.appetite(true), Appetite::Ready);
    assert_eq!(scene.session.appetite(false), Appetite::Away);
    scene.deliver('a', AtLeastOnce, Some(&mut peer));
    assert_eq!(scene.session.appetite(true), Appetite::Busy);
    scene.deliver('b', AtLeastOnce, Some(&mut peer));
    assert_eq!(scene.session.appetite(true), Appetite::Full);
    assert_eq!(scene.session.appetite(false), Appetite::Full);
    scene.ack(AckKind::PubAck, 1, &mut peer);
    scene.ack(AckKind::PubAck, 2, &mut peer);
    assert_eq!(scene.session.appetite(true), Appetite::Ready);
}

#[test]
fn client_without_a_queue_takes_what_can_be_sent_at_once() {
    let mut scene = Scene::persistent(1, 0);
    assert_eq!(scene.session.appetite(true), Appetite::Ready);
    scene.deliver('a', AtLeastOnce, Some(&mut Peer::default()));
    assert_eq!(scene.session.appetite(true), Appetite::Full);
}

#[test]
fn client_without_a_queue_that_does_not_read_is_full_and_not_unable() {
    let mut scene = Scene::persistent(1, 0);
    let mut peer = Peer {
        is_full: true,
        ..Peer::default()
    };
    let delivered = scene.deliver('a', AtMostOnce, Some(&mut peer));
    assert_eq!(delivered, Delivered::Full);
}
