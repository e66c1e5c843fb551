//! Connections and sessions that end, and the wills that they leave.

use super::*;

#[test]
fn clean_session_ends_with_its_connection() {
    let mut scene = Scene::new(1, 1, Duration::ZERO, will(0));
    let aftermath = scene.session.detach(Cause::Goodbye, scene.now);
    assert_eq!(
        aftermath,
        Aftermath {
            will: None,
            ended: true
        }
    );
}

#[test]
fn will_is_due_at_once_when_the_connection_breaks() {
    let mut scene = Scene::new(1, 1, HOUR, will(0));
    let aftermath = scene.session.detach(Cause::Broken, scene.now);
    assert!(aftermath.will.is_some() && !aftermath.ended);
    assert_eq!(scene.session.next_deadline(), Some(scene.now + HOUR));
}

#[test]
fn will_lives_from_its_publication_however_long_its_client_was_connected() {
    let expiring = |delay| {
        will(delay).map(|will| Will {
            expiry: Some(5),
            ..will
        })
    };
    for delay in [0, 10] {
        let mut scene = Scene::new(1, 1, HOUR, expiring(delay));
        scene.now += HOUR;
        let mut aftermath = scene.session.detach(Cause::Broken, scene.now);
        if delay > 0 {
            scene.now += Duration::from_secs(10);
            aftermath = scene.session.handle_timeout(scene.now);
        }
        let expires = aftermath.will.unwrap().expires;
        assert_eq!(expires, Some(scene.now + Duration::from_secs(5)));
    }
}

#[test]
fn delayed_will_waits_and_is_cancelled_by_a_new_connection() {
    let mut scene = Scene::new(1, 1, HOUR, will(10));
    assert_eq!(
        scene.session.detach(Cause::Broken, scene.now),
        Aftermath::default()
    );
    let due = scene.now + Duration::from_secs(10);
    assert_eq!(scene.session.next_deadline(), Some(due));
    assert_eq!(
        scene.session.handle_timeout(scene.now),
        Aftermath::default()
    );
    assert!(scene.session.handle_timeout(due).will.is_some());
    assert_eq!(scene.session.handle_timeout(due), Aftermath::default());

    let mut scene = Scene::new(1, 1, HOUR, will(10));
    scene.session.detach(Cause::Broken, scene.now);
    scene.session.attach(Terms {
        window: 1,
        receive: 2,
        expiry: HOUR,
        will: None,
    });
    assert_eq!(scene.session.next_deadline(), None);
}

#[test]
fn will_delay_ends_with_the_session() {
    let mut scene = Scene::new(1, 1, Duration::from_secs(5), will(10));
    scene.session.detach(Cause::Broken, scene.now);
    let aftermath = scene
        .session
        .handle_timeout(scene.now + Duration::from_secs(5));
    assert!(aftermath.will.is_some() && aftermath.ended);

    let mut scene = Scene::new(1, 1, Duration::ZERO, will(10));
    let aftermath = scene.session.detach(Cause::Broken, scene.now);
    assert!(aftermath.will.is_some() && aftermath.ended);
}

#[test]
fn session_ends_when_its_expiry_has_passed() {
    let mut scene = Scene::persistent(1, 1);
    scene.session.detach(Cause::Goodbye, scene.now);
    assert!(!scene.session.handle_timeout(scene.now + HOUR / 2).ended);
    assert!(scene.session.handle_timeout(scene.now + HOUR).ended);
}

#[test]
fn shutdown_ends_the_session_without_its_will() {
    let mut scene = Scene::new(1, 1, HOUR, will(0));
    let aftermath = scene.session.detach(Cause::Shutdown, scene.now);
    assert_eq!(
        aftermath,
        Aftermath {
            will: None,
            ended: true
        }
    );
}

#[test]
fn message_that_was_sent_does_not_expire() {
    let mut scene = Scene::persistent(1, 10);
    let mut expiring = Message::clone(&message('a', ExactlyOnce));
    expiring.expires = Some(scene.now + Duration::from_secs(1));
    let mut peer = Peer::default();
    scene.session.deliver(
        &Arc::new(expiring),
        grant(ExactlyOnce),
        Some(&mut peer),
        scene.now,
    );
    scene.now += Duration::from_secs(2);
    assert_eq!(scene.reconnect(1).payloads(), "a");
}

#[test]
fn what_an_older_connection_left_takes_nothing_of_the_quota() {
    let mut scene = Scene::persistent(10, 10);
    let publish = |scene: &mut Scene, id| {
        let id = PacketId::new(id);
        scene.session.handle_publish(ExactlyOnce, id).is_ok()
    };
    assert!(publish(&mut scene, 1) && publish(&mut scene, 2) && !publish(&mut scene, 3));
    let mut peer = scene.reconnect(10);
    assert!(publish(&mut scene, 3) && publish(&mut scene, 4) && !publish(&mut scene, 5));
    for id in 1..=4 {
        scene.ack(AckKind::PubRel, id, &mut peer);
    }
    let acks: Vec<_> = (1..=4).map(|id| ack(AckKind::PubComp, id, 0)).collect();
    assert_eq!(peer.acks, acks);
}

#[test]
fn will_of_a_client_that_was_sent_on_waits_for_its_delay_or_is_dropped() {
    let mut scene = Scene::new(1, 1, HOUR, will(0));
    let aftermath = scene.session.detach(Cause::Referred, scene.now);
    assert_eq!(aftermath, Aftermath::default());
    assert!(
        scene
            .session
            .handle_timeout(scene.now + HOUR)
            .will
            .is_none()
    );

    let mut scene = Scene::new(1, 1, HOUR, will(10));
    scene.session.detach(Cause::Referred, scene.now);
    let due = scene.now + Duration::from_secs(10);
    assert!(scene.session.handle_timeout(due).will.is_some());

    // Its end would be the end of the delay.
    let mut scene = Scene::new(1, 1, Duration::ZERO, will(10));
    let aftermath = scene.session.detach(Cause::Referred, scene.now);
    assert!(aftermath.ended && aftermath.will.is_none());
}
